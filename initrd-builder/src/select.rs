//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

use crate::modinfo::ModInfo;
use crate::tree::Tree;
use crate::{BuildError, ModuleSource, Options, RootKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Folders below `kernel/` from which everything is taken, and what for.
const FOLDERS: [(&str, &str); 8] = [
    ("drivers/net/ethernet/", "network drivers"),
    ("drivers/net/phy/", "network drivers (PHYs)"),
    ("drivers/net/mdio/", "network drivers (PHYs)"),
    ("drivers/net/pcs/", "network drivers (PHYs)"),
    ("drivers/net/usb/", "network drivers (USB)"),
    ("drivers/net/hyperv/", "network drivers (Hyper-V)"),
    ("drivers/usb/host/", "USB hosts"),
    ("drivers/pci/controller/", "PCI hosts"),
];

/// Drivers in these folders are for switches and for cards that nobody boots a workstation with; they
/// are large, or want firmware of many megabytes.
const FOLDERS_LEFT_OUT: [&str; 5] = [
    "drivers/net/ethernet/mellanox/mlxsw/",
    "drivers/net/ethernet/marvell/prestera/",
    "drivers/net/ethernet/marvell/octeontx2/",
    "drivers/net/ethernet/cavium/liquidio/",
    "drivers/net/ethernet/netronome/",
];

/// Modules that are taken by name when the kernel has them, and what for.
const WANTED: [(&str, &str); 20] = [
    ("virtio_net", "network cards of virtual machines"),
    ("virtio_pci", "virtual machines"),
    ("virtio_mmio", "virtual machines"),
    ("vmxnet3", "network cards of VMware"),
    ("xen_netfront", "network cards of Xen"),
    ("hv_vmbus", "Hyper-V"),
    ("hv_netvsc", "network cards of Hyper-V"),
    ("xen_pcifront", "Xen"),
    ("phy_generic", "USB hosts"),
    ("af_packet", "packet sockets"),
    ("ext4", "root file systems"),
    ("xfs", "root file systems"),
    ("btrfs", "root file systems"),
    ("squashfs", "root file systems"),
    ("erofs", "root file systems"),
    ("overlay", "read-only root file systems"),
    ("crc32c_generic", "checksums of file systems"),
    ("crc32c_intel", "checksums of file systems"),
    ("usbcore", "network cards on USB"),
    ("efi_pstore", "kernel messages after a crash"),
];

/// Folders below `kernel/` of which nothing is ever wanted, not even as a dependency of a network
/// driver: they are half of a kernel package. A wrong guess costs time, nothing else.
const FOLDERS_UNLIKELY: [&str; 11] = [
    "sound/",
    "drivers/bluetooth/",
    "drivers/gpu/",
    "drivers/hid/",
    "drivers/hwmon/",
    "drivers/iio/",
    "drivers/infiniband/",
    "drivers/input/",
    "drivers/media/",
    "drivers/net/wireless/",
    "drivers/staging/",
];

/// Why a module is in the initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// For its own sake; the text is for people, like `network drivers`.
    Purpose(String),
    /// This module can't work without it.
    NeededBy(String),
    /// This module works better with it.
    SoftDependencyOf(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Purpose(purpose) => f.write_str(purpose),
            Self::NeededBy(module) => write!(f, "needed by {module}"),
            Self::SoftDependencyOf(module) => write!(f, "soft dependency of {module}"),
        }
    }
}

impl Why {
    /// The module or the purpose.
    fn who(self) -> String {
        match self {
            Self::Purpose(who) | Self::NeededBy(who) | Self::SoftDependencyOf(who) => who,
        }
    }
}

/// One selected module.
pub(crate) struct Chosen {
    /// Path in the source.
    pub(crate) path: String,
    /// Decoded file.
    pub(crate) content: Vec<u8>,
    /// What it says about itself, with soft dependencies resolved to module names.
    pub(crate) info: ModInfo,
    /// The first reason that was found; the order is always the same.
    pub(crate) why: Why,
}

