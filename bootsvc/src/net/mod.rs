//! Sockets of the boot protocols. What to answer is decided by the protocol crates.

pub mod arp;
pub mod dhcp_socket;
pub mod dhcp_watch;
pub mod door;
pub mod holders;
pub mod http_server;
mod https;
pub mod link;
pub mod overheard;
pub mod places;
pub mod port_holder;
pub mod router_solicitations;
pub mod tftp_server;

pub(crate) mod neighbours;

mod frame;
mod handed;
mod tftp_socket;
mod tftp_transfer;
mod tftp_ways;
mod watched;

pub use handed::{Handed, handed_sockets, listener};
