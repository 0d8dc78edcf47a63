//! Requests and replies.

use crate::constants::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE,
    CMD_WRITE_ZEROES, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC,
};
use wire::{Reader, Truncated};

/// Length of a request's header in bytes.
pub const REQUEST_BYTES: usize = 28;

/// Length of a simple reply's header in bytes.
pub const REPLY_BYTES: usize = 16;

/// What a client asks for (NBD_CMD_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read `length` bytes.
    Read,
    /// Write the `length` bytes that follow the header.
    Write,
    /// Finish everything in flight, then close.
    Disconnect,
    /// Make all writes durable that were answered before.
    Flush,
    /// The bytes are not needed any more.
    Trim,
    /// The bytes will be read soon.
    Cache,
    /// Write zeroes, without payload.
    WriteZeroes,
    /// Say which bytes are data and which are holes.
    BlockStatus,
    /// A command that is not known, by its number.
    Unknown(u16),
}

impl Command {
    const fn of_code(code: u16) -> Self {
        match code {
            CMD_READ => Self::Read,
            CMD_WRITE => Self::Write,
            CMD_DISC => Self::Disconnect,
            CMD_FLUSH => Self::Flush,
            CMD_TRIM => Self::Trim,
            CMD_CACHE => Self::Cache,
            CMD_WRITE_ZEROES => Self::WriteZeroes,
            CMD_BLOCK_STATUS => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }

    const fn code(self) -> u16 {
        match self {
            Self::Read => CMD_READ,
            Self::Write => CMD_WRITE,
            Self::Disconnect => CMD_DISC,
            Self::Flush => CMD_FLUSH,
            Self::Trim => CMD_TRIM,
            Self::Cache => CMD_CACHE,
            Self::WriteZeroes => CMD_WRITE_ZEROES,
            Self::BlockStatus => CMD_BLOCK_STATUS,
            Self::Unknown(other) => other,
        }
    }
}

/// Flags of one request (NBD_CMD_FLAG_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CommandFlags(pub u16);

impl CommandFlags {
    /// What is written must be durable before the reply.
    pub const FUA: Self = Self(1);
    /// WRITE_ZEROES must keep the space allocated.
    pub const NO_HOLE: Self = Self(1 << 1);
    /// READ must be answered in one chunk.
    pub const DF: Self = Self(1 << 2);
    /// BLOCK_STATUS must be answered with one extent.
    pub const REQ_ONE: Self = Self(1 << 3);
    /// WRITE_ZEROES must fail if it is not faster than writing.
    pub const FAST_ZERO: Self = Self(1 << 4);

    /// Whether no other flags are set than those that belong to `command`.
    pub const fn fit(self, command: Command) -> bool {
        let known = match command {
            Command::Read => Self::FUA.0 | Self::DF.0,
            Command::WriteZeroes => Self::FUA.0 | Self::NO_HOLE.0 | Self::FAST_ZERO.0,
            Command::BlockStatus => Self::FUA.0 | Self::REQ_ONE.0,
            _ => Self::FUA.0,
        };
        self.0 & !known == 0
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The header of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags of the request.
    pub flags: CommandFlags,
    /// What is asked for.
    pub command: Command,
    /// Number that the reply repeats.
    pub cookie: u64,
    /// First byte on the disk.
    pub offset: u64,
    /// How many bytes the command is about.
    pub length: u32,
}

/// The bytes are no request; the connection can't be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Fewer than [`REQUEST_BYTES`].
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Not the magic number of a request.
    #[error("request with magic {0:#010x} instead of 0x25609513")]
    Magic(u32),
}

impl Request {
    /// Reads a header. Unknown commands are values, so that they can be answered.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        let mut fields = Reader::new(bytes);
        let magic = fields.u32("magic")?;
        if magic != REQUEST_MAGIC {
            return Err(RequestError::Magic(magic));
        }
        Ok(Self {
            flags: CommandFlags(fields.u16("command flags")?),
            command: Command::of_code(fields.u16("command")?),
            cookie: fields.u64("cookie")?,
            offset: fields.u64("offset")?,
            length: fields.u32("length")?,
        })
    }

    /// The header as it is sent.
    pub fn emit(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.code().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Whether the bytes concerned lie on a disk of `size_bytes`.
    pub fn fits(&self, size_bytes: u64) -> bool {
        self.offset.checked_add(u64::from(self.length)).is_some_and(|end| end <= size_bytes)
    }
}

/// The errors that a reply may carry. All others must be mapped to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// EPERM: the export is read-only.
    NotPermitted = 1,
    /// EIO: the disk can't be read or written.
    Io = 5,
    /// ENOMEM: the server has no memory for it.
    NoMemory = 12,
    /// EINVAL: unknown command or flags, or beyond the end when reading.
    Invalid = 22,
    /// ENOSPC: beyond the end when writing, or no space left.
    NoSpace = 28,
    /// EOVERFLOW: the answer does not fit one chunk.
    Overflow = 75,
    /// ENOTSUP: it can't be done fast.
    NotSupported = 95,
}

/// Header of the reply to `cookie`; a successful read's data follow it.
pub fn simple_reply(cookie: u64, error: Option<ErrorCode>) -> [u8; REPLY_BYTES] {
    let error = error.map_or(0, |code| code as u32);
    let mut bytes = [0; REPLY_BYTES];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}
