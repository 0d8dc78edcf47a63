//! What tells a machine from others that have its name at another time.

use super::row::parse;
use super::transaction::Transaction;
use model::{MachineIdentity, MachineName};

/// Machines that have none yet: an older Bootlace has added them.
const WITHOUT: &str = "FROM machine WHERE name NOT IN (SELECT machine FROM machine_identity)";

impl Transaction<'_> {
    pub(super) fn machine_identities(
        &self,
    ) -> rusqlite::Result<Vec<(MachineName, MachineIdentity)>> {
        self.sql()
            .prepare_cached("SELECT machine, identity FROM machine_identity")?
            .query_map([], |row| Ok((parse(row, 0)?, MachineIdentity::new(row.get(1)?))))?
            .collect()
    }

    /// Gives a new machine an identity.
    pub(super) fn identify(&self, machine: &MachineName) -> rusqlite::Result<()> {
        let give = "INSERT OR IGNORE INTO machine_identity (machine, identity) VALUES (?1, randomblob(16))";
        self.sql().prepare_cached(give)?.execute([machine.as_str()])?;
        Ok(())
    }

    /// Gives each machine an identity that has none. If there is none without, nothing is written, and so no other program
    /// waited for.
    pub(super) fn identify_machines(&self) -> rusqlite::Result<()> {
        let is_any = format!("SELECT EXISTS (SELECT 1 {WITHOUT})");
        if self.sql().prepare_cached(&is_any)?.query_row([], |row| row.get(0))? {
            let give = format!(
                "INSERT OR IGNORE INTO machine_identity (machine, identity) SELECT name, randomblob(16) {WITHOUT}"
            );
            self.sql().prepare_cached(&give)?.execute([])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use std::collections::HashMap;

    #[test]
    fn a_machine_keeps_its_identity_and_another_one_of_its_name_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = schema::open(&path).unwrap();
        // As an older Bootlace does.
        let add = |name: &str, last: u8| {
            let add = "INSERT INTO machine (name, mac, root, write_mode, shelf_slot, kernel_args, reset_disk, added_unix) \
                       VALUES (?1, ?2, 'nbd', 'discard', ?1, '', 0, 0)";
            connection.execute(add, (name, format!("02:00:00:00:00:0{last}"))).unwrap();
        };
        let identities = || -> HashMap<MachineName, MachineIdentity> {
            let connection = schema::open(&path).unwrap();
            Transaction::new(&connection).machine_identities().unwrap().into_iter().collect()
        };
        add("a", 1);
        add("b", 2);
        let (a, b) = ("a".parse::<MachineName>().unwrap(), "b".parse::<MachineName>().unwrap());
        let first = identities();
        assert!(first.len() == 2 && first[&a] != first[&b], "{first:?}");
        connection
            .execute_batch("UPDATE machine SET mac = '02:00:00:00:00:03' WHERE name = 'a'")
            .unwrap();
        connection.execute_batch("DELETE FROM machine WHERE name = 'b'").unwrap();
        add("b", 2);
        let second = identities();
        assert_eq!(second[&a], first[&a]);
        assert_ne!(second[&b], first[&b]);
    }
}
