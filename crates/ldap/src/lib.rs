//! What a client of a directory says that asks who somebody is (LDAPv3, RFC 4511): simple binds, searches, StartTLS.
//!
//! Bytes go in, values come out. Nothing here performs I/O or panics on foreign bytes, and nothing is read deeper than
//! these messages are, so that no reply can use up the stack.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ber;
mod filter;
mod message;
mod name;

pub use ber::Malformed;
pub use filter::{BadFilter, Filter};
pub use message::{
    BUSY, INVALID_CREDENTIALS, MESSAGE_BYTES_MAX, Message, NO_SUCH_OBJECT, Outcome, Request,
    Response, SIZE_LIMIT_EXCEEDED, SUCCESS, Scope, UNAVAILABLE, message_length,
};
pub use name::{DnPattern, NAME};
