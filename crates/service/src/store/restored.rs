//! A database that is put back from a backup: what it does not go on with.

use super::audit::AuditEntry;
use super::row::parse;
use super::{damage, transaction::Transaction};
use crate::error::Error;
use model::MachineName;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// What came back with a database, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Accounts, with the passwords that they had.
    pub n_users: u64,
    /// Tokens for scripts, also those that were made void since.
    pub n_tokens: u64,
    /// Machines that were to get a new disk at their next boot, and keep theirs now.
    pub kept: Vec<MachineName>,
    /// Machines that were removed, and whose disks were still to be deleted.
    pub not_deleted: Vec<MachineName>,
}

/// Makes a database from a backup ready, which nobody uses: it is of another time, so that nobody is logged in, and orders
/// that would throw disks away are dropped, if they don't say which disk they mean: there may be others of these names by now. The entry goes into its audit log.
///
/// # Errors
/// It is damaged, or can't be written.
pub(crate) fn prepare_restored(path: &Path, entry: &AuditEntry) -> Result<Restored, Error> {
    let failed = damage::failed(path);
    let prepared = (|| {
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let transaction = connection.transaction()?;
        let restored = prepare(&transaction, entry)?;
        transaction.commit()?;
        // Its log is gone when it is closed.
        connection.close().map_err(|(_, error)| error)?;
        Ok(restored)
    })();
    prepared.map_err(failed)
}

fn prepare(connection: &Connection, entry: &AuditEntry) -> rusqlite::Result<Restored> {
    // Older releases do not have all of them.
    let has = |table: &str| connection.table_exists(None, table);
    let count = |table: &str| match has(table)? {
        true => {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        }
        false => Ok(0),
    };
    let names = |query: &str| -> rusqlite::Result<Vec<MachineName>> {
        connection.prepare(query)?.query_map([], |row| parse(row, 0))?.collect()
    };
    let mut restored =
        Restored { n_users: count("user")?, n_tokens: count("token")?, ..Restored::default() };
    // Orders that say which disk they mean go on: they hit no other one of that name.
    let unknown_reset = match has("disk_reset_of")? {
        true => "reset_disk AND name NOT IN (SELECT machine FROM disk_reset_of)",
        false => "reset_disk",
    };
    restored.kept =
        names(&format!("SELECT name FROM machine WHERE {unknown_reset} ORDER BY name"))?;
    connection
        .execute_batch(&format!("UPDATE machine SET reset_disk = 0 WHERE {unknown_reset}"))?;
    if has("disk_deletion")? {
        // Each of them says which disk is meant.
        let mut unknown = "TRUE".to_owned();
        for table in ["disk_deletion_of", "disk_deletion_owner"] {
            if has(table)? {
                connection.execute_batch(&format!("UPDATE {table} SET is_restored = 1"))?;
                unknown.push_str(&format!(" AND machine NOT IN (SELECT machine FROM {table})"));
            }
        }
        restored.not_deleted =
            names(&format!("SELECT machine FROM disk_deletion WHERE {unknown} ORDER BY machine"))?;
        connection.execute_batch(&format!("DELETE FROM disk_deletion WHERE {unknown}"))?;
    }
    for table in ["session", "directory_session", "disk_reset"] {
        if has(table)? {
            connection.execute_batch(&format!("DELETE FROM {table}"))?;
        }
    }
    if has("audit")? {
        Transaction::new(connection).put_audit(entry)?;
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    #[test]
    fn a_database_of_another_time_throws_nothing_away_and_nobody_is_logged_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = schema::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = OFF;
                 INSERT INTO machine (name, mac, root, write_mode, shelf_slot, kernel_args, reset_disk, added_unix) \
                 VALUES ('a', 'a', 'nbd', 'persistent', '1.0', '', 1, 0), ('b', 'b', 'nbd', 'discard', '1.1', '', 0, 0);
                 INSERT INTO disk_deletion VALUES ('c'), ('d'), ('e');
                 INSERT INTO disk_deletion_of VALUES ('d', 'x', 0);
                 INSERT INTO disk_deletion_owner VALUES ('e', randomblob(16), '02:00:00:00:00:01', 0);
                 INSERT INTO disk_reset VALUES (7);
                 INSERT INTO user VALUES ('anna', 'admin', 'x', 0, 0);
                 INSERT INTO session (hash, user, created_unix, last_unix, address, browser) \
                 VALUES (x'00', 'anna', 0, 0, '', '');
                 INSERT INTO token (hash, label, user, scope, created_unix) VALUES (x'01', 'x', 'anna', 'read', 0);",
            )
            .unwrap();
        drop(connection);
        let entry = AuditEntry {
            id: 0,
            at_unix_ms: 5,
            who: "root".to_owned(),
            via: "command".to_owned(),
            address: None,
            action: "restore".to_owned(),
            subject: "database".to_owned(),
            changes: Vec::new(),
        };
        let restored = prepare_restored(&path, &entry).unwrap();
        let name = |text: &str| vec![text.parse().unwrap()];
        let expected =
            Restored { n_users: 1, n_tokens: 1, kept: name("a"), not_deleted: name("c") };
        assert_eq!(restored, expected);
        assert!(
            !folder.path().join("state.db-wal").exists(),
            "it would be put in place without its log"
        );

        let connection = schema::open(&path).unwrap();
        let count = |what: &str| -> u64 {
            let query = format!("SELECT count(*) FROM {what}");
            connection.query_row(&query, [], |row| row.get(0)).unwrap()
        };
        for gone in [
            "session",
            "disk_reset",
            "disk_deletion WHERE machine = 'c'",
            "machine WHERE reset_disk",
        ] {
            assert_eq!(count(gone), 0, "{gone}");
        }
        for there in ["disk_deletion_of WHERE is_restored", "disk_deletion_owner WHERE is_restored"]
        {
            assert_eq!(count(there), 1, "{there}");
        }
        for there in ["user", "token", "audit WHERE action = 'restore' AND who = 'root'"] {
            assert_eq!(count(there), 1, "{there}");
        }
        drop(connection);
        let again = prepare_restored(&path, &entry).unwrap();
        assert_eq!((again.kept, again.not_deleted), (vec![], vec![]));

        // An older release had neither accounts nor these orders.
        let connection = schema::open(&path).unwrap();
        connection
            .execute_batch(
                "DROP TABLE session; DROP TABLE token; DROP TABLE user; DROP TABLE audit; \
                 DROP TABLE disk_reset; DROP TABLE disk_deletion_of; DROP TABLE disk_deletion_owner; DROP TABLE disk_deletion;",
            )
            .unwrap();
        drop(connection);
        assert_eq!(prepare_restored(&path, &entry).unwrap(), Restored::default());
    }
}
