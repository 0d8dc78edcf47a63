//! The NBD protocol, both ends: handshake (fixed newstyle) and transmission.
//!
//! The server's end also knows structured replies and the context `base:allocation`; the client's, which is
//! for Linux kernels, needs neither.
//!
//! Bytes go in, decisions come out; the names follow the protocol text (doc/proto.md of the
//! reference implementation). Nothing here performs I/O or panics on foreign bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
mod constants;
pub mod server;
pub mod structured;
mod transmission;

pub use constants::{InfoType, TransmissionFlags};
pub use transmission::{
    Command, CommandFlags, ErrorCode, REPLY_BYTES, REQUEST_BYTES, Request, RequestError,
    simple_reply,
};

/// Longest export name in bytes that a server must accept.
pub const NAME_MAX: usize = 4096;

/// Largest payload in bytes that a client may send or ask for without negotiating another size.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// TCP port of NBD (IANA).
pub const PORT: u16 = 10809;
