//! Sockets of the boot protocols. What to answer is decided by the protocol crates.

pub mod dhcp;
pub mod port_holder;
pub mod solicitations;
pub mod tftp;

mod frame;
mod handed;
mod tftp_transfer;

pub use handed::{handed_sockets, listener_from};
