//! Which machines keep a disk, and how far machines' layers have come: remembered beside the table, and so apart from the
//! disks, whose file system may not be mounted.

use super::ExportError;
use super::file::{read_text, write_durably};
use super::place::Place;
use images::{LastUse, LayerMode, Layers};
use model::{DiskId, ImageName};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Machines of which a disk is to be there, and which one.
pub(super) struct Kept {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    file: File,
    /// Whether the file on disk is another one.
    is_changed: bool,
}

/// What a later Bootlace adds is left out. An earlier one leaves `last` out where it changes `machine`.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct File {
    #[serde(default, rename = "machine")]
    disk: BTreeSet<DiskId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last: Vec<Last>,
}

/// The layer that a machine had last; two of a machine at most, one in each mode.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Last {
    #[serde(rename = "machine")]
    disk: DiskId,
    mode: LayerMode,
    #[serde(flatten)]
    layer: LastUse,
}

impl Kept {
    /// Those that belong to this table, and `found`, which are there.
    pub(super) fn open(
        table: &Path,
        found: impl IntoIterator<Item = DiskId>,
    ) -> Result<Self, ExportError> {
        let path = file_of(table);
        let mut file = read(&path)?;
        let n_known = file.disk.len();
        file.disk.extend(found);
        let is_changed = file.disk.len() > n_known;
        let kept = Self { path, known: Mutex::new(Known { file, is_changed }) };
        kept.keep();
        Ok(kept)
    }

    pub(super) fn has(&self, disk: &DiskId) -> bool {
        self.lock().file.disk.contains(disk)
    }

    pub(super) fn all(&self) -> BTreeSet<DiskId> {
        self.lock().file.disk.clone()
    }

    /// The layer that the machine had last, if that was noted.
    pub(super) fn last(&self, disk: &DiskId, mode: LayerMode) -> Option<LastUse> {
        let known = self.lock();
        let mut last = known.file.last.iter();
        Some(last.find(|last| (&last.disk, last.mode) == (disk, mode))?.layer.clone())
    }

    /// The machine has this layer now. It is on disk after [`keep`](Self::keep).
    pub(super) fn note(&self, disk: &DiskId, mode: LayerMode, layer: LastUse) {
        let mut known = self.lock();
        known.is_changed |= mode == LayerMode::Persistent && known.file.disk.insert(disk.clone());
        let mut last = known.file.last.iter_mut();
        match last.find(|last| (&last.disk, last.mode) == (disk, mode)) {
            Some(last) if last.layer == layer => return,
            Some(last) => last.layer = layer,
            None => known.file.last.push(Last { disk: disk.clone(), mode, layer }),
        }
        known.is_changed = true;
    }

    /// Its disk is to be thrown away.
    pub(super) fn forget(&self, disk: &DiskId) -> Result<(), ExportError> {
        let mut known = self.lock();
        let is_other = |one: &DiskId| one != disk;
        let machines = &known.file.disk;
        let left = File {
            disk: machines.iter().filter(|one| is_other(one)).cloned().collect(),
            last: known.file.last.iter().filter(|last| is_other(&last.disk)).cloned().collect(),
        };
        let n_known = known.file.disk.len() + known.file.last.len();
        if left.disk.len() + left.last.len() < n_known {
            self.write(&left)?;
            *known = Known { file: left, is_changed: false };
        }
        Ok(())
    }

    /// Writes what has changed. What can't be written now, such as on a full disk, is tried again with the next change,
    /// and which machines keep a disk is found among the disks at the next start.
    pub(super) fn keep(&self) {
        let mut known = self.lock();
        if !known.is_changed {
            return;
        }
        match self.write(&known.file) {
            Ok(()) => known.is_changed = false,
            Err(error) => {
                let error = wire::error_chain(&error);
                tracing::warn!(error, "which machines keep a disk is not noted");
            }
        }
    }

