//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

mod tree;

use crate::modinfo::ModInfo;
use crate::{BuildError, Fit, ModuleSource, Options};
use initcfg::{FileSystem, RootKind, glob_matches};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use tree::Tree;

/// What an initrd for known hardware takes from a folder; one for all machines takes everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fitting {
    /// Drivers of network cards that match.
    Network,
    /// Drivers of network cards on USB that match; only then hosts are of use.
    NetworkUsb,
    /// USB hosts that match, if there is a network card on USB.
    UsbHost,
    /// Drivers that match.
    Bus,
    /// PHYs, if a driver needs them: they have no hardware names before that driver is loaded.
    Phy,
    /// Nothing but dependencies.
    Library,
}

/// Folders below `kernel/` that are taken, and what for.
const FOLDERS: [(&str, &str, Fitting); 8] = [
    ("drivers/net/ethernet/", "network drivers", Fitting::Network),
    ("drivers/net/phy/", "network drivers (PHYs)", Fitting::Phy),
    ("drivers/net/mdio/", "network drivers (PHYs)", Fitting::Library),
    ("drivers/net/pcs/", "network drivers (PHYs)", Fitting::Library),
    ("drivers/net/usb/", "network drivers (USB)", Fitting::NetworkUsb),
    ("drivers/net/hyperv/", "network drivers (Hyper-V)", Fitting::Network),
    ("drivers/usb/host/", "USB hosts", Fitting::UsbHost),
    ("drivers/pci/controller/", "PCI hosts", Fitting::Bus),
];

/// Modules that drive hardware and are in none of these folders.
const DRIVERS: [(&str, &str, Fitting); 9] = [
    ("virtio_net", "network cards of virtual machines", Fitting::Network),
    ("virtio_pci", "virtual machines", Fitting::Bus),
    ("virtio_mmio", "virtual machines", Fitting::Bus),
    ("vmxnet3", "network cards of VMware", Fitting::Network),
    ("xen_netfront", "network cards of Xen", Fitting::Network),
    ("hv_vmbus", "Hyper-V", Fitting::Bus),
    ("xen_pcifront", "Xen", Fitting::Bus),
    ("phy_generic", "USB hosts", Fitting::Library),
    ("usbcore", "network cards on USB", Fitting::Library),
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

/// Modules that are always taken when the kernel has them, and what for.
const WANTED: [(&str, &str); 5] = [
    ("af_packet", "packet sockets"),
    ("overlay", "read-only root file systems"),
    ("crc32c_generic", "checksums of file systems"),
    ("crc32c_intel", "checksums of file systems"),
    ("efi_pstore", "kernel messages after a crash"),
];

/// The same, for initrds that are not for known hardware: few networks have it.
const WANTED_IN_GENERIC: (&str, &str) = ("8021q", "VLANs");

/// Encryption by the kernel; kernels differ in which of the ciphers are modules.
const TLS: (&str, &str) = ("tls", "NBD over TLS");
const CIPHERS: [&str; 5] = ["aesni_intel", "ghash_clmulni_intel", "ghash_generic", "ctr", "gcm"];

/// Drivers that need one PHY driver and don't say so: tg3 asks for it with the BCM5785 only.
const PHYS: [(&str, &str); 1] = [("tg3", "broadcom")];

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
    // Fedora keeps the kernel itself and its symbols beside the modules.
    if !path.contains('/') && !path.starts_with("modules.builtin") {
        return false;
    }
    let Some(path) = path.strip_prefix("kernel/") else { return true };
    // What iSCSI needs lies beside the folders of the large drivers.
    let is_scsi_card = path.strip_prefix("drivers/scsi/").is_some_and(|file| file.contains('/'));
    !is_scsi_card && !FOLDERS_UNLIKELY.iter().any(|folder| path.starts_with(folder))
}

/// What was chosen.
pub(crate) struct Selection {
    /// The modules by name.
    pub(crate) modules: BTreeMap<String, Chosen>,
    /// Names of the modules that the kernel has inside.
    pub(crate) built_in: BTreeSet<String>,
    /// For the administrator.
    pub(crate) warnings: Vec<String>,
}

