//! Which crates are in the programs of a release.

use crate::build::{Place, cargo_in};
use anyhow::{Context, Result};
use lab::text_of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The packages whose programs are shipped.
const SHIPPED: [&str; 2] = ["bootsvc", "bootlace-init"];

/// A crate that comes from a registry.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As its author writes it, in SPDX's words.
    pub(crate) license: String,
    /// Where its source is on this machine.
    pub(crate) folder: PathBuf,
    /// SHA-256 of its package.
    pub(crate) checksum: Option<String>,
    /// The crates that it uses, by their places in the list.
    pub(crate) uses: Vec<usize>,
}

/// Crates of registries, by name and version, and which of them our own use.
#[derive(Debug)]
pub(crate) struct Crates {
    pub(crate) all: Vec<Crate>,
    pub(crate) used_by_us: Vec<usize>,
}

impl Crates {
    /// Those that the compiler links: no macros, no tests.
    pub(crate) fn find(place: &Place) -> Result<Self> {
        let mut command = cargo_in(place, &["metadata", "--locked", "--format-version=1"]);
        let text = text_of(command.arg("--filter-platform=x86_64-unknown-linux-gnu"))?;
        let metadata: Value = serde_json::from_str(&text)?;
        let sums = checksums(&fs::read_to_string(place.root.join("Cargo.lock"))?);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let packages: BTreeMap<String, Value> =
            list(&metadata["packages"]).into_iter().map(|it| (text_in(&it, "id"), it)).collect();
        let uses: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| (text_in(node, "id"), linked(&list(&node["deps"]), &packages)))
            .collect();
        let roots =
            packages.iter().filter(|(_, it)| SHIPPED.contains(&text_in(it, "name").as_str()));
        let mut waiting: Vec<&String> = roots.map(|(id, _)| id).collect();
        let mut found = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if found.insert(id) {
                waiting.extend(uses.get(id).into_iter().flatten());
            }
        }
        let (ours, mut foreign): (Vec<&String>, Vec<&String>) =
            found.into_iter().partition(|id| packages[*id]["source"].is_null());
        let key = |id: &String| (text_in(&packages[id], "name"), text_in(&packages[id], "version"));
        foreign.sort_by_key(|id| key(id));
        let places: BTreeMap<&String, usize> =
            foreign.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let used = |id: &String| -> Vec<usize> {
            uses[id].iter().filter_map(|other| places.get(other).copied()).collect()
        };
        let used_by_us: BTreeSet<usize> = ours.into_iter().flat_map(used).collect();
        let crates = foreign.iter().map(|id| {
            let package = &packages[*id];
            let (name, version) = key(id);
            let manifest = PathBuf::from(text_in(package, "manifest_path"));
            let folder = manifest.parent().context("a manifest lies in a folder")?.to_owned();
            // As it was written before SPDX had words for it.
            let license = text_in(package, "license").replace('/', " OR ");
            let checksum = sums.get(&(name.clone(), version.clone())).cloned();
            Ok(Crate { name, version, license, folder, checksum, uses: used(id) })
        });
        let all = crates.collect::<Result<_>>()?;
        Ok(Self { all, used_by_us: used_by_us.into_iter().collect() })
    }
}

fn text_in(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// What of a package's dependencies becomes part of the program.
fn linked(dependencies: &[Value], packages: &BTreeMap<String, Value>) -> Vec<String> {
    let is_linked = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array();
        let is_normal = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()));
        let targets = packages[&text_in(dependency, "pkg")]["targets"].as_array();
        let is_macro = targets
            .is_some_and(|targets| targets.iter().any(|target| target["kind"][0] == "proc-macro"));
        is_normal && !is_macro
    };
    dependencies.iter().filter(is_linked).map(|dependency| text_in(dependency, "pkg")).collect()
}

/// Checksums in a `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let entry = |text: &str| {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            Some(line?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    };
    lock.split("[[package]]").filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_tells_checksums_of_what_comes_from_a_registry() {
        let lock = "version = 4\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n\n[[package]]\n\
                    name = \"anyhow\"\nversion = \"1.0.1\"\nsource = \"registry\"\nchecksum = \"ab\"\n";
        let sums = checksums(lock);
        assert_eq!(sums.len(), 1);
        assert_eq!(sums[&("anyhow".to_owned(), "1.0.1".to_owned())], "ab");
    }

    #[test]
    fn what_is_linked_is_found_and_tools_are_not() {
        let crates = Crates::find(&Place::here()).unwrap();
        let is_there = |name: &str| crates.all.iter().any(|it| it.name == name);
        assert!(is_there("libsqlite3-sys") && is_there("tokio") && is_there("rustls"));
        assert!(!is_there("serde_derive") && !is_there("proptest"));
        assert!(crates.all.iter().all(|it| !it.license.is_empty() && it.checksum.is_some()));
        assert!(!crates.used_by_us.is_empty());
    }
}
