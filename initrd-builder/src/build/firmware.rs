//! The firmware that drivers ask for.

use crate::newc::Archive;
use crate::select::Chosen;
use crate::{ModuleSource, codec};
use std::collections::{BTreeMap, BTreeSet};

/// Larger firmware is left out with a warning: it is for server cards, and everybody would load it.
const FIRMWARE_SIZE_MAX: usize = 2 << 20;

/// Adds the firmware that the source has; returns its names.
pub(super) fn add_firmware(
    archive: &mut Archive,
    source: &dyn ModuleSource,
    chosen: &BTreeMap<String, Chosen>,
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, Chosen { info, .. }) in chosen {
        for file in &info.firmware {
            wanted.entry(file).or_default().insert(module);
        }
    }
    let mut added = Vec::new();
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for (file, modules) in &wanted {
        // A name is a path below the firmware folder; patterns and anything else is not a file.
        let is_file = !file.starts_with('/')
            && !file.contains(['*', '?', '\0'])
            && file.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let stored = if is_file { source.firmware(file) } else { Ok(None) };
        let content = match stored.and_then(|stored| stored.map(codec::decode).transpose()) {
            Ok(Some(content)) => content,
            Ok(None) => {
                missing.extend(modules);
                continue;
            }
            Err(error) => {
                warnings.push(format!("firmware {file} left out: it can't be read: {error}"));
                continue;
            }
        };
        if content.len() > FIRMWARE_SIZE_MAX {
            let megabytes = content.len() >> 20;
            warnings.push(format!("firmware {file} left out: it has {megabytes} MB"));
            continue;
        }
        archive.file(&format!("lib/firmware/{file}"), 0o644, content);
        added.push((*file).to_owned());
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().collect();
        warnings.push(format!(
            "firmware not found for {}: most of their cards work without it; if one does not, import \
             an image that has the card's firmware package installed",
            names.join(", ")
        ));
    }
    added
}
