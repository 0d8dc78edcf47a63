//! The root disk: how it is attached, over each protocol, and mounted.

pub(crate) mod aoe;
pub(crate) mod disk;
pub(crate) mod iscsi;
pub(crate) mod lvm;
pub(crate) mod mount;
pub(crate) mod nbd;
pub(crate) mod nfs;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;

use disk::Disk;

/// Where the root file system is mounted before it becomes `/`.
pub(crate) const ROOT: &str = "/sysroot";

/// A root that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// A disk.
    Disk(Disk),
    /// A folder of a server, which is mounted already; the text says what it is.
    Folder(String),
}
