//! Types that the protocols share: hardware addresses and who has which IP address, kinds of firmware,
//! routes, instants, bounded byte readers, the ICMP echo, and what an error says together with its causes.
//!
//! Nothing here performs I/O, reads a clock or panics on foreign bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod echo;
mod error_chain;
mod firmware;
mod lease;
mod mac;
mod moment;
mod reader;
mod route;

pub use echo::Echo;
pub use error_chain::error_chain;
pub use firmware::{Architecture, Firmware};
pub use lease::Lease;
pub use mac::{Mac, ParseMacError};
pub use moment::Moment;
pub use reader::{Reader, Truncated};
pub use route::{ParseRouteError, Route};
