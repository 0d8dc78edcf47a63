//! What is to be in an initrd.

use crate::Fit;
use initcfg::{FileSystem, RootKind};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Choices for [`build`](crate::build()); the default is an initrd for all machines.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Root disks that the initrd can attach. `None`: NBD, and AoE if the kernel has it.
    pub roots: Option<BTreeSet<RootKind>>,
    /// More of them, as far as the kernel has them; of no meaning with `roots`.
    pub more_roots: BTreeSet<RootKind>,
    /// File systems of root disks. `None`: all that the kernel has.
    pub file_systems: Option<BTreeSet<FileSystem>>,
    /// That of the root disk, if it is known: a kernel whose module for it can't be used boots nothing.
    pub root_file_system: Option<FileSystem>,
    /// The root is a logical volume.
    pub is_on_lvm: bool,
    /// The initrd can read disks that are in the PC itself, too.
    pub has_local_disks: bool,
    /// The hardware that it is for. `None`: every wired network card.
    pub fit: Option<Fit>,
    /// NBD roots are attached over TLS, and the storage server must be certified by one of these
    /// authorities (PEM). It takes a `bootlace-init-tls`.
    pub nbd_ca: Option<Vec<u8>>,
    /// What init lays over the root ([`initcfg::Overlay`]).
    pub overlay: Option<Vec<u8>>,
    /// Folder for compressed modules, which makes the next build faster and changes no byte of it.
    /// Some 15 MB for each kernel; nothing removes old files, but it may be emptied at any time.
    pub cache: Option<PathBuf>,
}
