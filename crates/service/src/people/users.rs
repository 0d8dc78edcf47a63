//! Accounts.

use super::actor::Via;
use super::rights::{AccountKeeper, AccountOwner, Admin};
use crate::error::Error;
use crate::error::RoomError;
use crate::passwords;
use crate::service::Service;
use crate::store::{ChangeError, FieldChange, Transaction, User};
use model::{Hours, Reach, Role, Rooms, UserName};

/// Accounts of a site.
const USERS_MAX: usize = 1000;

/// What the audit log calls those who have no account.
const RESERVED: [&str; 2] = ["root", "nobody"];

/// Whether the audit log calls others so.
pub fn is_reserved(name: &UserName) -> bool {
    RESERVED.contains(&name.as_str())
}

impl Service {
    /// Whether somebody may log in who may change everything.
    pub fn has_admin(&self) -> bool {
        self.view().people.users.values().any(|user| user.role == Role::Admin)
    }

    /// Whether anybody can log in: there is any account, or a directory that knows some.
    pub fn has_account(&self) -> bool {
        !self.view().people.users.is_empty() || self.options().directory.is_some()
    }
}

impl Admin {
    /// All accounts, by name.
    pub fn users(&self) -> Vec<User> {
        self.service().view().people.users.values().cloned().collect()
    }
}

impl AccountKeeper {
    /// Adds an account. As a teacher it works with all machines.
    ///
    /// # Errors
    /// The name is in use or means somebody else, the password too weak, or the database can't be written.
    pub async fn add_user(
        &self,
        name: UserName,
        role: Role,
        password: String,
    ) -> Result<User, Error> {
        self.add_user_within(name, role, Reach::EVERYWHERE, password).await
    }

    /// Adds an account; of a teacher `reach` says with which machines he works, and when.
    ///
    /// # Errors
    /// As [`Self::add_user`]; and there is no such room, or limits for who is no teacher.
    pub async fn add_user_within(
        &self,
        name: UserName,
        role: Role,
        reach: Reach,
        password: String,
    ) -> Result<User, Error> {
        if role != Role::Teacher && reach != Reach::EVERYWHERE {
            return Err(Error::NoTeacher { user: name, role });
        }
        if is_reserved(&name) {
            return Err(Error::UserReserved(name));
        }
        passwords::check(&password, &name)?;
        let password = self.service().passwords().hash(password).await?;
        let now = self.service().now();
        let (added_unix, password_unix) = (now.unix(), now.unix());
        let changes = FieldChange::between("role", None, Some(role.to_string()));
        let changes = changes.into_iter().chain(reach_changes(&Reach::EVERYWHERE, &reach));
        let changes = changes.collect();
        let user = User { name, role, reach, password, added_unix, password_unix };
        let entry = self.actor().does("user.add", &user.name, changes, now.unix_ms);
        let added = user.clone();
        let written = self.service().database().write(move |tables| {
            if tables.user(&user.name)?.is_some() {
                return Err(Error::UserTaken(user.name).into());
            }
            if tables.users()?.len() >= USERS_MAX {
                return Err(Error::TooManyUsers.into());
            }
            check_rooms(tables, &user.reach.rooms)?;
            tables.put_user(&user)?;
            tables.put_audit(&entry)?;
            Ok(())
        });
        written.await?;
        tracing::info!(account = %added.name, %role, rooms = %added.reach.rooms, "account added");
        Ok(added)
    }

