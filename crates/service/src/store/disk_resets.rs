//! Boots that throw away what their machine wrote before, once they have its disk.

use super::transaction::{Part, Transaction};
use model::{BootId, MachineName};
use rusqlite::{OptionalExtension as _, params};

impl Transaction<'_> {
    /// The storage server is told to throw the machine's disk away when this boot gets it.
    pub(crate) fn want_disk_reset(&self, boot: BootId) -> rusqlite::Result<()> {
        self.sql().execute("INSERT OR IGNORE INTO disk_reset (boot) VALUES (?1)", [boot])?;
        self.touch(Part::DiskResets);
        Ok(())
    }

    /// Boots that throw their machine's disk away and have not got it yet, as far as is known.
    pub(super) fn disk_resets(&self) -> rusqlite::Result<Vec<BootId>> {
        self.sql()
            .prepare_cached("SELECT boot FROM disk_reset")?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    /// This boot has got the machine's disk, and it was thrown away before.
    pub(crate) fn note_disk_reset(
        &self,
        machine: &MachineName,
        boot: BootId,
    ) -> rusqlite::Result<()> {
        if self.sql().execute("DELETE FROM disk_reset WHERE boot = ?1", [boot])? > 0 {
            self.touch(Part::DiskResets);
            self.forget_kept_disk(machine)?;
            self.disk_was_reset(machine)?;
        }
        Ok(())
    }

    /// Which disk the machine's reset means; `None`: whichever it has.
    pub(crate) fn set_disk_reset_of(
        &self,
        machine: &MachineName,
        id: Option<&str>,
    ) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM disk_reset_of WHERE machine = ?1", [machine.as_str()])?;
        if let Some(id) = id {
            let insert = "INSERT INTO disk_reset_of (machine, id) VALUES (?1, ?2)";
            self.sql().execute(insert, params![machine.as_str(), id])?;
        }
        Ok(())
    }

    /// The disk that the machine's reset means, if it is known.
    pub(crate) fn disk_reset_of(&self, machine: &MachineName) -> rusqlite::Result<Option<String>> {
        self.sql()
            .prepare_cached("SELECT id FROM disk_reset_of WHERE machine = ?1")?
            .query_row([machine.as_str()], |row| row.get(0))
            .optional()
    }
}