/// Chooses modules and what they depend on.
pub(crate) fn select(
    source: &dyn ModuleSource,
    options: &Options,
) -> Result<Selection, BuildError> {
    let tree = Tree::open(source)?;
    let mut warnings = Vec::new();
    let drivers = drivers(&tree)?;
    let drivers = match &options.fit {
        None => drivers.into_iter().map(|(name, purpose, _)| wanted(name, purpose)).collect(),
        Some(fit) => fitting_drivers(&tree, &drivers, fit, &mut warnings)?,
    };
    let mut queue = VecDeque::from(drivers);
    queue.extend(roots(&tree, options)?);
    for file_system in FileSystem::ALL {
        let name = file_system.word();
        let is_chosen = options.file_systems.as_ref().is_none_or(|set| set.contains(&file_system));
        if is_chosen && tree.paths.contains_key(name) {
            queue.push_back(wanted(name, "root file systems"));
        }
    }
    let in_generic = options.fit.is_none().then_some(WANTED_IN_GENERIC);
    for (name, purpose) in WANTED.into_iter().chain(in_generic) {
        if tree.paths.contains_key(name) {
            queue.push_back(wanted(name, purpose));
        }
    }
    if options.nbd_ca.is_some() {
        let (name, purpose) = TLS;
        if !tree.paths.contains_key(name) && !tree.built_in.contains(name) {
            let kernel = source.kernel();
            warnings.push(format!("kernel {kernel} has no module {name}: no {purpose}"));
        }
        let there = [name].into_iter().chain(CIPHERS).filter(|name| tree.paths.contains_key(*name));
        queue.extend(there.map(|name| wanted(name, purpose)));
    }
    let modules = with_dependencies(&tree, queue)?;
    Ok(Selection { modules, built_in: tree.built_in, warnings })
}

fn wanted(name: impl Into<String>, purpose: &str) -> (String, Why) {
    (name.into(), Why::Purpose(purpose.to_owned()))
}

/// All drivers that an initrd may need to reach its root disk: name, purpose, and when it is needed.
fn drivers(tree: &Tree<'_>) -> Result<Vec<(String, &'static str, Fitting)>, BuildError> {
    let mut drivers = Vec::new();
    for (name, path) in &tree.paths {
        if let Some((purpose, fitting)) = purpose_of_folder(path) {
            drivers.push((name.clone(), purpose, fitting));
        } else if tree.is_foreign_network_driver(path)? {
            drivers.push((name.clone(), "network drivers (not the kernel's)", Fitting::Network));
        }
    }
    if drivers.is_empty() {
        return Err(BuildError::NoNetwork {
            origin: tree.source.origin(),
            kernel: tree.source.kernel().to_owned(),
        });
    }
    for (name, purpose, fitting) in DRIVERS {
        if tree.paths.contains_key(name) {
            drivers.push((name.to_owned(), purpose, fitting));
        }
    }
    Ok(drivers)
}

