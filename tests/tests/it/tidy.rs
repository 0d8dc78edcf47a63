//! Rules about the tree itself. Each failure says what to do.

mod imports;

use imports::{arrows, circle, code};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who uses whom: package, and those of ours that it depends on, no more and no fewer. The order is inside
/// out: nobody uses one that comes later.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("lvm", &[]),
    ("initcfg", &["lvm", "wire"]),
    ("dhcp", &["wire"]),
    ("tftp", &["wire"]),
    ("nbd", &["wire"]),
    ("aoe", &["wire"]),
    ("iscsi", &["wire"]),
    ("ldap", &["wire"]),
    ("fakeclient", &["aoe", "initcfg", "nbd", "tftp", "wire"]),
    ("model", &["initcfg", "wire"]),
    ("images", &["initcfg", "lvm", "model"]),
    ("initrd-builder", &["initcfg"]),
    ("bootlace-init", &["dhcp", "initcfg", "iscsi", "lvm", "nbd", "wire"]),
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
            "ldap",
            "fakeclient",
            "model",
            "service",
            "storage",
            "tftp",
            "web",
            "wire",
        ],
    ),
    ("tests", &[]),
    ("xtask", &["fakeclient", "initcfg", "model", "tests", "wire"]),
];

/// Who uses whom beyond that in tests only.
const DIRECTIONS_OF_TESTS: &[(&str, &[&str])] = &[
    ("images", &["lvm"]),
    ("storage", &["fakeclient"]),
    ("tests", &["fakeclient"]),
    ("web", &["initcfg"]),
];

/// Modules that may use each other in a circle: package, and the few of one small thing.
const CIRCLES: &[(&str, &[&str])] = &[
    ("aoe", &["access", "ata", "config", "frame"]),
    ("dhcp", &["pool", "reply", "server"]),
    ("initcfg", &["heartbeat", "power", "question", "report", "word"]),
];

/// The rooms of `service`, inside out: what is in one uses only those in the lines before it.
const ROOMS: &[&[&str]] = &[
    &["piped", "plain_file"],
    &["backup", "clock", "commands", "storage_client"],
    &["incoming", "jobs"],
    &["error", "options"],
    &["store", "live", "passwords"],
    &["initrds"],
    &["service"],
    &["loader", "people"],
    &["boot", "fleet"],
];

/// Crates that must compile without the standard library, which proves that they do no I/O.
const PURE: &[&str] =
    &["wire", "initcfg", "dhcp", "tftp", "nbd", "aoe", "iscsi", "ldap", "lvm", "model"];

/// Lines of a source file beyond which it must be split by thing.
const FILE_LINES_MAX: usize = 800;

#[test]
fn dependencies_point_inwards() {
    let order: Vec<&str> = DIRECTIONS.iter().map(|(package, _)| *package).collect();
    for (package, manifest) in manifests() {
        let place = order.iter().position(|name| *name == package).unwrap_or_else(|| {
            panic!("{package} is not in DIRECTIONS; add it here and in ARCHITECTURE.md")
        });
        for (tables, directions) in [
            (&["dependencies", "build-dependencies"][..], DIRECTIONS),
            (&["dev-dependencies"], DIRECTIONS_OF_TESTS),
        ] {
            let drawn = directions.iter().find(|(name, _)| *name == package);
            let drawn: BTreeSet<&str> =
                drawn.into_iter().flat_map(|(_, used)| *used).copied().collect();
            let used = tables.iter().filter_map(|table| manifest.get(table)?.as_table()).flatten();
            let used: BTreeSet<&str> = used
                .map(|(name, value)| {
                    value.get("package").and_then(toml::Value::as_str).unwrap_or(name)
                })
                .filter(|name| order.contains(name))
                .collect();
            if let Some(name) = used.difference(&drawn).next() {
                panic!("{package} must not depend on {name}; see ARCHITECTURE.md, \"Directions\"");
            }
            if let Some(name) = drawn.difference(&used).next() {
                panic!("{package} does not depend on {name}: remove that arrow from the test");
            }
            for name in drawn {
                let position = order.iter().position(|other| *other == name);
                assert!(position < Some(place), "{package} uses {name}, so must come after it");
            }
        }
    }
}

#[test]
fn modules_of_a_crate_use_each_other_in_no_circle() {
    for (folder, (package, _)) in member_folders().iter().zip(manifests()) {
        let source = root().join(folder).join("src");
        let arrows = arrows(&source, &files_below(vec![source.clone()]));
        let mut excepted = Vec::new();
        for (_, modules) in CIRCLES.iter().filter(|(name, _)| *name == package) {
            excepted.extend_from_slice(modules);
            let among: imports::Arrows = arrows
                .iter()
                .filter(|((from, to), _)| {
                    [from, to].iter().all(|one| modules.contains(&one.as_str()))
                })
                .map(|(arrow, file)| (arrow.clone(), file.clone()))
                .collect();
            let is_one = circle(&among, &[]).is_some();
            assert!(
                is_one,
                "{modules:?} of {package} are no circle any more: remove it from CIRCLES"
            );
        }
        let Some(circle) = circle(&arrows, &excepted) else { continue };
        let files: Vec<String> = circle
            .windows(2)
            .map(|pair| arrows[&(pair[0].clone(), pair[1].clone())].display().to_string())
            .collect();
        panic!(
            "modules of {package} use each other in a circle: {}\nby the imports in\n  {}\nMove what both \
             need to a module that uses neither",
            circle.join(" -> "),
            files.join("\n  ")
        );
    }
}

#[test]
fn rooms_of_service_have_walls() {
    let source = root().join("crates/service/src");
    let files = files_below(vec![source.clone()]);
    for ((from, to), file) in arrows(&source, &files) {
        let place = |room: &str| {
            ROOMS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| {
                panic!("service has a room {room}, which is not in ROOMS; see ARCHITECTURE.md")
            })
        };
        let is_inwards = place(&to) < place(&from);
        assert!(is_inwards, "{} must not use {to}: it is not further inside", file.display());
    }
    for file in files {
        let text = code(&std::fs::read_to_string(&file).expect("sources are UTF-8"));
        let is_below = |room: &str| file.starts_with(source.join(room));
        let has = |word: &str| {
            text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|one| one == word)
        };
        assert!(
            !has("rusqlite") || is_below("store") || is_below("tests"),
            "{} has SQL, which belongs below store/",
            file.display()
        );
        assert!(
            !has("Service") || !["initrds", "store", "live"].iter().any(|room| is_below(room)),
            "{} must not know Service, which uses it",
            file.display()
        );
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
    files_below(member_folders().iter().map(|folder| root().join(folder)).collect())
}

/// All Rust files in these folders.
fn files_below(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("folders of source are readable") {
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
