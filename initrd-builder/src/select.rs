//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

use crate::modinfo::ModInfo;
use crate::{BuildError, ModuleSource, codec};
use initcfg::{glob_matches, module_name};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Folders below `kernel/` from which everything is taken.
const FOLDERS: [&str; 8] = [
    "drivers/net/ethernet/",
    "drivers/net/phy/",
    "drivers/net/mdio/",
    "drivers/net/pcs/",
    "drivers/net/usb/",
    "drivers/net/hyperv/",
    "drivers/usb/host/",
    "drivers/pci/controller/",
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

/// One selected module.
pub(crate) struct Chosen {
    /// Path in the source.
    pub(crate) path: String,
    /// Decoded file.
    pub(crate) content: Vec<u8>,
    /// What it says about itself, with soft dependencies resolved to module names.
    pub(crate) info: ModInfo,
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
        let is_wired_network = is_selected_folder(path);
        if is_wired_network || tree.is_foreign_network_driver(path)? {
            queue.push_back((name.clone(), "the set of network drivers".to_owned()));
        }
    }
    if queue.is_empty() {
        return Err(BuildError::NoNetwork {
            origin: source.origin(),
            kernel: source.kernel().to_owned(),
        });
    }
    for (name, purpose) in REQUIRED {
        queue.push_back((name.to_owned(), purpose.to_owned()));
    }
    for (name, purpose) in WANTED {
        if tree.paths.contains_key(name) {
            queue.push_back((name.to_owned(), purpose.to_owned()));
        }
    }
    while let Some((name, wanted_by)) = queue.pop_front() {
        if chosen.contains_key(&name) || tree.built_in.contains(&name) {
            continue;
        }
        let Some(path) = tree.paths.get(&name) else {
            return Err(BuildError::Missing {
                module: name,
                wanted_by,
                origin: source.origin(),
                kernel: source.kernel().to_owned(),
            });
        };
        let mut one = tree.read(path)?;
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
        let info = &one.info;
        for needed in info.depends.iter().chain(&info.soft_pre).chain(&info.soft_post) {
            queue.push_back((needed.clone(), name.clone()));
        }
        one.info.depends.retain(|needed| !tree.built_in.contains(needed));
        chosen.insert(name, one);
    }
    Ok(chosen)
}

fn is_selected_folder(path: &str) -> bool {
    path.strip_prefix("kernel/").is_some_and(|path| {
        FOLDERS.iter().any(|folder| path.starts_with(folder))
            && !FOLDERS_LEFT_OUT.iter().any(|folder| path.starts_with(folder))
    })
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
                let aliases = self.read(path)?.info.aliases;
                algorithms.extend(aliases.into_iter().map(|alias| (alias, name.clone())));
            }
        }
        Ok(algorithms)
    }

    fn read(&self, path: &str) -> Result<Chosen, BuildError> {
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
        Ok(Chosen { path: path.to_owned(), content, info })
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
        let content = self.read(path)?.content;
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
