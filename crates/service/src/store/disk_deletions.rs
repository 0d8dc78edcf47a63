//! Removed machines of which the storage server may still have a disk: nobody gets that, whatever his name.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::MachineName;

impl Transaction<'_> {
    /// The storage server is to delete what the machine ever wrote.
    pub(crate) fn want_disk_deletion(&self, machine: &MachineName) -> rusqlite::Result<()> {
        let insert = "INSERT OR IGNORE INTO disk_deletion (machine) VALUES (?1)";
        self.sql().execute(insert, [machine.as_str()])?;
        self.touch(Part::DiskDeletions);
        Ok(())
    }

    pub(super) fn disk_deletions(&self) -> rusqlite::Result<Vec<MachineName>> {
        self.sql()
            .prepare_cached("SELECT machine FROM disk_deletion")?
            .query_map([], |row| parse(row, 0))?
            .collect()
    }

    /// It has done so. A machine that has the name by now has no disk yet.
    pub(crate) fn note_disk_deletion(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM disk_deletion WHERE machine = ?1", [machine.as_str()])?;
        self.touch(Part::DiskDeletions);
        self.forget_kept_disk(machine)
    }
}
