//! Whether the folder of the layers is the one that it was: where its file system is not mounted, what machines write would
//! go to another disk, and be lost or in the way later.

use super::ExportError;
use super::file::{read_text, write_durably};
use crate::random_bytes;
use rustix::fs::statfs;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file in the folder by which it is known again.
const MARK: &str = ".layers-mark";

/// What stands in the note for a folder in memory, which is empty after each start of the host.
const IN_MEMORY: &str = "in memory";

/// `f_type` of file systems in memory (statfs(2)).
const MEMORY_MAGIC: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Where layers are, and what is noted about that beside the table.
pub(super) struct Place {
    dir: PathBuf,
    note: PathBuf,
    /// What the note says, once it was read or made.
    noted: Mutex<Option<String>>,
}

impl Place {
    pub(super) fn new(table: &Path, dir: &Path) -> Self {
        let note = table.with_file_name("layers.was-here");
        Self { dir: dir.to_owned(), note, noted: Mutex::default() }
    }

    /// Whether the folder is the one that it was. One of which nothing is noted is, if `may_be_it`.
    ///
    /// # Errors
    /// It is another one, or can't be looked at.
    pub(super) fn check(&self, may_be_it: impl FnOnce() -> bool) -> Result<(), ExportError> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let here = self.here()?;
        // A person removes the note to say that the folder is the right one.
        if noted.is_none() || *noted != here {
            *noted = read_text(&self.note)?.map(|text| text.trim().to_owned());
        }
        match (&*noted, here) {
            (Some(noted), Some(here)) if *noted == here => Ok(()),
            (Some(_), _) => Err(self.other()),
            (None, _) if !may_be_it() => Err(self.other()),
            (None, here) => {
                match self.note(here) {
                    Ok(text) => *noted = Some(text),
                    // Such as on a full disk: it is tried again.
                    Err(error) => {
                        tracing::warn!(%error, "where machines' layers are is not noted");
                    }
                }
                Ok(())
            }
        }
    }

    /// The same, without noting anything: a folder of which nothing is noted is it. What is missing is another one.
    ///
    /// # Errors
    /// It is another one, or can't be looked at.
    pub(super) fn look(&self) -> Result<(), ExportError> {
        let Some(noted) = read_text(&self.note)? else { return Ok(()) };
        let here = match self.here() {
            Err(ExportError::Table { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                None
            }
            here => here?,
        };
        if here.as_deref() == Some(noted.trim()) { Ok(()) } else { Err(self.other()) }
    }

    fn other(&self) -> ExportError {
        ExportError::OtherFolder { dir: self.dir.clone(), note: self.note.clone() }
    }

    /// What the folder says of itself; `None` if it says nothing.
    fn here(&self) -> Result<Option<String>, ExportError> {
        let failed = |source| ExportError::Table { action: "read", path: self.dir.clone(), source };
        let kind = statfs(&self.dir).map_err(|error| failed(error.into()))?.f_type;
        if MEMORY_MAGIC.contains(&kind) {
            return Ok(Some(IN_MEMORY.to_owned()));
        }
        // One of a start that ended in between is empty.
        let text = read_text(&self.dir.join(MARK))?.filter(|text| !text.trim().is_empty());
        Ok(text.map(|text| text.trim().to_owned()))
    }

    /// Notes the folder, and marks it first.
    fn note(&self, here: Option<String>) -> io::Result<String> {
        let text = match here {
            Some(text) => text,
            None => {
                let bytes = random_bytes().ok_or(io::ErrorKind::Other)?;
                let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let mut mark = File::create(self.dir.join(MARK))?;
                mark.write_all(text.as_bytes())?;
                mark.sync_all()?;
                File::open(&self.dir)?.sync_all()?;
                text
            }
        };
        write_durably(&self.note, text.as_bytes())?;
        Ok(text)
    }
}
