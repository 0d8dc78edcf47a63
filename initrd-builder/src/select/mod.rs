//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

mod lists;
mod tree;

use crate::modinfo::ModInfo;
use crate::{BuildError, Fit, ModuleSource, Options};
use initcfg::{FileSystem, RootKind, glob_matches};
use lists::{
    CIPHERS, DRIVERS, Fitting, PHYS, TLS, WANTED, WANTED_IN_GENERIC, modules_of, purpose_of_folder,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use tree::Tree;

pub(crate) use lists::is_likely_needed;

/// Why a module is in the initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// For its own sake; the text is for people, like `network drivers`.
    Purpose(String),
    /// The named module can't work without it.
    NeededBy(String),
    /// The named module works better with it.
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
    /// What the module says about itself, with soft dependencies resolved to module names.
    pub(crate) info: ModInfo,
    /// The first reason that was found; the order is always the same.
    pub(crate) why: Why,
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

/// The drivers that this hardware needs.
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
