//! Sessions and tokens that are shown, and who has them.

use super::actor::{Actor, Via};
use super::rights::{AccountOwner, Admin};
use super::secret::hash;
use crate::error::Error;
use crate::service::Service;
use crate::store::{Session, Token, User};
use model::{Reach, Right, Role, UserName};
use std::net::IpAddr;
use std::time::Duration;

/// A session that was not used for so long has ended: nobody comes back to it the next morning.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(12 * 3600);

/// A session ends after this time, however it is used.
pub const SESSION_ENDS: Duration = Duration::from_secs(7 * 86_400);

/// That something is used is stored once in this time.
const NOTE_SECONDS: u64 = 60;

impl Session {
    /// Whether it has ended. A clock that was set back ends none.
    pub(crate) const fn has_ended(&self, now_unix: u64) -> bool {
        now_unix.saturating_sub(self.last_unix) > SESSION_IDLE_MAX.as_secs()
            || now_unix.saturating_sub(self.created_unix) > SESSION_ENDS.as_secs()
    }
}

impl Token {
    /// Whether it is void.
    pub fn has_expired(&self, now_unix: u64) -> bool {
        self.expires_unix.is_some_and(|expires| now_unix >= expires)
    }
}

impl User {
    /// What it may do, and how far that reaches.
    pub(super) fn limits(&self) -> (Right, Reach) {
        let reach = match self.role {
            Role::Teacher => self.reach.clone(),
            Role::Viewer | Role::Admin => Reach::EVERYWHERE,
        };
        (self.role.right(), reach)
    }
}

impl Service {
    /// Who has this secret of a session, if that goes on. Never waits.
    pub fn session_of(&self, secret: &str, address: Option<IpAddr>) -> Option<Actor> {
        self.session(secret, address, true)
    }

    /// The same for what a browser asks by itself: the session is not used by it, and ends in time.
    pub fn session_left_open(&self, secret: &str, address: Option<IpAddr>) -> Option<Actor> {
        self.session(secret, address, false)
    }

    fn session(&self, secret: &str, address: Option<IpAddr>, is_used: bool) -> Option<Actor> {
        let (view, now) = (self.view(), self.now().unix());
        let session = view.people.sessions.get(&hash(secret))?;
        if session.has_ended(now) {
            // Also for a clock that is set back.
            let id = session.id;
            drop(self.database().write(move |tables| Ok(tables.delete_session(id)?)));
            return None;
        }
        let (right, reach) = self.limits_of_session(session)?;
        let id = session.id;
        let via = match session.directory_groups {
            Some(_) => Via::Directory(id),
            None => Via::Session(id),
        };
        if is_used && now.saturating_sub(session.last_unix) >= NOTE_SECONDS {
            // If it can't be stored, the session ends earlier. Nobody waits for that.
            drop(self.database().write(move |tables| Ok(tables.note_session(id, now)?)));
        }
        Some(Actor { user: session.user.clone(), right, reach, via, address })
    }

    /// Who has this token, if it is good. Never waits.
    pub fn token_of(&self, secret: &str, address: Option<IpAddr>) -> Option<Actor> {
        let (view, now) = (self.view(), self.now().unix());
        let token = view.people.tokens.get(&hash(secret))?;
        if token.has_expired(now) {
            let id = token.id;
            if !token.has_expired(token.created_unix) {
                drop(self.database().write(move |tables| Ok(tables.expire_token(id)?)));
            }
            return None;
        }
        let (right, mut reach) = self.limits_of(token.user.as_ref())?;
        let right = token.scope.min(right);
        reach.rooms = reach.rooms.and(&token.rooms);
        let id = token.id;
        if token.last_unix.is_none_or(|last| now.saturating_sub(last) >= NOTE_SECONDS) {
            drop(self.database().write(move |tables| Ok(tables.note_token(id, now)?)));
        }
        Some(Actor { user: token.user.clone(), right, reach, via: Via::Token(id), address })
    }

    /// What an account may do, and how far that reaches; `None`: it is gone.
    pub(super) fn limits_of(&self, user: Option<&UserName>) -> Option<(Right, Reach)> {
        match user {
            None => Some((Right::Admin, Reach::EVERYWHERE)),
            Some(user) => self.view().people.users.get(user).map(User::limits),
        }
    }

    /// Sessions that go on, the last used first.
    fn sessions(&self, is_wanted: impl Fn(&Session) -> bool) -> Vec<Session> {
        let (view, now) = (self.view(), self.now().unix());
        let all = view.people.sessions.values();
        let goes_on = |it: &&Session| !it.has_ended(now) && self.limits_of_session(it).is_some();
        let mut sessions: Vec<Session> =
            all.filter(goes_on).filter(|it| is_wanted(it)).cloned().collect();
        sessions.sort_by_key(|session| (std::cmp::Reverse(session.last_unix), session.id));
        sessions
    }

    async fn end(&self, actor: &Actor, session: Session) -> Result<(), Error> {
        let whose = session.user.as_ref().map_or("root", UserName::as_str);
        let entry = actor.does("session.end", whose, Vec::new(), self.now().unix_ms);
        let ended = self.database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.delete_session(session.id)?)
        });
        ended.await
    }

    /// Ends the session in which somebody asks, if it is one.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn log_out(&self, actor: &Actor) -> Result<(), Error> {
        let (Via::Session(id) | Via::Directory(id)) = actor.via else { return Ok(()) };
        let entry = actor.does("logout", actor.name(), Vec::new(), self.now().unix_ms);
        let ended = self.database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.delete_session(id)?)
        });
        ended.await
    }
}

impl AccountOwner {
    /// His sessions that go on, the last used first.
    pub fn sessions(&self) -> Vec<Session> {
        self.service().sessions(|session| session.user.as_ref() == Some(self.user()))
    }

    /// Ends one of them at once.
    ///
    /// # Errors
    /// It is none of his, or the database can't be written.
    pub async fn end_session(&self, id: u64) -> Result<(), Error> {
        let session = self.sessions().into_iter().find(|session| session.id == id);
        self.service().end(self.actor(), session.ok_or(Error::NoSession(id))?).await
    }
}

impl Admin {
    /// All sessions that go on, the last used first.
    pub fn sessions(&self) -> Vec<Session> {
        self.service().sessions(|_| true)
    }

    /// Ends a session at once.
    ///
    /// # Errors
    /// There is no such session, or the database can't be written.
    pub async fn end_session(&self, id: u64) -> Result<(), Error> {
        let session = self.sessions().into_iter().find(|session| session.id == id);
        self.service().end(self.actor(), session.ok_or(Error::NoSession(id))?).await
    }
}
