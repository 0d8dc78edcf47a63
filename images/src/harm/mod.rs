//! What in an image hurts a machine without a disk of its own, and what can be laid over its root against it.
//!
//! Only files are read, few and short ones; nothing in them is believed, and none of their programs is started.

mod checks;
mod desk;
mod firewall;
mod found;
mod fstab;
mod identity;
mod lay;
mod names;
mod network;
mod planted;
mod tree;
mod units;
mod upgrades;

pub use checks::{CHECKS, Check};
pub use found::{Harm, Severity};

use crate::block::Block;
use crate::error::RootfsError;
use crate::rootfs::Rootfs;
use crate::volumes::Volume;
use found::{Change, Found};
use initcfg::Overlay;
use names::DiskNames;
use planted::Planted;
use std::collections::{BTreeMap, BTreeSet};
use tree::Tree;
use units::Units;

/// Findings of one check that are told: a hostile image may have thousands.
const FOUND_MAX: usize = 16;

/// A system, as checks see it.
pub(crate) struct System<'a> {
    tree: Tree<'a>,
    units: Units,
    disk: DiskNames,
}

impl System<'_> {
    /// What was found, and masked are these units if the administrator has made none of them himself.
    fn masks(&self, found: Found, units: &[&'static str]) -> Found {
        let can_be = units.iter().all(|unit| self.units.can_be_masked(unit));
        match can_be {
            true => units.iter().fold(found, |found, unit| found.changing(Change::Mask(unit))),
            false => found,
        }
    }
}

/// What was seen of a system.
#[derive(Debug, Default)]
pub struct Look {
    /// What hurts, the worst first.
    pub harms: Vec<Harm>,
    /// Checks that could not be made, and why.
    pub not_checked: Vec<(String, String)>,
    /// For each harm, what can be changed about it.
    changes: Vec<Vec<Change>>,
}

/// Which harms are to be fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixChoice {
    /// Only those that these checks have found; empty: all.
    #[serde(default)]
    pub only: BTreeSet<String>,
    /// Not those that these have found.
    #[serde(default)]
    pub except: BTreeSet<String>,
}

impl FixChoice {
    /// A name in it that no check has.
    pub fn unknown(&self) -> Option<&str> {
        let all = self.only.iter().chain(&self.except);
        all.map(String::as_str).find(|name| CHECKS.iter().all(|check| check.id != *name))
    }

    fn takes(&self, check: &str) -> bool {
        (self.only.is_empty() || self.only.contains(check)) && !self.except.contains(check)
    }
}

/// Looks at the system whose root this is, on a disk with these volumes.
///
/// # Errors
/// The disk can't be read, or the root's folders of units.
pub(crate) fn look(
    root: &Rootfs,
    disk: &dyn Block,
    volumes: &[Volume],
) -> Result<Look, RootfsError> {
    let unreadable = |error: std::io::Error| RootfsError::FileSystem(error.to_string());
    let names = DiskNames::read(disk, volumes).map_err(unreadable)?;
    look_at(Tree::new(root), names)
}

/// Looks at a system of which only these files are there, each with its content: for fuzzing, which has no disk. A link is a file
/// whose content is `-> TARGET`.
///
/// # Errors
/// Its folders of units can't be read.
pub fn look_at_files(files: BTreeMap<String, Vec<u8>>) -> Result<(Look, Overlay), RootfsError> {
    let planted = Planted::new(files);
    let look = look_at(Tree::new(&planted), DiskNames::default())?;
    let overlay = look.overlay_of(&Tree::new(&planted), &FixChoice::default())?;
    Ok((look, overlay))
}

fn look_at(tree: Tree<'_>, disk: DiskNames) -> Result<Look, RootfsError> {
    let units = Units::read(&tree)?;
    let system = System { tree, units, disk };
    let mut look = Look::default();
    let mut all: Vec<(Harm, Vec<Change>)> = Vec::new();
    for check in CHECKS {
        match check.run(&system) {
            Ok(found) => {
                for one in found.into_iter().take(FOUND_MAX) {
                    all.push(harm(check, one, &system.tree)?);
                }
            }
            Err(error) => look.not_checked.push((check.id.to_owned(), error.to_string())),
        }
    }
    all.sort_by_key(|(harm, _)| harm.severity);
    (look.harms, look.changes) = all.into_iter().unzip();
    Ok(look)
}

/// In words what a check has found, and what can be changed about it.
fn harm(check: &Check, found: Found, tree: &Tree<'_>) -> Result<(Harm, Vec<Change>), RootfsError> {
    let Found { path, line, what, mut changes } = found;
    for change in &changes {
        if lay::place(tree, change)?.is_none() {
            changes.clear();
            break;
        }
    }
    let laid: Vec<String> = changes.iter().map(Change::in_words).collect();
    let harm = Harm {
        check: check.id.to_owned(),
        severity: check.severity,
        path: path.map(|path| shown(&path)),
        line,
        what: shown(&what),
        effect: check.effect.to_owned(),
        dealt_with: check.dealt_with.map(str::to_owned),
        fix: match laid.is_empty() {
            true => check.advice.to_owned(),
            false => shown(&laid.join("; ")),
        },
        can_be_fixed: !laid.is_empty(),
    };
    Ok((harm, changes))
}

/// What an image says, for people: no control characters, and no more than fits.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 240;
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(SHOWN_MAX).collect()
}

impl Look {
    /// Whether something is there that Bootlace does not deal with by itself.
    pub fn hurts(&self) -> impl Iterator<Item = &Harm> {
        self.harms.iter().filter(|harm| harm.dealt_with.is_none())
    }

    /// What is laid over this root against the harms that are chosen.
    ///
    /// # Errors
    /// The root can't be read.
    pub(crate) fn overlay(
        &self,
        root: &Rootfs,
        choice: &FixChoice,
    ) -> Result<Overlay, RootfsError> {
        self.overlay_of(&Tree::new(root), choice)
    }

    fn overlay_of(&self, tree: &Tree<'_>, choice: &FixChoice) -> Result<Overlay, RootfsError> {
        let chosen = self.harms.iter().zip(&self.changes);
        let chosen = chosen.filter(|(harm, _)| choice.takes(&harm.check));
        let changes: Vec<(&str, &Change)> = chosen
            .flat_map(|(harm, changes)| changes.iter().map(|change| (harm.check.as_str(), change)))
            .collect();
        lay::overlay(tree, &changes)
    }
}

#[cfg(test)]
mod tests;
