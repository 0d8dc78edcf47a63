//! Rows of API tokens.

use super::row::{parse, parse_optional};
use super::sessions::SecretHash;
use super::transaction::{Part, Transaction};
use model::{Right, RoomName, Rooms, UserName};
use rusqlite::{Row, params};
use std::collections::{BTreeSet, HashMap};

const TOKEN: &str = "SELECT t.hash, t.id, t.label, t.user, coalesce(r.scope, t.scope), t.created_unix, t.expires_unix, \
                     t.last_unix, r.token IS NULL FROM token t LEFT JOIN token_reach r ON r.token = t.id";

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
    /// The rooms with whose machines it works at most.
    pub rooms: Rooms,
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
        let mut rooms: HashMap<u64, BTreeSet<RoomName>> = HashMap::new();
        let mut query = self.sql().prepare_cached("SELECT token, room FROM token_room")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, parse(row, 1)?)))?;
        for row in rows {
            let (token, room) = row?;
            rooms.entry(token).or_default().insert(room);
        }
        let mut query = self.sql().prepare_cached(&format!("{TOKEN} ORDER BY t.id"))?;
        let tokens: rusqlite::Result<Vec<_>> = query.query_map([], token)?.collect();
        let mut tokens = tokens?;
        for (_, token) in &mut tokens {
            if let Rooms::These(these) = &mut token.rooms {
                *these = rooms.remove(&token.id).unwrap_or_default();
            }
        }
        Ok(tokens)
    }

    /// Adds a token; its number is given. Its rooms must be there.
    pub(crate) fn put_token(&self, hash: &SecretHash, token: &Token) -> rusqlite::Result<u64> {
        self.touch(Part::People);
        let is_bound = token.rooms != Rooms::All;
        // An older Bootlace would let it work with all machines.
        let scope = if is_bound { token.scope.min(Right::Read) } else { token.scope };
        let id = self.sql().query_row(
            "INSERT INTO token (hash, label, user, scope, created_unix, expires_unix) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
            params![
                hash,
                token.label,
                token.user.as_ref().map(UserName::as_str),
                scope.word(),
                token.created_unix,
                token.expires_unix
            ],
            |row| row.get(0),
        )?;
        if let Rooms::These(rooms) = &token.rooms {
            self.sql().execute(
                "INSERT INTO token_reach (token, scope) VALUES (?1, ?2)",
                params![id, token.scope.word()],
            )?;
            for room in rooms {
                let insert = "INSERT INTO token_room (token, room) VALUES (?1, ?2)";
                self.sql().execute(insert, params![id, room.as_str()])?;
            }
        }
        Ok(id)
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

/// Without its rooms.
fn token(row: &Row<'_>) -> rusqlite::Result<(SecretHash, Token)> {
    let token = Token {
        id: row.get(1)?,
        label: row.get(2)?,
        user: parse_optional(row, 3)?,
        scope: parse(row, 4)?,
        created_unix: row.get(5)?,
        expires_unix: row.get(6)?,
        last_unix: row.get(7)?,
        rooms: match row.get(8)? {
            true => Rooms::All,
            false => Rooms::These(BTreeSet::new()),
        },
    };
    Ok((row.get(0)?, token))
}
