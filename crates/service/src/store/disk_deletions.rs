//! Removed machines of which the storage server may still have a disk: nobody gets that, whatever his name.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::MachineName;
use rusqlite::params;

/// Which disk a deletion means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeletionOf {
    /// The disk's random identity.
    pub(crate) id: String,
    /// The order came with a backup: since then another machine may have got the name.
    pub(crate) is_restored: bool,
}

impl Transaction<'_> {
    /// The storage server is to delete what the machine ever wrote, and if it keeps a disk, the one with this identity, if
    /// that is known.
    pub(crate) fn want_disk_deletion(
        &self,
        machine: &MachineName,
        id: Option<&str>,
    ) -> rusqlite::Result<()> {
        let insert = "INSERT OR IGNORE INTO disk_deletion (machine) VALUES (?1)";
        let is_first = self.sql().execute(insert, [machine.as_str()])? > 0;
        // Until the first one is done, no other machine of that name gets a disk.
        if let Some(id) = id.filter(|_| is_first) {
            let insert =
                "INSERT INTO disk_deletion_of (machine, id, is_restored) VALUES (?1, ?2, 0)";
            self.sql().execute(insert, params![machine.as_str(), id])?;
        }
        self.touch(Part::DiskDeletions);
        Ok(())
    }

    pub(super) fn disk_deletions(
        &self,
    ) -> rusqlite::Result<Vec<(MachineName, Option<DeletionOf>)>> {
        let query = "SELECT disk_deletion.machine, id, is_restored FROM disk_deletion LEFT JOIN disk_deletion_of USING (machine)";
        let mut query = self.sql().prepare_cached(query)?;
        let rows = query.query_map([], |row| {
            let of = match row.get(1)? {
                Some(id) => Some(DeletionOf { id, is_restored: row.get(2)? }),
                None => None,
            };
            Ok((parse(row, 0)?, of))
        })?;
        rows.collect()
    }

    /// It has done so. A machine that has the name by now has no disk yet.
    pub(crate) fn note_disk_deletion(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.forget_disk_deletion(machine)?;
        self.forget_kept_disk(machine)
    }

    /// There is nothing that it is to delete.
    pub(crate) fn forget_disk_deletion(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM disk_deletion WHERE machine = ?1", [machine.as_str()])?;
        self.touch(Part::DiskDeletions);
        Ok(())
    }
}
