//! What can go wrong with rooms.

use model::{KernelArgs, Machine, MachineName, Room, RoomName, RootUrl, Seat, Setting};

/// Why something can't be done with a room.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// There is no such room.
    #[error("there is no room {0}: bootlace room ls shows all")]
    NoRoom(RoomName),
    /// A machine is to be in a room that there is not.
    #[error("there is no room {0}: bootlace room ls shows all, and bootlace room set {0} adds it")]
    NoRoomToBeIn(RoomName),
    /// The name is in use.
    #[error("there is a room {0} already: choose another name")]
    NameTaken(RoomName),
    /// Machines are in it.
    #[error("{} in the room {room}: move them to another one first, or out of it", are(machines))]
    NotEmpty {
        /// The room.
        room: RoomName,
        /// Who is in it; not empty.
        machines: Vec<MachineName>,
    },
    /// The room has no such seat.
    #[error("the room {room} has {} rows of {} seats: there is no seat {seat}", size.row, size.column)]
    NoSeat {
        /// The room.
        room: RoomName,
        /// Its size.
        size: Seat,
        /// The seat that was asked for.
        seat: Seat,
    },
    /// Somebody else stands there.
    #[error("seat {seat} of the room {room} is that of {machine}: move that one first")]
    SeatTaken {
        /// The room.
        room: RoomName,
        /// The seat.
        seat: Seat,
        /// Whose it is.
        machine: MachineName,
    },
    /// Seats are in rooms.
    #[error("{0} is in no room, so it has no seat: say which room, too")]
    SeatWithoutRoom(MachineName),
    /// Machines would stand outside.
    #[error(
        "the seat {seat} of {machine} would be outside: move it first, or make the room larger"
    )]
    TooSmall {
        /// Who would.
        machine: MachineName,
        /// Where.
        seat: Seat,
    },
    /// The note is too long, or would break the tables that it stands in.
    #[error("a note is one line of at most {} bytes, without control characters", model::NOTE_MAX)]
    BadNote,
    /// There are too many.
    #[error("there are {} rooms already, which is the most: remove one first", Room::ROOMS_MAX)]
    TooMany,
    /// A machine can't have so many tags.
    #[error("{0} would have more than {max} tags", max = Machine::TAGS_MAX)]
    TooManyTags(MachineName),
    /// Linux takes no command line of any length.
    #[error(
        "the kernel parameters of the room {room} and of {machine} together are longer than {} bytes",
        KernelArgs::MAX
    )]
    LongKernelArgs {
        /// The room.
        room: RoomName,
        /// A machine in it.
        machine: MachineName,
    },
    /// A setting is to be set and not.
    #[error("{0} is given, and to be inherited: say one of them")]
    GivenAndInherited(Setting),
    /// Machines would spoil each other's root.
    #[error(
        "all machines that inherit {0} would write there, and spoil it for each other: add the option ro, or set it at a \
         single machine"
    )]
    SharedRoot(RootUrl),
}

impl RoomError {
    /// Whether what was asked for does not exist.
    pub(crate) const fn is_not_found(&self) -> bool {
        matches!(self, Self::NoRoom(_))
    }

    /// Whether something else is in the way.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::NameTaken(_) | Self::NotEmpty { .. } | Self::SeatTaken { .. })
    }
}

/// `lab-07 is`, `lab-07, lab-08 and 3 more are`.
fn are(machines: &[MachineName]) -> String {
    const SHOWN_MAX: usize = 8;
    let names: Vec<&str> = machines.iter().take(SHOWN_MAX).map(MachineName::as_str).collect();
    match machines.len().saturating_sub(SHOWN_MAX) {
        0 if names.len() == 1 => format!("{} is", names[0]),
        0 => format!("{} are", names.join(", ")),
        n_more => format!("{} and {n_more} more are", names.join(", ")),
    }
}
