//! Rows of accounts.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::{Role, UserName};
use rusqlite::{OptionalExtension as _, Row, params};

const COLUMNS: &str = "name, role, password, added_unix, password_unix";

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// By which its owner logs in.
    pub name: UserName,
    /// What it is for.
    pub role: Role,
    /// The password's hash, in the format of the Password Hashing Competition.
    #[serde(skip)]
    pub(crate) password: String,
    /// When it was added, seconds since 1970.
    pub added_unix: u64,
    /// When its password was set last.
    pub password_unix: u64,
}

impl Transaction<'_> {
    /// All accounts, by name.
    pub(crate) fn users(&self) -> rusqlite::Result<Vec<User>> {
        let query = format!("SELECT {COLUMNS} FROM user ORDER BY name");
        self.sql().prepare_cached(&query)?.query_map([], user)?.collect()
    }

    /// The account of this name.
    pub(crate) fn user(&self, name: &UserName) -> rusqlite::Result<Option<User>> {
        let query = format!("SELECT {COLUMNS} FROM user WHERE name = ?1");
        self.sql().prepare_cached(&query)?.query_row([name.as_str()], user).optional()
    }

    /// Adds an account, or changes the one of this name.
    pub(crate) fn put_user(&self, user: &User) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql()
            .prepare_cached(
                "INSERT INTO user (name, role, password, added_unix, password_unix) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (name) DO UPDATE SET role = excluded.role, password = excluded.password, \
                 password_unix = excluded.password_unix",
            )?
            .execute(params![
                user.name.as_str(),
                user.role.word(),
                user.password,
                user.added_unix,
                user.password_unix,
            ])
            .map(drop)
    }

    /// Removes an account with its sessions and tokens.
    pub(crate) fn delete_user(&self, name: &UserName) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql().execute("DELETE FROM user WHERE name = ?1", [name.as_str()]).map(drop)
    }

    /// How many accounts have this role.
    pub(crate) fn n_users_with(&self, role: Role) -> rusqlite::Result<u64> {
        let query = "SELECT count(*) FROM user WHERE role = ?1";
        self.sql().query_row(query, [role.word()], |row| row.get(0))
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: parse(row, 0)?,
        role: parse(row, 1)?,
        password: row.get(2)?,
        added_unix: row.get(3)?,
        password_unix: row.get(4)?,
    })
}