/// Those of the drivers that the hardware needs.
fn fitting_drivers(
    tree: &Tree<'_>,
    drivers: &[(String, &'static str, Fitting)],
    fit: &Fit,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Why)>, BuildError> {
    let mut chosen = Vec::new();
    let mut hosts = Vec::new();
    let (mut has_network, mut has_usb_network, mut patterns) = (false, false, Vec::new());
    for (name, purpose, fitting) in drivers {
        if matches!(fitting, Fitting::Phy | Fitting::Library) {
            continue;
        }
        let (_, info) = tree.read(&tree.paths[name])?;
        let Some(modalias) = fit.matching(&info.aliases) else { continue };
        let found = wanted(name.as_str(), &format!("{purpose}: {modalias}"));
        if *fitting == Fitting::UsbHost {
            hosts.push(found);
            continue;
        }
        chosen.push(found);
        if matches!(fitting, Fitting::Network | Fitting::NetworkUsb) {
            has_network = true;
            has_usb_network |= *fitting == Fitting::NetworkUsb;
            chosen.extend(phys(tree, drivers, name, &info)?);
        }
        patterns.extend(info.aliases);
    }
    if has_usb_network {
        chosen.extend(hosts);
    }
    let is_one_for = |patterns: &[String], card: &str| {
        patterns.iter().any(|pattern| glob_matches(pattern, card))
    };
    // A virtual card may have two names: one of its bus, one of its own.
    let left: Vec<&str> = fit.network_cards().filter(|card| !is_one_for(&patterns, card)).collect();
    let built_in = if left.is_empty() { Vec::new() } else { tree.built_in_aliases()? };
    for card in left {
        match is_one_for(&built_in, card) {
            true => has_network = true,
            false => warnings.push(format!(
                "kernel {} has no driver for the network card {card}: a machine that has no other \
                 can't boot",
                tree.source.kernel()
            )),
        }
    }
    match has_network {
        true => Ok(chosen),
        false => Err(BuildError::FitNoNetwork {
            origin: tree.source.origin(),
            kernel: tree.source.kernel().to_owned(),
        }),
    }
}

/// PHY drivers for a network driver: the one that it names, otherwise all, since only the card knows.
fn phys(
    tree: &Tree<'_>,
    drivers: &[(String, &'static str, Fitting)],
    name: &str,
    info: &ModInfo,
) -> Result<Vec<(String, Why)>, BuildError> {
    let needs_one = info.depends.iter().any(|needed| needed == "libphy" || needed == "phylink");
    let is_phy =
        |name: &String| drivers.iter().any(|driver| driver.0 == *name && driver.2 == Fitting::Phy);
    if !needs_one || tree.resolve(&info.soft_pre)?.iter().any(is_phy) {
        return Ok(Vec::new());
    }
    let only = PHYS.iter().find(|(driver, _)| *driver == name).map(|&(_, phy)| phy);
    let phys = drivers.iter().filter(|driver| driver.2 == Fitting::Phy);
    let phys = phys.filter(|driver| only.is_none_or(|only| driver.0 == only));
    Ok(phys.map(|driver| wanted(driver.0.as_str(), &format!("PHYs of {name}"))).collect())
}

/// Adds what the wanted modules depend on.
fn with_dependencies(
    tree: &Tree<'_>,
    mut queue: VecDeque<(String, Why)>,
) -> Result<BTreeMap<String, Chosen>, BuildError> {
    let source = tree.source;
    let mut chosen = BTreeMap::new();
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

/// The modules that a kind of root is attached with; others come as their dependencies.
const fn modules_of(kind: RootKind) -> &'static [&'static str] {
    match kind {
        RootKind::Nbd => &["nbd"],
        RootKind::Aoe => &["aoe"],
        RootKind::Nfs => &["nfs", "nfsv3", "nfsv4"],
        RootKind::Iscsi => &["iscsi_tcp", "sd_mod"],
    }
}

/// Modules for the root disks that the initrd is to attach.
fn roots(tree: &Tree<'_>, options: &Options) -> Result<Vec<(String, Why)>, BuildError> {
    let mut wanted = Vec::new();
    let both = BTreeSet::from([RootKind::Nbd, RootKind::Aoe]);
    let usual = both.union(&options.more_roots).copied().collect();
    for &kind in options.roots.as_ref().unwrap_or(&usual) {
        for &module in modules_of(kind) {
            let is_there = tree.paths.contains_key(module) || tree.built_in.contains(module);
            // Without a wish, the initrd of a kernel without AoE still boots machines over NBD.
            let is_optional = options.roots.is_none() && kind != RootKind::Nbd;
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
fn purpose_of_folder(path: &str) -> Option<(&'static str, Fitting)> {
    let path = path.strip_prefix("kernel/")?;
    if FOLDERS_LEFT_OUT.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let folder = FOLDERS.iter().find(|(folder, ..)| path.starts_with(folder));
    folder.map(|&(_, purpose, fitting)| (purpose, fitting))
}
