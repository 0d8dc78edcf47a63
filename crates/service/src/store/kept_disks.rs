//! Machines that have kept a disk at the storage server: if it is gone there, they get no new one instead.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::MachineName;

impl Transaction<'_> {
    pub(crate) fn kept_disks(&self) -> rusqlite::Result<Vec<MachineName>> {
        self.sql()
            .prepare_cached("SELECT machine FROM kept_disk")?
            .query_map([], |row| parse(row, 0))?
            .collect()
    }

    /// The storage server has a disk of its own of this machine, if it is one.
    pub(crate) fn note_kept_disk(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute(
            "INSERT OR IGNORE INTO kept_disk (machine) SELECT name FROM machine WHERE name = ?1",
            [machine.as_str()],
        )?;
        self.touch(Part::KeptDisks);
        Ok(())
    }

    /// The machine's disk was thrown away.
    pub(super) fn forget_kept_disk(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM kept_disk WHERE machine = ?1", [machine.as_str()])?;
        self.touch(Part::KeptDisks);
        Ok(())
    }
}
