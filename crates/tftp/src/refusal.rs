//! Why a request gets no file.

use crate::packet;
use alloc::vec::Vec;

// Codes of errors (RFC 1350 §5).
const SEE_MESSAGE: u16 = 0;
const FILE_NOT_FOUND: u16 = 1;
const ACCESS_VIOLATION: u16 = 2;
const ILLEGAL_OPERATION: u16 = 4;
const UNKNOWN_TRANSFER: u16 = 5;

/// The reason that a client is told. Never holds a path of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// There is no such file. GRUB, shim and ROMs probe for files and depend on a quick answer.
    #[error("file not found")]
    NotFound,
    /// The file is there, but not for this client.
    #[error("access denied")]
    Denied,
    /// The path leaves the served tree or is no file name.
    #[error("bad file name")]
    BadPath,
    /// The client wanted to store a file.
    #[error("this server only sends files")]
    ReadOnly,
    /// The transfer mode is neither octet nor netascii.
    #[error("unknown mode: use octet")]
    Mode,
    /// The file is too long for text mode.
    #[error("too long for netascii: use octet")]
    TooLongForText,
    /// The client or the server has too many transfers at once.
    #[error("too many transfers: try again")]
    Busy,
    /// The server could not read or make the file; its log says why.
    #[error("the server failed to read the file")]
    Failed,
    /// A datagram from somebody who has no transfer on this port.
    #[error("unknown transfer")]
    UnknownTransfer,
}

impl NotServed {
    /// A word for it, for counting.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::BadPath => "bad-path",
            Self::ReadOnly => "read-only",
            Self::Mode => "mode",
            Self::TooLongForText => "too-long-for-text",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::UnknownTransfer => "unknown-transfer",
        }
    }

    /// Error code of RFC 1350 section 5.
    pub fn code(self) -> u16 {
        match self {
            Self::TooLongForText | Self::Busy | Self::Failed => SEE_MESSAGE,
            Self::NotFound => FILE_NOT_FOUND,
            Self::Denied | Self::BadPath | Self::ReadOnly => ACCESS_VIOLATION,
            Self::Mode => ILLEGAL_OPERATION,
            Self::UnknownTransfer => UNKNOWN_TRANSFER,
        }
    }

    /// The ERROR packet that tells the client.
    pub fn packet(self) -> Vec<u8> {
        packet::error(self.code(), &alloc::format!("{self}"))
    }
}
