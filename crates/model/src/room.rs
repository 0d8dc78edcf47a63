//! Rooms, and seats in them.

use crate::as_text::as_text;
use crate::{KernelArgs, RoomName, Settings};
use alloc::string::String;
use core::fmt;
use core::num::NonZeroU8;
use core::str::FromStr;
use initcfg::ParseChoiceError;

/// Where in its room a machine stands, displayed as `2.5`: row 2, fifth place. Rows count from the front, places from the
/// left as one looks to the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The row.
    pub row: NonZeroU8,
    /// The place in its row.
    pub column: NonZeroU8,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.row, self.column)
    }
}

impl FromStr for Seat {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let wanted = "a seat: use ROW.PLACE, both from 1 to 255, like 2.5";
        let parts = text.split_once('.').and_then(|(row, column)| {
            Some(Self { row: row.parse().ok()?, column: column.parse().ok()? })
        });
        parts.ok_or_else(|| ParseChoiceError::new(text, wanted))
    }
}

as_text!(Seat);

/// Machines in one place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Room {
    /// Its name.
    pub name: RoomName,
    /// A remark for people, see [`is_note`](crate::is_note); may be empty.
    pub note: String,
    /// How many rows of seats it has, and how many seats a row; `None`: nobody has said, and seats may be anywhere.
    pub size: Option<Seat>,
    /// What its machines inherit.
    #[serde(flatten)]
    pub settings: Settings,
    /// Kernel parameters of its machines, after the site's and before their own.
    pub kernel_args: KernelArgs,
}

impl Room {
    /// Rooms of a site at most.
    pub const ROOMS_MAX: usize = 1000;

    /// A room of which nothing is said yet.
    pub fn new(name: RoomName) -> Self {
        Self {
            name,
            note: String::new(),
            size: None,
            settings: Settings::default(),
            kernel_args: KernelArgs::default(),
        }
    }

    /// Whether the room has such a seat.
    pub fn has_seat(&self, seat: Seat) -> bool {
        self.size.is_none_or(|size| seat.row <= size.row && seat.column <= size.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn seats_are_in_their_room() {
        let seat = |text: &str| text.parse::<Seat>();
        assert_eq!(seat("2.5").unwrap().to_string(), "2.5");
        for wrong in ["", "2", "0.1", "1.0", "256.1", "-1.2", "1.2.3", "a.b"] {
            assert!(seat(wrong).unwrap_err().to_string().contains("ROW.PLACE"), "{wrong}");
        }
        let mut room = Room::new("r101".parse().unwrap());
        assert!(room.has_seat(seat("200.200").unwrap()));
        room.size = Some(seat("3.8").unwrap());
        assert!(room.has_seat(seat("3.8").unwrap()) && !room.has_seat(seat("4.1").unwrap()));
        assert!(!room.has_seat(seat("3.9").unwrap()));
    }
}
