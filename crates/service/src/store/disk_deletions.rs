//! Removed machines of which the storage server may still have a disk: nobody gets that, whatever his name.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::{DiskMeant, DiskOwner, MachineIdentity, MachineName};
use rusqlite::{OptionalExtension as _, Row, params};
use wire::Mac;

impl Transaction<'_> {
    /// The storage server is to delete what the machine, which is still there, ever wrote, and if it keeps a disk, the one with
    /// this identity, if that is known. To be [wanted](Self::want_disk_deletion) when the machine is gone.
    pub(crate) fn disk_meant(
        &self,
        machine: &MachineName,
        id: Option<String>,
    ) -> rusqlite::Result<DiskMeant> {
        let identity = self
            .sql()
            .prepare_cached("SELECT identity FROM machine_identity WHERE machine = ?1")?
            .query_row([machine.as_str()], |row| Ok(MachineIdentity::new(row.get(0)?)))
            .optional()?;
        let macs = self.machine(machine)?.map_or_else(Vec::new, |one| one.macs().collect());
        let owner = identity.map(|identity| DiskOwner { identity, macs });
        Ok(DiskMeant { id, owner, must_be_known: false })
    }

    /// The storage server is to delete what the machine, which was removed, ever wrote.
    pub(crate) fn want_disk_deletion(
        &self,
        machine: &MachineName,
        DiskMeant { id, owner, must_be_known }: &DiskMeant,
    ) -> rusqlite::Result<()> {
        let insert = "INSERT OR IGNORE INTO disk_deletion (machine) VALUES (?1)";
        let is_first = self.sql().execute(insert, [machine.as_str()])? > 0;
        // Until the first one is done, no other machine of that name gets a disk.
        if let Some(id) = id.as_ref().filter(|_| is_first) {
            let insert =
                "INSERT INTO disk_deletion_of (machine, id, is_restored) VALUES (?1, ?2, ?3)";
            self.sql().execute(insert, params![machine.as_str(), id, must_be_known])?;
        }
        if let Some(DiskOwner { identity, macs }) = owner.as_ref().filter(|_| is_first) {
            let macs: Vec<String> = macs.iter().map(Mac::to_string).collect();
            let insert = "INSERT INTO disk_deletion_owner (machine, identity, macs, is_restored) VALUES (?1, ?2, ?3, ?4)";
            let (identity, macs) = (identity.to_bytes(), macs.join(" "));
            self.sql().execute(insert, params![machine.as_str(), identity, macs, must_be_known])?;
        }
        self.touch(Part::DiskDeletions);
        Ok(())
    }

    pub(super) fn disk_deletions(&self) -> rusqlite::Result<Vec<(MachineName, DiskMeant)>> {
        let query = "SELECT disk_deletion.machine, id, identity, macs, \
                     coalesce(disk_deletion_of.is_restored, disk_deletion_owner.is_restored, 0) FROM disk_deletion \
                     LEFT JOIN disk_deletion_of USING (machine) LEFT JOIN disk_deletion_owner USING (machine)";
        let mut query = self.sql().prepare_cached(query)?;
        let rows = query.query_map([], |row| Ok((parse(row, 0)?, meant(row)?)))?;
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

/// What an earlier Bootlace has noted says nothing of the machine.
fn meant(row: &Row<'_>) -> rusqlite::Result<DiskMeant> {
    let identity: Option<[u8; 16]> = row.get(2)?;
    let owner = match identity {
        Some(identity) => {
            let macs: String = row.get(3)?;
            // None is put there that is no MAC.
            let macs = macs.split_whitespace().filter_map(|mac| mac.parse().ok()).collect();
            Some(DiskOwner { identity: MachineIdentity::new(identity), macs })
        }
        None => None,
    };
    Ok(DiskMeant { id: row.get(1)?, owner, must_be_known: row.get(4)? })
}
