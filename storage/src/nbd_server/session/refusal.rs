//! Requests that are not done, and why.

use super::read::PIECE_BYTES;
use nbd::server::Agreed;
use nbd::{Command, CommandFlags, ErrorCode, PAYLOAD_MAX, Request};
use std::io;

/// A request that is not done, and why, in words for people.
pub(super) type Refusal = (ErrorCode, &'static str);

/// Whether the request makes sense on a disk of this size.
pub(super) fn check(request: &Request, size_bytes: u64, agreed: Agreed) -> Result<(), Refusal> {
    let invalid = |text| Err((ErrorCode::Invalid, text));
    if !request.flags.fit(request.command) {
        return invalid("a flag that does not belong to the command");
    }
    let fits = request.fits(size_bytes);
    match request.command {
        Command::Read | Command::Write if request.length > PAYLOAD_MAX => {
            invalid("the request is longer than 32 MiB")
        }
        // As the protocol has it ("Error values"), nbdkit and qemu: only what would add data lacks room.
        Command::Write | Command::WriteZeroes if !fits => {
            Err((ErrorCode::NoSpace, "beyond the end of the disk"))
        }
        Command::Read | Command::Trim | Command::Cache | Command::BlockStatus if !fits => {
            invalid("beyond the end of the disk")
        }
        Command::Read if request.flags.has(CommandFlags::DF) => {
            if !agreed.structured {
                return invalid("DF needs structured replies");
            }
            match request.length as usize > PIECE_BYTES {
                true => Err((ErrorCode::Overflow, "too long for one chunk")),
                false => Ok(()),
            }
        }
        Command::BlockStatus if !agreed.allocation => invalid("base:allocation was not chosen"),
        Command::BlockStatus if request.length == 0 => invalid("a length of 0"),
        Command::Disconnect | Command::Unknown(_) => invalid("unknown command"),
        _ => Ok(()),
    }
}

/// What a client is told of a disk that can't do what was asked.
pub(super) fn of_error(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorCode::NotPermitted, "the disk is read-only"),
        io::ErrorKind::InvalidInput => (ErrorCode::Invalid, "beyond the end of the disk"),
        io::ErrorKind::StorageFull => (ErrorCode::NoSpace, "the server's disk is full"),
        io::ErrorKind::OutOfMemory => (ErrorCode::NoMemory, "the server has no memory left"),
        io::ErrorKind::Unsupported => (ErrorCode::NotSupported, "not faster than writing zeroes"),
        _ => (ErrorCode::Io, "the server's disk failed; its log says how"),
    }
}