    /// Gives an account another role, with effect at once.
    ///
    /// # Errors
    /// There is no such account, it is the last administrator's, or the database can't be written.
    pub async fn set_role(&self, name: UserName, role: Role) -> Result<User, Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.service().now().unix_ms);
        let written = self.service().database().write(move |tables| {
            let mut user = tables.user(&name)?.ok_or(Error::NoUser(name))?;
            if user.role == Role::Admin && role != Role::Admin {
                keep_an_admin(tables.n_admins()?, &user.name)?;
            }
            let (old, new) = (user.role.to_string(), role.to_string());
            let change = FieldChange::between("role", Some(old), Some(new));
            user.role = role;
            tables.put_user(&user)?;
            let changes = change.into_iter().collect();
            tables.put_audit(&actor.does("user.role", &user.name, changes, now_unix_ms))?;
            Ok(user)
        });
        written.await
    }

    /// Says with which machines an account works as a teacher, and when, with effect at once; `None` leaves it as it is.
    ///
    /// # Errors
    /// There is no such account or room, or the database can't be written.
    pub async fn set_reach(
        &self,
        name: UserName,
        rooms: Option<Rooms>,
        hours: Option<Option<Hours>>,
    ) -> Result<User, Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.service().now().unix_ms);
        let written = self.service().database().write(move |tables| {
            let mut user = tables.user(&name)?.ok_or(Error::NoUser(name))?;
            let former = user.reach.clone();
            if let Some(rooms) = rooms {
                check_rooms(tables, &rooms)?;
                user.reach.rooms = rooms;
            }
            user.reach.hours = hours.unwrap_or(user.reach.hours);
            let changes: Vec<FieldChange> = reach_changes(&former, &user.reach).collect();
            tables.put_user(&user)?;
            if !changes.is_empty() {
                tables.put_audit(&actor.does("user.reach", &user.name, changes, now_unix_ms))?;
            }
            Ok(user)
        });
        written.await
    }

    /// Gives an account another password, and ends its sessions.
    ///
    /// # Errors
    /// There is no such account, it is his own in whose session he asks, the password is too weak, or the database can't be
    /// written.
    pub async fn set_password(&self, name: UserName, password: String) -> Result<(), Error> {
        if matches!(self.actor().via(), Via::Session(_)) && self.actor().user() == Some(&name) {
            return Err(Error::OwnPassword);
        }
        passwords::check(&password, &name)?;
        if !self.service().view().people.users.contains_key(&name) {
            return Err(Error::NoUser(name));
        }
        let password = self.service().passwords().hash(password).await?;
        let now = self.service().now();
        let entry = self.actor().does("user.password", &name, Vec::new(), now.unix_ms);
        let written = self.service().database().write(move |tables| {
            let user = tables.user(&name)?.ok_or(Error::NoUser(name))?;
            tables.put_user(&User { password, password_unix: now.unix(), ..user.clone() })?;
            tables.delete_sessions(&user.name, None)?;
            tables.put_audit(&entry)?;
            Ok(())
        });
        written.await
    }

    /// Removes an account; its sessions end, and its tokens are void at once.
    ///
    /// # Errors
    /// There is no such account, it is the last administrator's, or the database can't be written.
    pub async fn remove_user(&self, name: UserName) -> Result<(), Error> {
        let (actor, now_unix_ms) = (self.shared_actor(), self.service().now().unix_ms);
        let written = self.service().database().write(move |tables| {
            let user = tables.user(&name)?.ok_or(Error::NoUser(name))?;
            if user.role == Role::Admin {
                keep_an_admin(tables.n_admins()?, &user.name)?;
            }
            tables.delete_user(&user.name)?;
            let change = FieldChange::between("role", Some(user.role.to_string()), None);
            let changes = change.into_iter().collect();
            tables.put_audit(&actor.does("user.remove", &user.name, changes, now_unix_ms))?;
            Ok(())
        });
        written.await
    }
}

/// What is otherwise now.
fn reach_changes(old: &Reach, new: &Reach) -> impl Iterator<Item = FieldChange> {
    let rooms = |reach: &Reach| Some(reach.rooms.to_string());
    let hours = |reach: &Reach| reach.hours.as_ref().map(Hours::to_string);
    let rooms = FieldChange::between("rooms", rooms(old), rooms(new));
    rooms.into_iter().chain(FieldChange::between("hours", hours(old), hours(new)))
}

/// Whether all of them are there.
pub(super) fn check_rooms(tables: &Transaction<'_>, rooms: &Rooms) -> Result<(), ChangeError> {
    let Rooms::These(rooms) = rooms else { return Ok(()) };
    for name in rooms {
        if tables.room(name)?.is_none() {
            return Err(Error::from(RoomError::NoRoomToBeIn(name.clone())).into());
        }
    }
    Ok(())
}

fn keep_an_admin(n_admins: u64, name: &UserName) -> Result<(), Error> {
    if n_admins > 1 { Ok(()) } else { Err(Error::LastAdmin(name.clone())) }
}

impl AccountOwner {
    /// His account.
    ///
    /// # Errors
    /// It was removed just now.
    pub fn account(&self) -> Result<User, Error> {
        let view = self.service().view();
        view.people
            .users
            .get(self.user())
            .cloned()
            .ok_or_else(|| Error::NoUser(self.user().clone()))
    }

    /// Changes his password, and ends his other sessions.
    ///
    /// # Errors
    /// The former one is wrong, or was so too often; the new one is too weak; or the database can't be written.
    pub async fn change_password(&self, former: String, new: String) -> Result<(), Error> {
        passwords::check(&new, self.user())?;
        let address = self.actor().address;
        let service = self.service();
        let user = service.prove_password(Some(self.user()), former, address).await?;
        let password = service.passwords().hash(new).await?;
        let now = service.now();
        let entry = self.actor().does("user.password", &user.name, Vec::new(), now.unix_ms);
        let session = self.session();
        let written = service.database().write(move |tables| {
            let user = tables.user(&user.name)?.ok_or(Error::NoUser(user.name))?;
            tables.put_user(&User { password, password_unix: now.unix(), ..user.clone() })?;
            tables.delete_sessions(&user.name, Some(session))?;
            tables.put_audit(&entry)?;
            Ok(())
        });
        written.await
    }
}
