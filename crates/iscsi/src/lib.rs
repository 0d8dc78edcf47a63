//! The login of an iSCSI initiator (RFC 7143): PDU headers, text keys, and what both sides agree on.
//!
//! Only the login: the kernel does everything after it. Bytes go in, values come out. Nothing here performs
//! I/O or panics on foreign bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod login;
mod pdu;
mod text;

pub use login::{Agreed, Identity, Login, LoginError, Step};
pub use pdu::{HEADER_BYTES, LoginRequest, LoginResponse, Malformed, Phase};
pub use text::{BadText, TEXT_MAX, parse_keys};
