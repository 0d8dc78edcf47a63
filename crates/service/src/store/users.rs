//! Rows of accounts.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use model::{Reach, Role, RoomName, Rooms, UserName};
use rusqlite::{OptionalExtension as _, Row, params};
use std::collections::{BTreeSet, HashMap};

const USER: &str = "SELECT u.name, u.role, u.password, u.added_unix, u.password_unix, r.is_teacher, r.all_rooms, r.hours \
                    FROM user u LEFT JOIN user_reach r ON r.user = u.name";

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct User {
    /// By which its owner logs in.
    pub name: UserName,
    /// What it is for.
    pub role: Role,
    /// With which machines he works as a teacher, and when.
    #[serde(flatten)]
    pub reach: Reach,
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
        let mut rooms: HashMap<UserName, BTreeSet<RoomName>> = HashMap::new();
        let mut query = self.sql().prepare_cached("SELECT user, room FROM user_room")?;
        let rows = query.query_map([], |row| Ok((parse(row, 0)?, parse(row, 1)?)))?;
        for row in rows {
            let (user, room) = row?;
            rooms.entry(user).or_default().insert(room);
        }
        let mut query = self.sql().prepare_cached(&format!("{USER} ORDER BY u.name"))?;
        let users: rusqlite::Result<Vec<User>> = query.query_map([], user)?.collect();
        let mut users = users?;
        for user in &mut users {
            if let Rooms::These(these) = &mut user.reach.rooms {
                *these = rooms.remove(&user.name).unwrap_or_default();
            }
        }
        Ok(users)
    }

    /// The account of this name.
    pub(crate) fn user(&self, name: &UserName) -> rusqlite::Result<Option<User>> {
        let mut query = self.sql().prepare_cached(&format!("{USER} WHERE u.name = ?1"))?;
        let Some(mut user) = query.query_row([name.as_str()], user).optional()? else {
            return Ok(None);
        };
        if let Rooms::These(these) = &mut user.reach.rooms {
            let query = "SELECT room FROM user_room WHERE user = ?1";
            let mut query = self.sql().prepare_cached(query)?;
            let rooms = query.query_map([name.as_str()], |row| parse(row, 0))?;
            *these = rooms.collect::<rusqlite::Result<_>>()?;
        }
        Ok(Some(user))
    }

    /// Adds an account, or changes the one of this name. The rooms of its reach must be there.
    pub(crate) fn put_user(&self, user: &User) -> rusqlite::Result<()> {
        self.touch(Part::People);
        let is_bound = user.reach != Reach::EVERYWHERE;
        let is_teacher = user.role == Role::Teacher;
        // An older Bootlace would let him work with all machines.
        let role = if is_bound && is_teacher { Role::Viewer } else { user.role };
        self.sql()
            .prepare_cached(
                "INSERT INTO user (name, role, password, added_unix, password_unix) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (name) DO UPDATE SET role = excluded.role, password = excluded.password, \
                 password_unix = excluded.password_unix",
            )?
            .execute(params![
                user.name.as_str(),
                role.word(),
                user.password,
                user.added_unix,
                user.password_unix,
            ])?;
        self.sql().execute("DELETE FROM user_reach WHERE user = ?1", [user.name.as_str()])?;
        if !is_bound {
            return Ok(());
        }
        let Reach { rooms, hours } = &user.reach;
        self.sql().execute(
            "INSERT INTO user_reach (user, is_teacher, all_rooms, hours) VALUES (?1, ?2, ?3, ?4)",
            params![
                user.name.as_str(),
                is_teacher,
                *rooms == Rooms::All,
                hours.as_ref().map(ToString::to_string)
            ],
        )?;
        if let Rooms::These(rooms) = rooms {
            let mut insert =
                self.sql().prepare_cached("INSERT INTO user_room (user, room) VALUES (?1, ?2)")?;
            for room in rooms {
                insert.execute([user.name.as_str(), room.as_str()])?;
            }
        }
        Ok(())
    }

    /// Removes an account with its sessions and tokens.
    pub(crate) fn delete_user(&self, name: &UserName) -> rusqlite::Result<()> {
        self.touch(Part::People);
        self.sql().execute("DELETE FROM user WHERE name = ?1", [name.as_str()]).map(drop)
    }

    /// How many administrators there are.
    pub(crate) fn n_admins(&self) -> rusqlite::Result<u64> {
        let query = "SELECT count(*) FROM user WHERE role = ?1";
        self.sql().query_row(query, [Role::Admin.word()], |row| row.get(0))
    }
}

/// Without its rooms.
fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let stored: Role = parse(row, 1)?;
    let is_teacher: Option<bool> = row.get(5)?;
    let role = match (stored, is_teacher) {
        (Role::Viewer, Some(true)) => Role::Teacher,
        (role, _) => role,
    };
    let all_rooms: Option<bool> = row.get(6)?;
    let rooms = match all_rooms {
        Some(false) => Rooms::These(BTreeSet::new()),
        Some(true) | None => Rooms::All,
    };
    Ok(User {
        name: parse(row, 0)?,
        role,
        reach: Reach { rooms, hours: parse_optional(row, 7)? },
        password: row.get(2)?,
        added_unix: row.get(3)?,
        password_unix: row.get(4)?,
    })
}
