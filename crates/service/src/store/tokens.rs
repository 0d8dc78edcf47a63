//! Rows of API tokens.

use super::row::{parse, parse_optional};
use super::sessions::SecretHash;
use super::transaction::{Part, Transaction};
use model::{Right, UserName};
use rusqlite::{Row, params};

const COLUMNS: &str = "hash, id, label, user, scope, created_unix, expires_unix, last_unix";

/// A token by which a script uses the API.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Token {
    /// Its number, which is no secret.
    pub id: u64,
    /// What it is for, in somebody's words.
    pub label: String,
    /// Whose it is; `None`: root of this server made it.
    pub user: Option<UserName>,
    /// What it is good for at most. It never does more than its owner may.
    pub scope: Right,
    /// When it was made, seconds since 1970.
    pub created_unix: u64,
    /// From when on it is void; `None`: never.
    pub expires_unix: Option<u64>,
    /// When it was used last, to the minute; `None`: never.
    pub last_unix: Option<u64>,
}

impl Transaction<'_> {
    /// All tokens, void ones too, by the hash of their secret.
    pub(crate) fn tokens(&self) -> rusqlite::Result<Vec<(SecretHash, Token)>> {
        let query = format!("SELECT {COLUMNS} FROM token ORDER BY id");
        self.sql().prepare_cached(&query)?.query_map([], token)?.collect()
    }

    /// Adds a token; its number is given.
    pub(crate) fn put_token(&self, hash: &SecretHash, token: &Token) -> rusqlite::Result<u64> {
        self.touch(Part::People);
        self.sql().query_row(
            "INSERT INTO token (hash, label, user, scope, created_unix, expires_unix) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
            params![
                hash,
                token.label,
                token.user.as_ref().map(UserName::as_str),
                token.scope.word(),
                token.created_unix,
                token.expires_unix
            ],
            |row| row.get(0),
        )
    }

    /// A token is being used.
    pub(crate) fn note_token(&self, id: u64, now_unix: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql()
            .prepare_cached("UPDATE token SET last_unix = ?2 WHERE id = ?1")?
            .execute([id, now_unix])
            .map(drop)
    }

    /// A token is void whatever the time: it was, once.
    pub(crate) fn expire_token(&self, id: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql()
            .execute("UPDATE token SET expires_unix = created_unix WHERE id = ?1", [id])
            .map(drop)
    }

    /// Makes a token void.
    pub(crate) fn delete_token(&self, id: u64) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql().execute("DELETE FROM token WHERE id = ?1", [id]).map(drop)
    }
}

fn token(row: &Row<'_>) -> rusqlite::Result<(SecretHash, Token)> {
    let token = Token {
        id: row.get(1)?,
        label: row.get(2)?,
        user: parse_optional(row, 3)?,
        scope: parse(row, 4)?,
        created_unix: row.get(5)?,
        expires_unix: row.get(6)?,
        last_unix: row.get(7)?,
    };
    Ok((row.get(0)?, token))
}
