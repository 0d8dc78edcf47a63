//! The modules of a source, by name.

use super::left_out::{LeftOut, Problem};
use super::lists::{DRIVERS, purpose_of_folder};
use crate::modinfo::ModInfo;
use crate::program::Processor;
use crate::{BuildError, Listing, ModuleSource, codec};
use initcfg::{glob_matches, module_name};
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// The files of a source, by module name.
pub(super) struct Tree<'a> {
    pub(super) source: &'a dyn ModuleSource,
    /// What the initrd's init runs on.
    processor: Processor,
    /// All that it has.
    files: Vec<String>,
    /// Paths of each module in the source, in the order in which they count.
    pub(super) paths: BTreeMap<String, Vec<String>>,
    /// Modules that the kernel has inside.
    pub(super) built_in: BTreeSet<String>,
    /// Aliases of the crypto modules: soft dependencies name algorithms, not modules.
    algorithms: Vec<(String, String)>,
    left_out: RefCell<LeftOut>,
}

/// A module that can be used.
pub(super) struct Loaded {
    pub(super) path: String,
    /// Decoded file.
    pub(super) content: Vec<u8>,
    pub(super) info: ModInfo,
}

impl<'a> Tree<'a> {
    /// Lists the source.
    pub(super) fn open(
        source: &'a dyn ModuleSource,
        processor: Processor,
    ) -> Result<Self, BuildError> {
        let read_error = |what, source| BuildError::Read { what, source };
        let listed = source.list().map_err(|error| read_error(source.origin(), error))?;
        let Listing { files, unreadable } = listed;
        let mut left_out = LeftOut::default();
        for (folder, why) in unreadable {
            left_out.note_reason(&format!("{folder}/"), format!("can't be read: {why}"));
        }
        let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in &files {
            if let Some(name) = name_of_file(path) {
                paths.entry(name).or_default().push(path.clone());
            }
        }
        for paths in paths.values_mut() {
            paths.sort_by_key(|path| rank(path));
        }
        let left_out = RefCell::new(left_out);
        let (built_in, algorithms) = (BTreeSet::new(), Vec::new());
        let mut tree = Self { source, processor, files, paths, built_in, algorithms, left_out };
        tree.built_in = tree.read_built_in();
        tree.algorithms = tree.read_algorithms();
        Ok(tree)
    }

    /// Names of the modules that the kernel has inside. If the list was lost, as far as they say anything of
    /// themselves.
    fn read_built_in(&self) -> BTreeSet<String> {
        match self.read_list("modules.builtin") {
            Some(list) => list.lines().filter_map(name_of_file).collect(),
            None => {
                let list = self.read_list("modules.builtin.modinfo").unwrap_or_default();
                let fields = list.split('\0').filter_map(|field| field.split_once('='));
                fields
                    .filter_map(|(field, _)| field.split_once('.'))
                    .map(|(name, _)| module_name(name))
                    .collect()
            }
        }
    }

    /// Whether there is a list of the modules that the kernel has inside.
    pub(super) fn knows_what_is_inside(&self) -> bool {
        self.files.iter().any(|path| path == "modules.builtin")
    }

    fn read_algorithms(&self) -> Vec<(String, String)> {
        let mut algorithms = Vec::new();
        for (name, paths) in &self.paths {
            let is_crypto = paths.iter().any(|path| {
                let folder = path.strip_prefix("kernel/").unwrap_or_default();
                folder.starts_with("crypto/")
                    || folder.starts_with("arch/") && folder.contains("/crypto/")
            });
            if is_crypto && let Ok(loaded) = self.load(name) {
                algorithms
                    .extend(loaded.info.aliases.into_iter().map(|alias| (alias, name.clone())));
            }
        }
        algorithms
    }

    /// Patterns of the hardware that drivers inside of the kernel are for.
    pub(super) fn built_in_aliases(&self) -> Vec<String> {
        // `NAME.alias=PATTERN`, each with a NUL behind; kernels before 5.2 have no such file.
        let list = self.read_list("modules.builtin.modinfo").unwrap_or_default();
        let fields = list.split('\0').filter_map(|field| field.split_once(".alias="));
        fields.map(|(_, pattern)| pattern.to_owned()).collect()
    }

