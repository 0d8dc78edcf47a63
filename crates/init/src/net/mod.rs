//! The boot NIC and the one that leads to the storage network: driver, link, address and packets.

pub(crate) mod dhcp;
pub(crate) mod mtu;
pub(crate) mod netlink;
pub(crate) mod nic;
pub(crate) mod storage_nic;
pub(crate) mod tcp;
