//! Units of systemd: which of them start by themselves.

use super::tree::Tree;
use crate::entry::EntryKind;
use crate::error::RootfsError;
use std::collections::BTreeSet;

/// Where the administrator's units are, and those of packages.
pub(super) const ADMIN: &str = "/etc/systemd/system";
const FOLDERS: [&str; 3] = [ADMIN, "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What systemd would start.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Units that other units want.
    wanted: BTreeSet<String>,
    /// Units that are links in the administrator's folder: masked, or another name of one.
    links: BTreeSet<String>,
    masked: BTreeSet<String>,
    /// Files in the administrator's folder.
    own: BTreeSet<String>,
    /// Units that are there.
    there: BTreeSet<String>,
}

impl Units {
    pub(super) fn read(tree: &Tree<'_>) -> Result<Self, RootfsError> {
        let mut units = Self::default();
        for folder in FOLDERS {
            for entry in tree.list(folder)? {
                let path = format!("{folder}/{}", entry.name);
                if entry.name.ends_with(".wants") || entry.name.ends_with(".requires") {
                    units.wanted.extend(tree.list(&path)?.into_iter().map(|entry| entry.name));
                    continue;
                }
                if folder == ADMIN && entry.kind == EntryKind::Link {
                    units.links.insert(entry.name.clone());
                    // The image has no /dev, or a device there.
                    let leads = tree.exists(&path)?.then(|| tree.real(&path)).transpose()?;
                    if leads.is_none_or(|path| path == "/dev/null") {
                        units.masked.insert(entry.name.clone());
                    }
                } else if folder == ADMIN {
                    units.own.insert(entry.name.clone());
                }
                units.there.insert(entry.name);
            }
        }
        Ok(units)
    }

    /// Whether it starts at boot, or with its timer.
    pub(super) fn start(&self, unit: &str) -> bool {
        let is_there = self.there.contains(unit) || self.is_instance_there(unit);
        self.wanted.contains(unit) && is_there && !self.masked.contains(unit)
    }

    /// Whether there is such a unit that something can start.
    pub(super) fn have(&self, unit: &str) -> bool {
        self.there.contains(unit) && !self.masked.contains(unit)
    }

    /// Instances of a template that start at boot: `wg-quick@` gives their names.
    pub(super) fn instances<'a>(&'a self, template: &'a str) -> impl Iterator<Item = &'a str> {
        let wanted = self.wanted.iter().filter(|unit| !self.masked.contains(*unit));
        wanted.filter_map(move |unit| unit.strip_prefix(template)?.strip_suffix(".service"))
    }

    /// Whether a link to nowhere can be laid in its place: there is no file of the administrator's.
    pub(super) fn can_be_masked(&self, unit: &str) -> bool {
        !self.own.contains(unit) && !self.links.contains(unit)
    }

    fn is_instance_there(&self, unit: &str) -> bool {
        let template = unit
            .split_once('@')
            .and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
        template.is_some_and(|template| self.there.contains(&template))
    }
}
