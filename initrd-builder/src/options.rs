//! What is to be in an initrd.

use crate::Fit;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// How the root disk of a machine is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootKind {
    /// A disk over NBD.
    Nbd,
    /// A disk over AoE.
    Aoe,
    /// A folder over NFS, version 3 or 4.
    Nfs,
    /// A disk over iSCSI.
    Iscsi,
}

impl RootKind {
    /// The modules that are wanted for it; others come as their dependencies.
    pub(crate) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Nbd => &["nbd"],
            Self::Aoe => &["aoe"],
            Self::Nfs => &["nfs", "nfsv3", "nfsv4"],
            Self::Iscsi => &["iscsi_tcp", "sd_mod"],
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Nbd => "NBD",
            Self::Aoe => "AoE",
            Self::Nfs => "NFS",
            Self::Iscsi => "iSCSI",
        }
    }
}

/// As on the command line.
impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nbd => "nbd",
            Self::Aoe => "aoe",
            Self::Nfs => "nfs",
            Self::Iscsi => "iscsi",
        })
    }
}

/// File system of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileSystem {
    /// ext2, ext3 and ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// SquashFS.
    Squashfs,
    /// EROFS.
    Erofs,
}

impl FileSystem {
    pub(crate) const ALL: [Self; 5] =
        [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Squashfs, Self::Erofs];

    /// Name of its module.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

/// Choices for [`crate::build`]; the default is an initrd for all machines.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Root disks that the initrd can attach. `None`: NBD, and AoE if the kernel has it.
    pub roots: Option<BTreeSet<RootKind>>,
    /// More of them, as far as the kernel has them; of no meaning with `roots`.
    pub more_roots: BTreeSet<RootKind>,
    /// File systems of root disks. `None`: all that the kernel has.
    pub file_systems: Option<BTreeSet<FileSystem>>,
    /// The hardware that it is for. `None`: every wired network card.
    pub fit: Option<Fit>,
    /// NBD roots are attached over TLS, and the storage server must be certified by one of these
    /// authorities (PEM). It takes a `bootlace-init-tls`.
    pub nbd_ca: Option<Vec<u8>>,
    /// Folder for compressed modules, which makes the next build faster and changes no byte of it.
    /// Some 15 MB for each kernel; nothing removes old files, but it may be emptied at any time.
    pub cache: Option<PathBuf>,
}
