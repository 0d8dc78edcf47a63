//! The root disk: how it is attached, over each protocol, and mounted.

pub(crate) mod aoe;
pub(crate) mod disk;
pub(crate) mod iscsi;
pub(crate) mod nbd;
pub(crate) mod nfs;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;
