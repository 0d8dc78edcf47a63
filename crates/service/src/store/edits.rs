//! Rows of images that are being changed on machines.

use super::transaction::{Part, Transaction};
use model::{Edit, MachineName};
use rusqlite::params;

impl Transaction<'_> {
    /// From its next boot on the machine changes an image.
    pub(crate) fn put_edit(&self, machine: &MachineName, edit: &Edit) -> rusqlite::Result<()> {
        let Edit { image, version, by, since_unix } = edit;
        self.sql().execute(
            "INSERT OR REPLACE INTO machine_edit VALUES (?1, ?2, ?3, ?4, ?5)",
            params![machine.as_str(), image.as_str(), version, by, since_unix],
        )?;
        self.touch(Part::Machines);
        Ok(())
    }

    /// It does so no more; whether it did.
    pub(crate) fn delete_edit(&self, machine: &MachineName) -> rusqlite::Result<bool> {
        let n_deleted = self
            .sql()
            .execute("DELETE FROM machine_edit WHERE machine = ?1", [machine.as_str()])?;
        self.touch(Part::Machines);
        Ok(n_deleted > 0)
    }
}
