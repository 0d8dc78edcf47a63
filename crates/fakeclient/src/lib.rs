//! Clients in software, for tests and measurements.
#![forbid(unsafe_code)]

pub mod aoe_load;
mod histogram;
mod packet;
pub mod room;

pub use histogram::Histogram;
