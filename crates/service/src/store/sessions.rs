//! Rows of sessions: browsers that are logged in.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use model::UserName;
use rusqlite::{Row, params};

/// Sessions of one account at once. Who has more browsers than that has forgotten some: the one that was used longest ago
/// ends.
const SESSIONS_MAX: u32 = 32;

const COLUMNS: &str = "hash, id, user, created_unix, last_unix, address, browser";

/// The same and the groups, of those whom a directory knows.
const DIRECTORY_COLUMNS: &str = "hash, id, user, created_unix, last_unix, address, browser, groups";

/// What is stored of a secret that somebody else keeps: its BLAKE3.
pub(crate) type SecretHash = [u8; 32];

/// A browser that is logged in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Session {
    /// Its number, which is no secret.
    pub id: u64,
    /// Whose it is; `None`: it was begun by a link that root of this server got.
    pub user: Option<UserName>,
    /// Of somebody whom a directory knows, and who has no account here: the groups in which he was when it began, as the
    /// configuration called them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory_groups: Option<Vec<String>>,
    /// When it began, seconds since 1970.
    pub created_unix: u64,
    /// When it was used last, to the minute.
    pub last_unix: u64,
    /// From where it began.
    pub address: String,
    /// What the browser said it is, shortened.
    pub browser: String,
}

impl Transaction<'_> {
    /// All sessions, ended ones too, by the hash of their secret.
    pub(crate) fn sessions(&self) -> rusqlite::Result<Vec<(SecretHash, Session)>> {
        let query = format!("SELECT {COLUMNS} FROM session");
        let mut query = self.sql().prepare_cached(&query)?;
        let of_accounts = query.query_map([], session)?;
        let query = format!("SELECT {DIRECTORY_COLUMNS} FROM directory_session");
        let mut query = self.sql().prepare_cached(&query)?;
        let of_directory = query.query_map([], directory_session)?;
        of_accounts.chain(of_directory).collect()
    }

    /// Begins a session; its number is given. Those that ended before `ended_unix` by lack of use, or began before
    /// `begun_unix`, are forgotten.
    pub(crate) fn put_session(
        &self,
        hash: &SecretHash,
        session: &Session,
        (ended_unix, begun_unix): (u64, u64),
    ) -> rusqlite::Result<u64> {
        self.touch(Part::People);
        for table in ["session", "directory_session"] {
            let query = format!("DELETE FROM {table} WHERE last_unix < ?1 OR created_unix < ?2");
            self.sql().prepare_cached(&query)?.execute([ended_unix, begun_unix])?;
        }
        if let (Some(user), Some(groups)) = (&session.user, &session.directory_groups) {
            return self.put_directory_session(hash, session, user, groups);
        }
        let user = session.user.as_ref().map(UserName::as_str);
        let id = self
            .sql()
            .prepare_cached(
                "INSERT INTO session (hash, user, created_unix, last_unix, address, browser) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
            )?
            .query_row(
                params![
                    hash,
                    user,
                    session.created_unix,
                    session.last_unix,
                    session.address,
                    session.browser
                ],
                |row| row.get(0),
            )?;
        self.sql()
            .prepare_cached(
                "DELETE FROM session WHERE user IS ?1 AND id NOT IN \
                 (SELECT id FROM session WHERE user IS ?1 ORDER BY last_unix DESC, id DESC LIMIT ?2)",
            )?
            .execute(params![user, SESSIONS_MAX])?;
        Ok(id)
    }

    fn put_directory_session(
        &self,
        hash: &SecretHash,
        session: &Session,
        user: &UserName,
        groups: &[String],
    ) -> rusqlite::Result<u64> {
        // A number that no other session gets, in an older release either.
        let id: u64 = self
            .sql()
            .prepare_cached(
                "INSERT INTO session (hash, created_unix, last_unix, address, browser) \
                 VALUES (?1, 0, 0, '', '') RETURNING id",
            )?
            .query_row([hash], |row| row.get(0))?;
        self.sql().prepare_cached("DELETE FROM session WHERE id = ?1")?.execute([id])?;
        self.sql()
            .prepare_cached(
                "INSERT INTO directory_session (id, hash, user, groups, created_unix, last_unix, address, browser) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                hash,
                user.as_str(),
                serde_json::Value::from(groups).to_string(),
                session.created_unix,
                session.last_unix,
                session.address,
                session.browser
            ])?;
        self.sql()
            .prepare_cached(
                "DELETE FROM directory_session WHERE user = ?1 AND id NOT IN (SELECT id FROM directory_session \
                 WHERE user = ?1 ORDER BY last_unix DESC, id DESC LIMIT ?2)",
            )?
            .execute(params![user.as_str(), SESSIONS_MAX])?;
        Ok(id)
    }

    /// A session is being used.
    pub(crate) fn note_session(&self, id: u64, now_unix: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        for table in ["session", "directory_session"] {
            let query = format!("UPDATE {table} SET last_unix = ?2 WHERE id = ?1");
            self.sql().prepare_cached(&query)?.execute([id, now_unix])?;
        }
        Ok(())
    }

    /// Ends a session.
    pub(crate) fn delete_session(&self, id: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        for table in ["session", "directory_session"] {
            self.sql().execute(&format!("DELETE FROM {table} WHERE id = ?1"), [id])?;
        }
        Ok(())
    }

    /// Ends all sessions of an account but one. Returns how many there were.
    pub(crate) fn delete_sessions(
        &self,
        user: &UserName,
        but: Option<u64>,
    ) -> rusqlite::Result<usize> {
        self.touch(Part::People);
        let query = "DELETE FROM session WHERE user = ?1 AND id IS NOT ?2";
        self.sql().execute(query, params![user.as_str(), but])
    }
}

fn session(row: &Row<'_>) -> rusqlite::Result<(SecretHash, Session)> {
    let session = Session {
        id: row.get(1)?,
        user: parse_optional(row, 2)?,
        directory_groups: None,
        created_unix: row.get(3)?,
        last_unix: row.get(4)?,
        address: row.get(5)?,
        browser: row.get(6)?,
    };
    Ok((row.get(0)?, session))
}

fn directory_session(row: &Row<'_>) -> rusqlite::Result<(SecretHash, Session)> {
    let (hash, of_account) = session(row)?;
    let user = Some(parse(row, 2)?);
    let groups: String = row.get(7)?;
    // One that can't be read lets nobody in.
    let directory_groups = Some(serde_json::from_str(&groups).unwrap_or_default());
    Ok((hash, Session { user, directory_groups, ..of_account }))
}