/// `false` for the large parts of a kernel that an initrd does not need.
pub(crate) fn is_likely_needed(path: &str) -> bool {
    let Some(path) = path.strip_prefix("kernel/") else { return true };
    // What iSCSI needs lies beside the folders of the large drivers.
    let is_scsi_card = path.strip_prefix("drivers/scsi/").is_some_and(|file| file.contains('/'));
    !is_scsi_card && !FOLDERS_UNLIKELY.iter().any(|folder| path.starts_with(folder))
}

/// Chooses modules and what they depend on; by name.
pub(crate) fn select(
    source: &dyn ModuleSource,
    options: &Options,
) -> Result<BTreeMap<String, Chosen>, BuildError> {
    let tree = Tree::open(source)?;
    let mut chosen = BTreeMap::new();
    let mut queue = VecDeque::new();
    for (name, path) in &tree.paths {
        let purpose = match purpose_of_folder(path) {
            None if tree.is_foreign_network_driver(path)? => {
                Some("network drivers (not the kernel's)")
            }
            other => other,
        };
        if let Some(purpose) = purpose {
            queue.push_back((name.clone(), Why::Purpose(purpose.to_owned())));
        }
    }
    if queue.is_empty() {
        return Err(BuildError::NoNetwork {
            origin: source.origin(),
            kernel: source.kernel().to_owned(),
        });
    }
    queue.extend(roots(&tree, options)?);
    for (name, purpose) in WANTED {
        if tree.paths.contains_key(name) {
            queue.push_back((name.to_owned(), Why::Purpose(purpose.to_owned())));
        }
    }
    while let Some((name, why)) = queue.pop_front() {
        if chosen.contains_key(&name) || tree.built_in.contains(&name) {
            continue;
        }
        let Some(path) = tree.paths.get(&name) else {
            return Err(BuildError::Missing {
                module: name,
                wanted_by: why.who(),
                origin: source.origin(),
                kernel: source.kernel().to_owned(),
            });
        };
        let (content, info) = tree.read(path)?;
        let mut one = Chosen { path: path.clone(), content, info, why };
        if one.info.kernel != source.kernel() {
            return Err(BuildError::WrongKernel {
                module: name,
                origin: source.origin(),
                found: one.info.kernel,
                kernel: source.kernel().to_owned(),
            });
        }
        one.info.soft_pre = tree.resolve(&one.info.soft_pre)?;
        one.info.soft_post = tree.resolve(&one.info.soft_post)?;
        for needed in &one.info.depends {
            queue.push_back((needed.clone(), Why::NeededBy(name.clone())));
        }
        for wanted in one.info.soft_pre.iter().chain(&one.info.soft_post) {
            queue.push_back((wanted.clone(), Why::SoftDependencyOf(name.clone())));
        }
        one.info.depends.retain(|needed| !tree.built_in.contains(needed));
        chosen.insert(name, one);
    }
    Ok(chosen)
}

/// Modules for the root disks that the initrd is to attach.
fn roots(tree: &Tree<'_>, options: &Options) -> Result<Vec<(String, Why)>, BuildError> {
    let mut wanted = Vec::new();
    let both = BTreeSet::from([RootKind::Nbd, RootKind::Aoe]);
    for &kind in options.roots.as_ref().unwrap_or(&both) {
        for &module in kind.modules() {
            let is_there = tree.paths.contains_key(module) || tree.built_in.contains(module);
            // Without a wish, the initrd of a kernel without AoE still boots machines over NBD.
            let is_optional = options.roots.is_none() && kind == RootKind::Aoe;
            match is_there {
                true => {
                    let purpose = format!("{} root disks", kind.title());
                    wanted.push((module.to_owned(), Why::Purpose(purpose)));
                }
                false if is_optional => {}
                false => {
                    return Err(BuildError::NoRootModule {
                        kind,
                        module,
                        origin: tree.source.origin(),
                        kernel: tree.source.kernel().to_owned(),
                    });
                }
            }
        }
    }
    Ok(wanted)
}

/// What a module of the kernel is taken for, by its folder.
fn purpose_of_folder(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("kernel/")?;
    if FOLDERS_LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let folder = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
    folder.map(|&(_, purpose)| purpose)
}
