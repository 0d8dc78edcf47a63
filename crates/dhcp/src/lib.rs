//! DHCPv4 with PXE, both ends: requests in, decisions out (RFC 2131, RFC 2132, RFC 4578).
//!
//! Pure: no socket, no clock, no file. Requests are read by a bounded reader that skips broken options;
//! replies are written in the order that ROMs expect. Tests compare both with dhcproto. Also knows the
//! IPv6 message without which iPXE waits, and the files in which other servers keep their leases.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod answer;
mod client;
mod lease_files;
mod message;
mod ndp;
mod networks;
pub mod option_codes;
mod options;
mod pool;
mod proxy;
mod ranges;
mod reply;
mod request;
mod routes;
mod server;

pub use answer::{Answer, ClientLease, NotAnAnswer};
pub use client::{Change, Client, Next, firmware_question};
pub use lease_files::{BadLeaseFile, ForeignLease, LeaseFile, LeaseFormat, LeftOut};
pub use message::{NotDhcp, ReplyKind, RequestKind};
pub use ndp::{NO_ROUTER, solicitor};
pub use networks::{Arrival, Networks, Place};
pub use pool::{DECLINED_SECONDS, Heard, Usage};
pub use proxy::{PROXY_PORT, Proxy, ProxyConfig, ProxyDecision, ProxySilence};
pub use reply::{Destination, Reply};
pub use request::{NotARequest, Request};
pub use server::{Config, Decision, Reason, Server};

/// UDP port of DHCP servers.
pub const SERVER_PORT: u16 = 67;

/// UDP port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;

/// Whether a host can have this address: not one of this host's own, of a group, of everybody or of nobody (RFC 1122, 3.2.1.3).
pub fn can_be_host(address: core::net::Ipv4Addr) -> bool {
    !address.is_loopback() && (1..224).contains(&address.octets()[0])
}
