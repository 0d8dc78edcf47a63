//! Who has which address.

use crate::Mac;
use alloc::string::String;
use core::net::Ipv4Addr;

/// An address that belongs to a MAC for a time. To a MAC and not to a client identifier: firmware, GRUB, init
/// and system of one machine send different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lease {
    /// The NIC that has the address.
    pub mac: Mac,
    /// The leased address.
    pub address: Ipv4Addr,
    /// When it ends, seconds since 1970. Kept after that, so that a machine gets its address again.
    pub expires_unix: u64,
    /// Host name that the client sent.
    pub host_name: Option<String>,
}
