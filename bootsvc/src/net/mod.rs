//! Sockets of the boot protocols. What to answer is decided by the protocol crates.

pub mod port_holder;

mod handed;

pub use handed::listener_from;
