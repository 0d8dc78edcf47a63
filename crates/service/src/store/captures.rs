//! Rows of what is captured of machines.

use super::transaction::{Part, Transaction};
use model::{Capture, MachineName};
use rusqlite::{Error, params};

impl Transaction<'_> {
    /// The machine's next boot is captured, or this is what is known of that now.
    pub(crate) fn put_capture(
        &self,
        machine: &MachineName,
        capture: &Capture,
    ) -> rusqlite::Result<()> {
        let text = serde_json::to_string(capture);
        let text = text.map_err(|error| Error::ToSqlConversionFailure(error.into()))?;
        let query = "INSERT OR REPLACE INTO machine_capture VALUES (?1, ?2)";
        self.sql().execute(query, params![machine.as_str(), text])?;
        self.touch(Part::Machines);
        Ok(())
    }

    /// It is no more.
    pub(crate) fn delete_capture(&self, machine: &MachineName) -> rusqlite::Result<()> {
        let query = "DELETE FROM machine_capture WHERE machine = ?1";
        self.sql().execute(query, [machine.as_str()])?;
        self.touch(Part::Machines);
        Ok(())
    }
}
