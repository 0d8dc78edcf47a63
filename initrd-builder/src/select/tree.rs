//! The modules of a source, by name.

use crate::modinfo::ModInfo;
use crate::{BuildError, ModuleSource, codec};
use initcfg::{glob_matches, module_name};
use std::collections::{BTreeMap, BTreeSet};

/// The files of a source, by module name.
pub(crate) struct Tree<'a> {
    pub(crate) source: &'a dyn ModuleSource,
    /// All that it has.
    files: Vec<String>,
    /// Path of each module in the source.
    pub(crate) paths: BTreeMap<String, String>,
    /// Modules that the kernel has inside.
    pub(crate) built_in: BTreeSet<String>,
    /// Aliases of the crypto modules: soft dependencies name algorithms, not modules.
    algorithms: Vec<(String, String)>,
}

impl<'a> Tree<'a> {
    /// Lists the source.
    pub(crate) fn open(source: &'a dyn ModuleSource) -> Result<Self, BuildError> {
        let files = source.list().map_err(|error| read_error(source, "", error))?;
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        for path in &files {
            let Some(name) = name_of_file(path) else { continue };
            let known = paths.entry(name).or_insert_with(|| path.clone());
            if rank(path) < rank(known) {
                known.clone_from(path);
            }
        }
        let list = read_list(source, &files, "modules.builtin")?;
        let built_in = list.lines().filter_map(name_of_file).collect();
        let mut tree = Self { source, files, paths, built_in, algorithms: Vec::new() };
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

    /// Patterns of the hardware that drivers inside of the kernel are for.
    pub(crate) fn built_in_aliases(&self) -> Result<Vec<String>, BuildError> {
        // `NAME.alias=PATTERN`, each with a NUL behind; kernels before 5.2 have no such file.
        let list = read_list(self.source, &self.files, "modules.builtin.modinfo")?;
        let fields = list.split('\0').filter_map(|field| field.split_once(".alias="));
        Ok(fields.map(|(_, pattern)| pattern.to_owned()).collect())
    }

    /// A decoded module and what it says about itself.
    pub(crate) fn read(&self, path: &str) -> Result<(Vec<u8>, ModInfo), BuildError> {
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
    pub(crate) fn resolve(&self, wanted: &[String]) -> Result<Vec<String>, BuildError> {
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
    pub(crate) fn is_foreign_network_driver(&self, path: &str) -> Result<bool, BuildError> {
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

/// Content of a list that not every kernel has; empty if this one has none.
fn read_list(
    source: &dyn ModuleSource,
    files: &[String],
    name: &str,
) -> Result<String, BuildError> {
    if !files.iter().any(|path| path == name) {
        return Ok(String::new());
    }
    let list = source.read(name).map_err(|error| read_error(source, name, error))?;
    Ok(String::from_utf8_lossy(&list).into_owned())
}

fn read_error(source: &dyn ModuleSource, path: &str, error: std::io::Error) -> BuildError {
    let origin = source.origin();
    let what = if path.is_empty() { origin } else { format!("{path} in {origin}") };
    BuildError::Read { what, source: error }
}
