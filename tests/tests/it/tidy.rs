//! Rules about the tree itself. Each failure says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may use whom: package, and those of ours that it may depend on. The order is inside out.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("initcfg", &["wire"]),
    ("dhcp", &["wire"]),
    ("tftp", &["wire"]),
    ("nbd", &["wire"]),
    ("aoe", &["wire"]),
    ("iscsi", &["wire"]),
    ("fakeclient", &["aoe", "initcfg", "wire"]),
    ("model", &["initcfg", "wire"]),
    ("images", &["model"]),
    ("initrd-builder", &["initcfg"]),
    ("bootlace-init", &["aoe", "dhcp", "initcfg", "iscsi", "nbd", "wire"]),
    ("storage", &["aoe", "images", "model", "nbd", "wire"]),
    ("service", &["images", "initcfg", "initrd-builder", "model", "wire"]),
    ("web", &["model", "service", "wire"]),
    (
        "bootsvc",
        &[
            "dhcp",
            "images",
            "initcfg",
            "initrd-builder",
            "model",
            "service",
            "storage",
            "tftp",
            "web",
            "wire",
        ],
    ),
    ("tests", &["aoe", "nbd", "wire"]),
    ("xtask", &["fakeclient", "initcfg", "model", "tests", "wire"]),
];

/// Crates that must compile without the standard library, which proves that they do no I/O.
const PURE: &[&str] = &["wire", "initcfg", "dhcp", "tftp", "nbd", "aoe", "iscsi", "model"];

/// Lines of a source file beyond which it must be split by thing.
const FILE_LINES_MAX: usize = 800;

#[test]
fn dependencies_point_inwards() {
    let allowed: BTreeMap<_, _> = DIRECTIONS.iter().copied().collect();
    for (package, manifest) in manifests() {
        let may_use: BTreeSet<&str> = allowed
            .get(package.as_str())
            .unwrap_or_else(|| {
                panic!("{package} is not in DIRECTIONS; add it here and in ARCHITECTURE.md")
            })
            .iter()
            .copied()
            .collect();
        let table = manifest.get("dependencies").and_then(toml::Value::as_table);
        for (name, value) in table.into_iter().flatten() {
            let used = value.get("package").and_then(toml::Value::as_str).unwrap_or(name);
            assert!(
                !allowed.contains_key(used) || may_use.contains(used),
                "{package} must not depend on {used}; see ARCHITECTURE.md, \"Directions\""
            );
        }
    }
}

#[test]
fn pure_crates_prove_that_they_do_no_io() {
    for name in PURE {
        let path = root().join("crates").join(name).join("src/lib.rs");
        let text = std::fs::read_to_string(&path).expect("each pure crate has a lib.rs");
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(text.contains(attribute), "{} must say {attribute}", path.display());
        }
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    for file in sources() {
        let lines = std::fs::read_to_string(&file).expect("sources are UTF-8").lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines; split it by thing (at most {FILE_LINES_MAX})",
            file.display()
        );
    }
}

#[test]
fn the_architecture_names_every_crate_and_only_folders_that_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for folder in member_folders() {
        assert!(
            text.contains(&format!("`{folder}")),
            "ARCHITECTURE.md does not mention `{folder}`"
        );
    }
    for path in text.split('`').skip(1).step_by(2).filter(|word| word.contains('/')) {
        let is_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b));
        assert!(
            !is_path || path.starts_with('/') || root().join(path).exists(),
            "ARCHITECTURE.md names `{path}`, which does not exist"
        );
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").into()
}

fn member_folders() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("workspace manifest");
    let manifest: toml::Value = toml::from_str(&text).expect("workspace manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members is a list");
    members.iter().map(|member| member.as_str().expect("members are paths").to_owned()).collect()
}

fn manifests() -> Vec<(String, toml::Value)> {
    let read = |folder: &String| {
        let text =
            std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("manifest");
        let manifest: toml::Value = toml::from_str(&text).expect("manifest is TOML");
        (manifest["package"]["name"].as_str().expect("name").to_owned(), manifest)
    };
    member_folders().iter().map(read).collect()
}

fn sources() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        member_folders().iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("member folders are readable") {
            let path = entry.expect("folder entries are readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
