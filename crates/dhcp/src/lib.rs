//! DHCPv4 with PXE: requests in, decisions out (RFC 2131, RFC 2132, RFC 4578).
//!
//! Pure: no socket, no clock, no file. Requests are read by a bounded reader that keeps the order of
//! options and skips broken ones; replies are encoded by dhcproto's option types. (dhcproto needs the
//! standard library, hence this crate does too.)
#![forbid(unsafe_code)]

mod options;
mod pool;
mod reply;
mod request;
mod server;

pub use reply::{Destination, Reply, ReplyKind};
pub use request::{Firmware, MessageType, NotARequest, Request};
pub use server::{Config, Decision, LeaseRecord, Reason, Server};

/// UDP port of DHCP servers.
pub const SERVER_PORT: u16 = 67;

/// UDP port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;
