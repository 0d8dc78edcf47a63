//! Clients in software, for tests and measurements.
#![forbid(unsafe_code)]

pub mod aoe_crowd;
pub mod aoe_disk;
pub mod aoe_load;
pub mod aoe_search;
pub mod crowd;
pub mod dhcp_crowd;
pub mod firmware;
pub mod forged;
mod histogram;
pub mod http_crowd;
pub mod http_file;
pub mod loader_tcp;
pub mod machine_disk;
mod packet;
pub mod room;
pub mod speaker;
pub mod tftp_crowd;

pub use histogram::Histogram;
