//! Which modules go into the initrd: by folder, so that it holds for kernels to come.

mod left_out;
mod lists;
mod tree;

use crate::modinfo::ModInfo;
use crate::program::Processor;
use crate::{BuildError, Fit, ModuleSource, Options};
use initcfg::{FileSystem, RootKind, glob_matches};
use left_out::Problem;
use lists::{
    CIPHERS, DEVICE_MAPPER, DISK_DRIVERS, DISK_FOLDERS, DISK_PURPOSE, DRIVERS, Fitting, PHYS, TLS,
    WANTED, WANTED_IN_GENERIC, modules_of, purpose_of_folder,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use tree::{Loaded, Tree};

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

/// A module that is asked for.
struct Wanted {
    name: String,
    purpose: String,
    /// Without it there is no initrd.
    is_needed: bool,
}

/// Chooses modules and what they depend on, for an init that runs on this kind of processor.
///
/// What can't be used is left out with a warning, unless all machines need it.
pub(crate) fn select(
    source: &dyn ModuleSource,
    processor: Processor,
    options: &Options,
) -> Result<Selection, BuildError> {
    let tree = Tree::open(source, processor)?;
    let mut warnings = Vec::new();
    let all_drivers = drivers(&tree);
    let mut wanted = Vec::new();
    let network = match &options.fit {
        None => {
            let of_all = all_drivers.iter().map(|(name, purpose, _)| optional(name, purpose));
            wanted.extend(of_all);
            let of_cards = all_drivers.iter().filter(|(_, _, fitting)| fitting.is_network());
            let names = of_cards.map(|(name, _, _)| name.clone()).collect();
            Network { drivers: names, is_built_in: tree.has_network_inside() }
        }
        Some(fit) => fitting_drivers(&tree, &all_drivers, fit, &mut wanted, &mut warnings),
    };
    let roots = roots(&tree, options, &mut warnings)?;
    let n_before = wanted.len();
    wanted.extend(roots);
    let of_roots = n_before..wanted.len();
    for file_system in FileSystem::ALL {
        let name = file_system.word();
        let is_chosen = options.file_systems.as_ref().is_none_or(|set| set.contains(&file_system));
        if is_chosen && tree.paths.contains_key(name) {
            let is_needed =
                options.file_systems.is_some() || options.root_file_system == Some(file_system);
            wanted.push(Wanted { is_needed, ..optional(name, "root file systems") });
        }
    }
    if options.has_local_disks {
        let is_driver = |(name, paths): &(&String, &Vec<String>)| {
            let in_folder = |path: &String| {
                let path = path.strip_prefix("kernel/");
                path.is_some_and(|path| DISK_FOLDERS.iter().any(|folder| path.starts_with(folder)))
            };
            DISK_DRIVERS.contains(&name.as_str()) || paths.iter().any(in_folder)
        };
        let drivers = tree.paths.iter().filter(is_driver);
        wanted.extend(drivers.map(|(name, _)| optional(name, DISK_PURPOSE)));
    }
    let (name, purpose) = DEVICE_MAPPER;
    let has_dm = tree.paths.contains_key(name);
    let is_needed = options.is_on_lvm || options.has_local_disks;
    if is_needed && !tree.built_in.contains(name) || has_dm && may_be_on_lvm(options) {
        wanted.push(Wanted { is_needed, ..optional(name, purpose) });
    }
    let in_generic = options.fit.is_none().then_some(WANTED_IN_GENERIC);
    for (name, purpose) in WANTED.into_iter().chain(in_generic) {
        if tree.paths.contains_key(name) {
            wanted.push(optional(name, purpose));
        }
    }
    if options.nbd_ca.is_some() {
        let (name, purpose) = TLS;
        if !tree.paths.contains_key(name) && !tree.built_in.contains(name) {
            let kernel = source.kernel();
            warnings.push(format!("kernel {kernel} has no module {name}: no {purpose}"));
        }
        let there = [name].into_iter().chain(CIPHERS).filter(|name| tree.paths.contains_key(*name));
        wanted.extend(there.map(|name| optional(name, purpose)));
    }
    let modules = with_dependencies(&tree, &wanted)?;
    if !network.is_built_in && !network.drivers.iter().any(|name| modules.contains_key(name)) {
        let (origin, kernel) = (source.origin(), source.kernel().to_owned());
        let left_out = tree.left_out().for_error();
        return Err(match options.fit {
            Some(_) => BuildError::FitNoNetwork { origin, kernel, left_out },
            None => BuildError::NoNetwork { origin, kernel, left_out },
        });
    }
    if let Some(file_system) = options.root_file_system {
        let name = file_system.word();
        // Where no list tells what is inside, it may be there.
        let is_missing = !modules.contains_key(name) && !tree.built_in.contains(name);
        if is_missing && tree.knows_what_is_inside() {
            let (origin, kernel) = (source.origin(), source.kernel().to_owned());
            let left_out = tree.left_out().for_error();
            return Err(BuildError::NoRootFileSystem { origin, kernel, file_system, left_out });
        }
    }
    for Wanted { name, purpose, .. } in &wanted[of_roots] {
        if !modules.contains_key(name) && !tree.built_in.contains(name) {
            let kernel = source.kernel();
            warnings.push(format!("kernel {kernel} has no usable module {name}: no {purpose}"));
        }
    }
    let foreign = modules.values().filter(|chosen| chosen.info.kernel != source.kernel());
    warnings.extend(foreign.map(|Chosen { path, info, .. }| {
        format!(
            "{path} was built for kernel {}: it works if {} has the same symbols",
            info.kernel,
            source.kernel()
        )
    }));
    warnings.extend(tree.left_out().sentences());
    Ok(Selection { modules, built_in: tree.built_in, warnings })
}

fn optional(name: impl Into<String>, purpose: &str) -> Wanted {
    Wanted { name: name.into(), purpose: purpose.to_owned(), is_needed: false }
}

/// All drivers that an initrd may need to reach its root disk: name, purpose, and when it is needed.
fn drivers(tree: &Tree<'_>) -> Vec<(String, &'static str, Fitting)> {
    let mut drivers = Vec::new();
    for (name, paths) in &tree.paths {
        if let Some((purpose, fitting)) = paths.iter().find_map(|path| purpose_of_folder(path)) {
            drivers.push((name.clone(), purpose, fitting));
        } else if tree.is_foreign_network_driver(name) {
            drivers.push((name.clone(), "network drivers (not the kernel's)", Fitting::Network));
        }
    }
    if drivers.is_empty() {
        return drivers;
    }
    for (name, purpose, fitting) in DRIVERS {
        if tree.paths.contains_key(name) {
            drivers.push((name.to_owned(), purpose, fitting));
        }
    }
    drivers
}

/// How the machines of an initrd reach the network.
struct Network {
    /// One of these must be in the initrd.
    drivers: BTreeSet<String>,
    /// The kernel has a driver inside.
    is_built_in: bool,
}

/// Asks for the drivers that this hardware needs.
fn fitting_drivers(
    tree: &Tree<'_>,
    drivers: &[(String, &'static str, Fitting)],
    fit: &Fit,
    wanted: &mut Vec<Wanted>,
    warnings: &mut Vec<String>,
) -> Network {
    let mut hosts = Vec::new();
    let mut network = Network { drivers: BTreeSet::new(), is_built_in: false };
    let (mut has_usb_network, mut patterns) = (false, Vec::new());
    for (name, purpose, fitting) in drivers {
        if matches!(fitting, Fitting::Phy | Fitting::Library) {
            continue;
        }
        // What is wrong with it is noted.
        let Ok(Loaded { info, .. }) = tree.load(name) else { continue };
        let Some(modalias) = fit.matching(&info.aliases) else { continue };
        let found = optional(name, &format!("{purpose}: {modalias}"));
        if *fitting == Fitting::UsbHost {
            hosts.push(found);
            continue;
        }
        wanted.push(found);
        if matches!(fitting, Fitting::Network | Fitting::NetworkUsb) {
            network.drivers.insert(name.clone());
            has_usb_network |= *fitting == Fitting::NetworkUsb;
            wanted.extend(phys(tree, drivers, name, &info));
        }
        patterns.extend(info.aliases);
    }
    if has_usb_network {
        wanted.extend(hosts);
    }
    let is_one_for = |patterns: &[String], card: &str| {
        patterns.iter().any(|pattern| glob_matches(pattern, card))
    };
    // A virtual card may have two names: one of its bus, one of its own.
    let left: Vec<&str> = fit.network_cards().filter(|card| !is_one_for(&patterns, card)).collect();
    let built_in = if left.is_empty() { Vec::new() } else { tree.built_in_aliases() };
    for card in left {
        match is_one_for(&built_in, card) {
            true => network.is_built_in = true,
            false => warnings.push(format!(
                "kernel {} has no driver for the network card {card}: a machine that has no other \
                 can't boot",
                tree.source.kernel()
            )),
        }
    }
    network
}

/// PHY drivers for a network driver: the one that it names, otherwise all, since only the card knows.
fn phys(
    tree: &Tree<'_>,
    drivers: &[(String, &'static str, Fitting)],
    name: &str,
    info: &ModInfo,
) -> Vec<Wanted> {
    let needs_one = info.depends.iter().any(|needed| needed == "libphy" || needed == "phylink");
    let is_phy =
        |name: &String| drivers.iter().any(|driver| driver.0 == *name && driver.2 == Fitting::Phy);
    if !needs_one || tree.resolve(&info.soft_pre).iter().any(is_phy) {
        return Vec::new();
    }
    let only = PHYS.iter().find(|(driver, _)| *driver == name).map(|&(_, phy)| phy);
    let phys = drivers.iter().filter(|driver| driver.2 == Fitting::Phy);
    let phys = phys.filter(|driver| only.is_none_or(|only| driver.0 == only));
    phys.map(|driver| optional(&driver.0, &format!("PHYs of {name}"))).collect()
}

/// Adds what the wanted modules depend on, and takes away what depends on something that can't be used.
fn with_dependencies(
    tree: &Tree<'_>,
    wanted: &[Wanted],
) -> Result<BTreeMap<String, Chosen>, BuildError> {
    let (mut usable, mut unusable) = load_all(tree, wanted);
    leave_out_users(tree, &mut usable, &mut unusable);
    if let Some(one) = wanted.iter().find(|one| one.is_needed && unusable.contains_key(&one.name)) {
        return Err(first_problem(tree, unusable, one));
    }
    let mut queue: VecDeque<(String, Why)> =
        wanted.iter().map(|one| (one.name.clone(), Why::Purpose(one.purpose.clone()))).collect();
    let mut chosen = BTreeMap::new();
    while let Some((name, why)) = queue.pop_front() {
        let Some(Loaded { path, content, mut info }) = usable.remove(&name) else { continue };
        for needed in &info.depends {
            queue.push_back((needed.clone(), Why::NeededBy(name.clone())));
        }
        for wanted in info.soft_pre.iter().chain(&info.soft_post) {
            queue.push_back((wanted.clone(), Why::SoftDependencyOf(name.clone())));
        }
        info.depends.retain(|needed| !tree.built_in.contains(needed));
        chosen.insert(name, Chosen { path, content, info, why });
    }
    Ok(chosen)
}

type Usable = BTreeMap<String, Loaded>;
type Unusable = BTreeMap<String, Problem>;

/// Reads the wanted modules and all that they name. Soft dependencies are resolved to module names.
fn load_all(tree: &Tree<'_>, wanted: &[Wanted]) -> (Usable, Unusable) {
    let (mut usable, mut unusable) = (Usable::new(), Unusable::new());
    let mut queue: VecDeque<String> = wanted.iter().map(|one| one.name.clone()).collect();
    while let Some(name) = queue.pop_front() {
        if tree.built_in.contains(&name)
            || usable.contains_key(&name)
            || unusable.contains_key(&name)
        {
            continue;
        }
        match tree.load(&name) {
            Ok(mut loaded) => {
                let info = &mut loaded.info;
                info.soft_pre = tree.resolve(&info.soft_pre);
                info.soft_post = tree.resolve(&info.soft_post);
                queue.extend(
                    [&info.depends, &info.soft_pre, &info.soft_post].into_iter().flatten().cloned(),
                );
                usable.insert(name, loaded);
            }
            Err(problem) => drop(unusable.insert(name, problem)),
        }
    }
    (usable, unusable)
}

/// Moves what needs something unusable to the unusable.
fn leave_out_users(tree: &Tree<'_>, usable: &mut Usable, unusable: &mut Unusable) {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, loaded) in &*usable {
        for needed in &loaded.info.depends {
            users.entry(needed.clone()).or_default().push(name.clone());
        }
    }
    let mut queue: VecDeque<String> = unusable.keys().cloned().collect();
    while let Some(needed) = queue.pop_front() {
        for user in users.get(&needed).into_iter().flatten() {
            if usable.remove(user).is_none() {
                continue;
            }
            let problem = Problem::Needs(needed.clone());
            tree.leave_out(user, &problem);
            unusable.insert(user.clone(), problem);
            queue.push_back(user.clone());
        }
        if let Some(problem @ Problem::Missing) = unusable.get(&needed) {
            tree.leave_out(&needed, problem);
        }
    }
}

/// What it comes down to that a module can't be used.
fn first_problem(tree: &Tree<'_>, mut unusable: Unusable, wanted: &Wanted) -> BuildError {
    let (mut module, mut wanted_by) = (wanted.name.clone(), wanted.purpose.clone());
    loop {
        match unusable.remove(&module) {
            Some(Problem::Needs(needed)) => {
                wanted_by = std::mem::replace(&mut module, needed);
            }
            problem => {
                let problem = problem.unwrap_or(Problem::Missing);
                return problem.into_error(tree.source, module, wanted_by);
            }
        }
    }
}

/// Whether a root may be on a disk of another server, of which nobody knows here what is on it.
fn may_be_on_lvm(options: &Options) -> bool {
    let mut kinds = options.roots.iter().flatten().chain(&options.more_roots);
    kinds.any(|kind| kind.is_foreign() && *kind != RootKind::Nfs)
}

/// Asks for the modules for the root disks that the initrd is to attach.
fn roots(
    tree: &Tree<'_>,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Vec<Wanted>, BuildError> {
    let mut wanted = Vec::new();
    let both = BTreeSet::from([RootKind::Nbd, RootKind::Aoe]);
    let usual = both.union(&options.more_roots).copied().collect();
    for &kind in options.roots.as_ref().unwrap_or(&usual) {
        // Without a wish, the initrd of a kernel without AoE still boots machines over NBD.
        let is_needed = options.roots.is_some() || kind == RootKind::Nbd;
        for &module in modules_of(kind) {
            let is_there = tree.paths.contains_key(module) || tree.built_in.contains(module);
            match is_there {
                true => {
                    let purpose = format!("{} root disks", kind.title());
                    wanted.push(Wanted { is_needed, ..optional(module, &purpose) });
                }
                false if is_needed => {
                    return Err(BuildError::NoRootModule {
                        kind,
                        module,
                        origin: tree.source.origin(),
                        kernel: tree.source.kernel().to_owned(),
                    });
                }
                false => warnings.push(format!(
                    "kernel {} has no module {module}: no {} root disks",
                    tree.source.kernel(),
                    kind.title()
                )),
            }
        }
    }
    Ok(wanted)
}