    /// Whether the kernel has a driver of a network card inside, as far as its list tells.
    pub(super) fn has_network_inside(&self) -> bool {
        let list = self.read_list("modules.builtin").unwrap_or_default();
        list.lines().any(|path| {
            let in_folder = purpose_of_folder(path).is_some_and(|(_, it)| it.is_network());
            let is_named = |name: &str| {
                DRIVERS.iter().any(|(driver, _, fitting)| *driver == name && fitting.is_network())
            };
            in_folder || name_of_file(path).is_some_and(|name| is_named(&name))
        })
    }

    /// Content of a list; `None`: the kernel has none, or it can't be read.
    fn read_list(&self, name: &str) -> Option<String> {
        if !self.files.iter().any(|path| path == name) {
            return None;
        }
        match self.source.read(name) {
            Ok(list) => Some(String::from_utf8_lossy(&list).into_owned()),
            Err(source) => {
                let path = name.to_owned();
                self.leave_out(name, &Problem::Read { path, source });
                None
            }
        }
    }

    /// The module of that name: of all its files the first that can be used. The others are noted.
    pub(super) fn load(&self, name: &str) -> Result<Loaded, Problem> {
        let mut first = None;
        for path in self.paths.get(name).into_iter().flatten() {
            match self.load_file(path) {
                Ok(loaded) => return Ok(loaded),
                Err(problem) => {
                    self.leave_out(path, &problem);
                    first.get_or_insert(problem);
                }
            }
        }
        Err(first.unwrap_or(Problem::Missing))
    }

    fn load_file(&self, path: &str) -> Result<Loaded, Problem> {
        let content = self.source.read(path).and_then(codec::decode);
        let content = content.map_err(|source| Problem::Read { path: path.to_owned(), source })?;
        let info = ModInfo::parse(&content)
            .map_err(|source| Problem::Damaged { path: path.to_owned(), source })?;
        match info.processor {
            Some(found) if found != self.processor => {
                return Err(Problem::WrongProcessor { found });
            }
            _ => {}
        }
        // What lies there was built for another kernel with the same symbols, and says so by their versions.
        let is_weak = path.starts_with("weak-updates/") && info.has_symbol_versions;
        if info.kernel != self.source.kernel() && !is_weak {
            return Err(Problem::WrongKernel { found: info.kernel });
        }
        Ok(Loaded { path: path.to_owned(), content, info })
    }

    /// Names of the modules that a soft dependency means; what the kernel does not have is left out.
    pub(super) fn resolve(&self, wanted: &[String]) -> Vec<String> {
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
        names.into_iter().collect()
    }

    /// `true` for an out-of-tree driver of a network card (DKMS puts them into `updates/`): it has no
    /// folder that tells what it is for, but only such drivers allocate an Ethernet device.
    pub(super) fn is_foreign_network_driver(&self, name: &str) -> bool {
        let is_foreign = |path: &String| !path.starts_with("kernel/");
        if !self.paths.get(name).is_some_and(|paths| paths.iter().all(is_foreign)) {
            return false;
        }
        let symbol = b"alloc_etherdev_mqs";
        let has_symbol =
            |loaded: Loaded| loaded.content.windows(symbol.len()).any(|window| window == symbol);
        self.load(name).is_ok_and(has_symbol)
    }

    /// Notes that a file or module can't be used.
    pub(super) fn leave_out(&self, name: &str, problem: &Problem) {
        self.left_out.borrow_mut().note(self.source, name, problem);
    }

    /// All that was noted so far.
    pub(super) fn left_out(&self) -> Ref<'_, LeftOut> {
        self.left_out.borrow()
    }
}

/// Which of several modules with the same name counts: the smaller one, in depmod's order (`search updates
/// extra built-in weak-updates` in the depmod.d of Red Hat and SUSE).
fn rank(path: &str) -> u8 {
    match path.split('/').next() {
        Some("updates") => 0,
        Some("extra") => 1,
        Some("kernel") => 3,
        Some("weak-updates") => 4,
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
