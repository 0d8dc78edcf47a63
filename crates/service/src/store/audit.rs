//! Rows of the audit log: who has changed what. They are added, and neither changed nor removed.

use super::transaction::Transaction;
use rusqlite::{Row, params};

/// What somebody has changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuditEntry {
    /// Its number; later ones have larger numbers.
    pub id: u64,
    /// When, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Who: the name of an account, or `root` for commands on the server.
    pub who: String,
    /// How: `page`, `token NUMBER`, or `command`.
    pub via: String,
    /// From which address; `None`: on the server itself.
    pub address: Option<String>,
    /// What was done, like `machine.set`.
    pub action: String,
    /// To whom or what.
    pub subject: String,
    /// What is otherwise than before. Never a secret.
    pub changes: Vec<FieldChange>,
}

/// One setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// What it was; `None`: there was none.
    pub old: Option<String>,
    /// What it is; `None`: there is none.
    pub new: Option<String>,
}

const COLUMNS: &str = "id, at_unix_ms, who, via, address, action, subject, changes";

impl Transaction<'_> {
    /// Adds an entry; its number is given.
    pub(crate) fn put_audit(&self, entry: &AuditEntry) -> rusqlite::Result<()> {
        let changes = serde_json::to_string(&entry.changes)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.sql()
            .prepare_cached(
                "INSERT INTO audit (at_unix_ms, who, via, address, action, subject, changes) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                entry.at_unix_ms,
                entry.who,
                entry.via,
                entry.address,
                entry.action,
                entry.subject,
                changes
            ])
            .map(drop)
    }

    /// At most `n_entries` with numbers below `before`, the last first; only those about `subject`, if one is named.
    pub(crate) fn audit(
        &self,
        before: Option<u64>,
        subject: Option<&str>,
        n_entries: u32,
    ) -> rusqlite::Result<Vec<AuditEntry>> {
        let query = format!(
            "SELECT {COLUMNS} FROM audit WHERE id < coalesce(?1, 9223372036854775807) \
             AND (?2 IS NULL OR subject = ?2) ORDER BY id DESC LIMIT ?3"
        );
        self.sql()
            .prepare_cached(&query)?
            .query_map(params![before, subject, n_entries], entry)?
            .collect()
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let changes: String = row.get(7)?;
    Ok(AuditEntry {
        id: row.get(0)?,
        at_unix_ms: row.get(1)?,
        who: row.get(2)?,
        via: row.get(3)?,
        address: row.get(4)?,
        action: row.get(5)?,
        subject: row.get(6)?,
        // Another Bootlace may write more than this one reads.
        changes: serde_json::from_str(&changes).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use crate::store::schema;

    #[test]
    fn entries_are_neither_changed_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = schema::open(&folder.path().join("state.db")).unwrap();
        let insert = "INSERT INTO audit (at_unix_ms, who, via, action, subject, changes) \
                      VALUES (1, 'anna', 'page', 'login', 'anna', '[]')";
        connection.execute(insert, []).unwrap();
        for sql in ["UPDATE audit SET who = 'bert'", "DELETE FROM audit"] {
            let error = connection.execute(sql, []).unwrap_err().to_string();
            assert!(error.contains("only added to"), "{error}");
        }
        let n: u64 =
            connection.query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap();
        assert_eq!(n, 1);
    }
}