    fn write(&self, file: &File) -> Result<(), ExportError> {
        let failed =
            |source| ExportError::Table { action: "write", path: self.path.clone(), source };
        let text = toml::to_string(file).map_err(|error| failed(io::Error::other(error)))?;
        write_durably(&self.path, text.as_bytes()).map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // It is changed by single calls, and is right whatever panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Disks that machines keep, by who only looks.
#[derive(Debug, PartialEq, Eq)]
pub struct KeptDisks {
    /// How many are there.
    pub n_there: usize,
    /// Machines of which one was there, and is not.
    pub missing: BTreeSet<DiskId>,
    /// Machines of which an older copy is there, or another one, and not the one that they had last.
    pub older: BTreeSet<DiskId>,
    /// The image versions on which those that are there stand, as far as that can be read.
    pub stands_on: BTreeMap<DiskId, (ImageName, u32)>,
}

/// Which disks are in the folder `layers`, and which are missing of those that are noted beside `table` or are `known`
/// otherwise. Nothing is made or noted.
///
/// # Errors
/// The folder is not the one that it was, or can't be looked at.
pub fn kept_disks(table: &Path, layers: &Path, known: &[DiskId]) -> Result<KeptDisks, ExportError> {
    let File { disk: mut missing, last } = read(&file_of(table))?;
    missing.extend(known.iter().cloned());
    Place::new(table, layers).look()?;
    let there = Layers::look(layers)?;
    missing.retain(|disk| !there.contains(disk));
    let is_older = |disk: &DiskId| {
        let mut last = last.iter();
        let noted = last.find(|last| (&last.disk, last.mode) == (disk, LayerMode::Persistent));
        let found = Layers::look_at_use(layers, disk);
        noted
            .zip(found)
            .is_some_and(|(noted, (found, is_put_back))| !is_put_back && found.is_not(&noted.layer))
    };
    let older: BTreeSet<_> = there.iter().filter(|disk| is_older(disk)).cloned().collect();
    let parent = |disk: &DiskId| Some((disk.clone(), Layers::look_at_parent(layers, disk)?));
    let stands_on = there.iter().filter_map(parent).collect();
    Ok(KeptDisks { n_there: there.len() - older.len(), missing, older, stands_on })
}

fn file_of(table: &Path) -> PathBuf {
    table.with_file_name("kept-disks.toml")
}

fn read(path: &Path) -> Result<File, ExportError> {
    let Some(text) = read_text(path)? else { return Ok(File::default()) };
    toml::from_str(&text).map_err(|error: toml::de::Error| ExportError::Forgotten {
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
        let name = |text: &str| text.parse::<DiskId>().unwrap();
        let look = |known: &[DiskId]| kept_disks(&table, &layers, known);
        let of = |n_there, missing: &[&str]| KeptDisks {
            n_there,
            missing: missing.iter().map(|text| name(text)).collect(),
            older: BTreeSet::new(),
            stands_on: BTreeMap::new(),
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
        let name = |text: &str| text.parse::<DiskId>().unwrap();
        let kept = Kept::open(&table, [name("lab-01")]).unwrap();
        let last = |count| LastUse { id: "9215".into(), count, boot: 4 };
        for (disk, count) in [("lab-02", 0), ("lab-02", 1), ("lab-03", 0)] {
            kept.note(&name(disk), LayerMode::Persistent, last(count));
        }
        kept.note(&name("lab-04"), LayerMode::Discard, last(7));
        kept.keep();
        kept.forget(&name("lab-03")).unwrap();
        let again = Kept::open(&table, []).unwrap();
        assert_eq!(again.all(), [name("lab-01"), name("lab-02")].into());
        let noted = |disk: &str, mode| again.last(&name(disk), mode);
        assert_eq!(noted("lab-02", LayerMode::Persistent), Some(last(1)));
        assert_eq!(noted("lab-03", LayerMode::Persistent), None);
        assert_eq!(noted("lab-04", LayerMode::Discard), Some(last(7)), "it keeps no disk");
        // As an earlier Bootlace writes it.
        std::fs::write(folder.path().join("kept-disks.toml"), "machine = [\"lab-01\"]\n").unwrap();
        let earlier = Kept::open(&table, []).unwrap();
        assert_eq!(
            (earlier.all().len(), earlier.last(&name("lab-02"), LayerMode::Persistent)),
            (1, None)
        );
        std::fs::write(folder.path().join("kept-disks.toml"), "machine = 7").unwrap();
        let error = Kept::open(&table, []).err().unwrap().to_string();
        assert!(error.contains("kept-disks.toml") && error.contains("remove the file"), "{error}");
    }
}
