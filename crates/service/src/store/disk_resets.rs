//! Boots that throw away what their machine wrote before, once they have its disk.

use super::transaction::{Part, Transaction};
use model::{BootId, MachineName};

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
}
