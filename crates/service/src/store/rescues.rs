//! Rows of rescue shells: of machines whose next boot stops in one, and of boots that do.

use super::transaction::{Part, Transaction};
use model::{BootId, MachineName};
use rusqlite::{OptionalExtension as _, params};
use std::collections::HashMap;

impl Transaction<'_> {
    /// Passwords of the shells that the next boots stop in, by the machine's name.
    pub(crate) fn rescues_wanted(&self) -> rusqlite::Result<HashMap<String, String>> {
        self.sql()
            .prepare_cached("SELECT machine, password FROM rescue_wanted")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }

    /// The machine's next boot stops in a shell. Returns its password: the former one if it was to stop already.
    pub(crate) fn want_rescue(
        &self,
        machine: &MachineName,
        password: &str,
    ) -> rusqlite::Result<String> {
        self.touch(Part::Rescues);
        self.sql().query_row(
            "INSERT INTO rescue_wanted VALUES (?1, ?2) \
             ON CONFLICT (machine) DO UPDATE SET machine = machine RETURNING password",
            [machine.as_str(), password],
            |row| row.get(0),
        )
    }

    /// The machine's next boot goes through after all.
    pub(crate) fn forget_rescue(&self, machine: &MachineName) -> rusqlite::Result<()> {
        self.touch(Part::Rescues);
        let query = "DELETE FROM rescue_wanted WHERE machine = ?1";
        self.sql().execute(query, [machine.as_str()]).map(drop)
    }

    /// This boot of the machine stops in a shell, if one is wanted. So do others until one of them is known to be the
    /// machine's: anybody can begin a boot in its name.
    pub(super) fn bind_rescue(&self, machine: &MachineName, boot: BootId) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO rescue SELECT ?2, password FROM rescue_wanted WHERE machine = ?1",
            )?
            .execute(params![machine.as_str(), boot])
            .map(drop)
    }

    /// This boot is the machine's: if it is one of those that stop in the shell that is wanted, later ones go through.
    pub(crate) fn note_rescue(&self, machine: &MachineName, boot: BootId) -> rusqlite::Result<()> {
        let n_rows = self
            .sql()
            .prepare_cached(
                "DELETE FROM rescue_wanted WHERE machine = ?1 AND password = \
                 (SELECT password FROM rescue WHERE boot = ?2)",
            )?
            .execute(params![machine.as_str(), boot])?;
        if n_rows > 0 {
            self.touch(Part::Rescues);
        }
        Ok(())
    }

    /// Password of the shell that this boot stops in.
    pub(super) fn rescue_of(&self, boot: BootId) -> rusqlite::Result<Option<String>> {
        self.sql()
            .prepare_cached("SELECT password FROM rescue WHERE boot = ?1")?
            .query_row([boot], |row| row.get(0))
            .optional()
    }
}
