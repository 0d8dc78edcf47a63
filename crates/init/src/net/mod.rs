//! The boot NIC: its driver, link, address and packets.

pub(crate) mod dhcp;
pub(crate) mod mtu;
pub(crate) mod netlink;
pub(crate) mod nic;
pub(crate) mod tcp;
