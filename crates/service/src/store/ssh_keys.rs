//! Rows of the SSH host keys that belong to machines.

use super::transaction::Transaction;
use model::MachineName;
use rusqlite::OptionalExtension as _;

impl Transaction<'_> {
    /// The machine's private and public host key, as it has them in its files.
    pub(crate) fn ssh_host_key(
        &self,
        machine: &MachineName,
    ) -> rusqlite::Result<Option<(String, String)>> {
        self.sql()
            .prepare_cached("SELECT private, public FROM ssh_host_key WHERE machine = ?1")?
            .query_row([machine.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// Keeps a new key, unless the machine has one: whoever was first, since GRUB may ask twice. Returns
    /// the machine's key.
    pub(crate) fn keep_ssh_host_key(
        &self,
        machine: &MachineName,
        private: &str,
        public: &str,
    ) -> rusqlite::Result<(String, String)> {
        self.sql().query_row(
            "INSERT INTO ssh_host_key VALUES (?1, ?2, ?3) \
             ON CONFLICT (machine) DO UPDATE SET machine = machine RETURNING private, public",
            [machine.as_str(), private, public],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }
}
