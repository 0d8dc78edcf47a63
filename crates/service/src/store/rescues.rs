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

    /// This boot of the machine is the one that stops, if a shell is wanted.
    pub(super) fn bind_rescue(&self, machine: &MachineName, boot: BootId) -> rusqlite::Result<()> {
        let mut taken = self
            .sql()
            .prepare_cached("DELETE FROM rescue_wanted WHERE machine = ?1 RETURNING password")?;
        let password: Option<String> =
            taken.query_row([machine.as_str()], |row| row.get(0)).optional()?;
        let Some(password) = password else { return Ok(()) };
        self.touch(Part::Rescues);
        let bind = "INSERT OR REPLACE INTO rescue VALUES (?1, ?2)";
        self.sql().execute(bind, params![boot, password]).map(drop)
    }

    /// Password of the shell that this boot stops in.
    pub(super) fn rescue_of(&self, boot: BootId) -> rusqlite::Result<Option<String>> {
        self.sql()
            .prepare_cached("SELECT password FROM rescue WHERE boot = ?1")?
            .query_row([boot], |row| row.get(0))
            .optional()
    }
}
