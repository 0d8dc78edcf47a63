//! Rows of sessions: browsers that are logged in.

use super::row::parse_optional;
use super::transaction::{Part, Transaction};
use model::UserName;
use rusqlite::{Row, params};

/// Sessions of one account at once. Who has more browsers than that has forgotten some: the one that was used longest ago
/// ends.
const SESSIONS_MAX: u32 = 32;

const COLUMNS: &str = "hash, id, user, created_unix, last_unix, address, browser";

/// What is stored of a secret that somebody else keeps: its BLAKE3.
pub(crate) type SecretHash = [u8; 32];

/// A browser that is logged in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Session {
    /// Its number, which is no secret.
    pub id: u64,
    /// Whose it is; `None`: it was begun by a link that root of this server got.
    pub user: Option<UserName>,
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
        self.sql().prepare_cached(&query)?.query_map([], session)?.collect()
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
        self.sql()
            .prepare_cached("DELETE FROM session WHERE last_unix < ?1 OR created_unix < ?2")?
            .execute([ended_unix, begun_unix])?;
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

    /// A session is being used.
    pub(crate) fn note_session(&self, id: u64, now_unix: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql()
            .prepare_cached("UPDATE session SET last_unix = ?2 WHERE id = ?1")?
            .execute([id, now_unix])
            .map(drop)
    }

    /// Ends a session.
    pub(crate) fn delete_session(&self, id: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql().execute("DELETE FROM session WHERE id = ?1", [id]).map(drop)
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
        created_unix: row.get(3)?,
        last_unix: row.get(4)?,
        address: row.get(5)?,
        browser: row.get(6)?,
    };
    Ok((row.get(0)?, session))
}
