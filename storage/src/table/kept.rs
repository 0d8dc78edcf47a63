//! Which machines keep a disk: remembered beside the table, and so apart from the disks, whose file system may not be
//! mounted.

use super::ExportError;
use super::file::{read_text, write_durably};
use super::place::Place;
use images::Layers;
use model::MachineName;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Machines of which a disk is to be there.
pub(super) struct Kept {
    path: PathBuf,
    machines: Mutex<BTreeSet<MachineName>>,
}

/// What a later Bootlace adds is left out.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct File {
    #[serde(default)]
    machine: BTreeSet<MachineName>,
}

impl Kept {
    /// Those that belong to this table, and `found`, which are there.
    pub(super) fn open(
        table: &Path,
        found: impl IntoIterator<Item = MachineName>,
    ) -> Result<Self, ExportError> {
        let path = file_of(table);
        let mut machines = read(&path)?;
        let n_known = machines.len();
        machines.extend(found);
        let is_news = machines.len() > n_known;
        let kept = Self { path, machines: Mutex::new(machines) };
        if is_news {
            let machines = kept.machines.lock().unwrap_or_else(PoisonError::into_inner);
            kept.write_if_possible(&machines);
        }
        Ok(kept)
    }

    pub(super) fn has(&self, machine: &MachineName) -> bool {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).contains(machine)
    }

    pub(super) fn all(&self) -> BTreeSet<MachineName> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The machine has a disk now.
    pub(super) fn add(&self, machine: &MachineName) {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        if machines.insert(machine.clone()) {
            self.write_if_possible(&machines);
        }
    }

    /// Its disk is to be thrown away.
    pub(super) fn forget(&self, machine: &MachineName) -> Result<(), ExportError> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = machines.clone();
        if left.remove(machine) {
            self.write(&left)?;
            *machines = left;
        }
        Ok(())
    }

    /// What can't be written now, such as on a full disk, is found among the disks at the next start.
    fn write_if_possible(&self, machines: &BTreeSet<MachineName>) {
        if let Err(error) = self.write(machines) {
            let error = wire::error_chain(&error);
            tracing::warn!(error, "which machines keep a disk is not noted");
        }
    }

    fn write(&self, machines: &BTreeSet<MachineName>) -> Result<(), ExportError> {
        let failed =
            |source| ExportError::Table { action: "write", path: self.path.clone(), source };
        let text = toml::to_string(&File { machine: machines.clone() })
            .map_err(|error| failed(io::Error::other(error)))?;
        write_durably(&self.path, text.as_bytes()).map_err(failed)
    }
}

/// Disks that machines keep, by who only looks.
#[derive(Debug, PartialEq, Eq)]
pub struct KeptDisks {
    /// How many are there.
    pub n_there: usize,
    /// Machines of which one was there, and is not.
    pub missing: BTreeSet<MachineName>,
}

/// Which disks are in the folder `layers`, and which are missing of those that are noted beside `table` or are `known`
/// otherwise. Nothing is made or noted.
///
/// # Errors
/// The folder is not the one that it was, or can't be looked at.
pub fn kept_disks(
    table: &Path,
    layers: &Path,
    known: &[MachineName],
) -> Result<KeptDisks, ExportError> {
    let mut missing = read(&file_of(table))?;
    missing.extend(known.iter().cloned());
    Place::new(table, layers).look()?;
    let there = Layers::look(layers)?;
    missing.retain(|machine| !there.contains(machine));
    Ok(KeptDisks { n_there: there.len(), missing })
}

fn file_of(table: &Path) -> PathBuf {
    table.with_file_name("kept-disks.toml")
}

fn read(path: &Path) -> Result<BTreeSet<MachineName>, ExportError> {
    let Some(text) = read_text(path)? else { return Ok(BTreeSet::new()) };
    let file: Result<File, _> = toml::from_str(&text);
    file.map(|file| file.machine).map_err(|error| ExportError::Forgotten {
        path: path.to_owned(),
        why: error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_what_is_not_there_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (table, layers) = (folder.path().join("exports.toml"), folder.path().join("layers"));
        let name = |text: &str| text.parse::<MachineName>().unwrap();
        let look = |known: &[MachineName]| kept_disks(&table, &layers, known);
        let of = |n_there, missing: &[&str]| KeptDisks {
            n_there,
            missing: missing.iter().map(|text| name(text)).collect(),
        };
        assert_eq!(look(&[]).unwrap(), of(0, &[]));
        assert_eq!(look(&[name("lab-01")]).unwrap(), of(0, &["lab-01"]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::create_dir_all(layers.join("lab-01")).unwrap();
        Kept::open(&table, [name("lab-01"), name("lab-02")]).unwrap();
        assert_eq!(look(&[]).unwrap(), of(1, &["lab-02"]));
        // Its file system is not mounted.
        std::fs::write(folder.path().join("layers.was-here"), "0123").unwrap();
        for is_there in [true, false] {
            let error = look(&[]).unwrap_err().to_string();
            assert!(error.contains("not the folder in which"), "{is_there}: {error}");
            let _ = std::fs::remove_dir_all(&layers);
        }
    }

    #[test]
    fn disks_are_remembered_until_they_are_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("exports.toml");
        let name = |text: &str| text.parse::<MachineName>().unwrap();
        let kept = Kept::open(&table, [name("lab-01")]).unwrap();
        kept.add(&name("lab-02"));
        kept.add(&name("lab-03"));
        kept.forget(&name("lab-03")).unwrap();
        let again = Kept::open(&table, []).unwrap();
        assert_eq!(again.all(), [name("lab-01"), name("lab-02")].into());
        std::fs::write(folder.path().join("kept-disks.toml"), "machine = 7").unwrap();
        let error = Kept::open(&table, []).err().unwrap().to_string();
        assert!(error.contains("kept-disks.toml") && error.contains("remove the file"), "{error}");
    }
}
