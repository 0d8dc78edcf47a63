//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

use crate::modinfo::ModInfo;
use crate::{BuildError, ModuleSource, codec};
use initcfg::{glob_matches, module_name};
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
const WANTED: [(&str, &str); 21] = [
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
    ("aoe", "AoE root disks"),
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

/// Without these there is no initrd worth building.
const REQUIRED: [(&str, &str); 1] = [("nbd", "NBD root disks")];

/// Folders below `kernel/` of which nothing is ever wanted, not even as a dependency of a network
/// driver: they are half of a kernel package. A wrong guess costs time, nothing else.
const FOLDERS_UNLIKELY: [&str; 12] = [
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
    "drivers/scsi/",
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
    path.strip_prefix("kernel/")
        .is_none_or(|path| !FOLDERS_UNLIKELY.iter().any(|folder| path.starts_with(folder)))
}

/// Chooses modules and what they depend on; by name.
pub(crate) fn select(source: &dyn ModuleSource) -> Result<BTreeMap<String, Chosen>, BuildError> {
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
    for (name, purpose) in REQUIRED {
        queue.push_back((name.to_owned(), Why::Purpose(purpose.to_owned())));
    }
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

/// What a module of the kernel is taken for, by its folder.
fn purpose_of_folder(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("kernel/")?;
    if FOLDERS_LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let folder = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
    folder.map(|&(_, purpose)| purpose)
}

/// The files of a source, by module name.
struct Tree<'a> {
    source: &'a dyn ModuleSource,
    paths: BTreeMap<String, String>,
    built_in: BTreeSet<String>,
    /// Aliases of the crypto modules: soft dependencies name algorithms, not modules.
    algorithms: Vec<(String, String)>,
}

impl<'a> Tree<'a> {
    fn open(source: &'a dyn ModuleSource) -> Result<Self, BuildError> {
        let files = source.list().map_err(|error| read_error(source, "", error))?;
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        for path in &files {
            let Some(name) = name_of_file(path) else { continue };
            let known = paths.entry(name).or_insert_with(|| path.clone());
            if rank(path) < rank(known) {
                known.clone_from(path);
            }
        }
        let mut built_in = BTreeSet::new();
        if files.iter().any(|path| path == "modules.builtin") {
            let list = source
                .read("modules.builtin")
                .map_err(|error| read_error(source, "modules.builtin", error))?;
            built_in.extend(String::from_utf8_lossy(&list).lines().filter_map(name_of_file));
        }
        let mut tree = Self { source, paths, built_in, algorithms: Vec::new() };
        tree.algorithms = tree.read_algorithms()?;
        Ok(tree)
    }

    fn read_algorithms(&self) -> Result<Vec<(String, String)>, BuildError> {
        let mut algorithms = Vec::new();
        for (name, path) in &self.paths {
            let folder = path.strip_prefix("kernel/").unwrap_or_default();
            let is_crypto = folder.starts_with("crypto/")
                || folder.starts_with("arch/") && folder.contains("/crypto/");
            if is_crypto {
                let aliases = self.read(path)?.1.aliases;
                algorithms.extend(aliases.into_iter().map(|alias| (alias, name.clone())));
            }
        }
        Ok(algorithms)
    }

    /// A decoded module and what it says about itself.
    fn read(&self, path: &str) -> Result<(Vec<u8>, ModInfo), BuildError> {
        let content = self
            .source
            .read(path)
            .and_then(codec::decode)
            .map_err(|error| read_error(self.source, path, error))?;
        let info = ModInfo::parse(&content).map_err(|source| BuildError::Module {
            path: path.to_owned(),
            origin: self.source.origin(),
            source,
        })?;
        Ok((content, info))
    }

    /// Names of the modules that a soft dependency means; what the kernel does not have is left out.
    fn resolve(&self, wanted: &[String]) -> Result<Vec<String>, BuildError> {
        let mut names = BTreeSet::new();
        for word in wanted {
            let name = module_name(word);
            if self.paths.contains_key(&name) {
                names.insert(name);
                continue;
            }
            let matching = self.algorithms.iter().filter(|(alias, _)| glob_matches(alias, word));
            names.extend(matching.map(|(_, name)| name.clone()));
        }
        Ok(names.into_iter().collect())
    }

    /// `true` for an out-of-tree driver of a network card (DKMS puts them into `updates/`): it has no
    /// folder that tells what it is for, but only such drivers allocate an Ethernet device.
    fn is_foreign_network_driver(&self, path: &str) -> Result<bool, BuildError> {
        if path.starts_with("kernel/") {
            return Ok(false);
        }
        let (content, _) = self.read(path)?;
        let symbol = b"alloc_etherdev_mqs";
        Ok(content.windows(symbol.len()).any(|window| window == symbol))
    }
}

/// Which of two modules with the same name counts: the smaller one, in depmod's order.
fn rank(path: &str) -> u8 {
    match path.split('/').next() {
        Some("updates") => 0,
        Some("extra") => 1,
        Some("kernel") => 3,
        _ => 2,
    }
}

/// `e1000e` for `kernel/…/e1000e.ko.xz`; `None` if it is no module.
fn name_of_file(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))?;
    Some(module_name(stem))
}

fn read_error(source: &dyn ModuleSource, path: &str, error: std::io::Error) -> BuildError {
    let origin = source.origin();
    let what = if path.is_empty() { origin } else { format!("{path} in {origin}") };
    BuildError::Read { what, source: error }
}
