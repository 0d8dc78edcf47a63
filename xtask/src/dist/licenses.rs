//! The licenses of all crates in one text.

use super::crates::{Crate, Crates};
use crate::build::root;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// How the names of files with licenses begin.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Libraries in C lie in folders of the crates that bring them.
const DEPTH_MAX: usize = 3;

/// Between two licenses.
const RULE: &str = "\n========================================================================\n\n";

/// Which crates there are, and each license once, with those that are under it.
pub(crate) fn text(crates: &Crates) -> Result<String> {
    let mut text = String::from(
        "Bootlace's programs contain these crates, each under its own license. The texts follow below.\n\n",
    );
    let mut by_license: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for it in &crates.all {
        let Crate { name, version, license, .. } = it;
        writeln!(text, "{name} {version}: {license}; https://crates.io/crates/{name}/{version}")?;
        let mut licenses = Vec::new();
        collect(&it.folder, DEPTH_MAX, &mut licenses)
            .with_context(|| format!("can't look for the license of {name}"))?;
        if licenses.is_empty() {
            licenses = standard(license)?;
        }
        licenses.sort();
        licenses.dedup();
        for license in licenses {
            by_license.entry(license).or_default().push(format!("{name} {version}"));
        }
    }
    for (license, names) in by_license {
        write!(text, "{RULE}{}:\n\n{license}\n", names.join(", "))?;
    }
    Ok(text)
}

fn collect(folder: &Path, depth: usize, licenses: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        let name = entry_name(&path);
        if kind?.is_dir() {
            if depth > 1 {
                collect(&path, depth - 1, licenses)?;
            }
        } else if NAMES.iter().any(|start| name.starts_with(start)) && !name.ends_with(".RS") {
            let text = fs::read(&path)?;
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            licenses.push(lines.join("\n").trim().to_owned());
        }
    }
    Ok(())
}

fn entry_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase()
}

/// For a crate that names its license, and has no text of it.
fn standard(license: &str) -> Result<Vec<String>> {
    let name =
        if license.contains("Apache-2.0") { "LICENSE-APACHE" } else { return Ok(Vec::new()) };
    Ok(vec![fs::read_to_string(root().join(name))?.trim().to_owned()])
}
