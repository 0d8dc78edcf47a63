//! API tokens.

use super::rights::{AccountKeeper, AccountOwner, Admin, Viewer};
use super::secret::new_secret;
use super::users::check_rooms;
use crate::error::Error;
use crate::store::{FieldChange, Token};
use model::{Right, Rooms, UserName, does_something};

/// How tokens begin, so that they are known where they should not be.
const PREFIX: &str = "bl_";

/// Tokens at once. Each request that has one looks it up by its hash, so this is for people who read the list.
const TOKENS_MAX: usize = 256;

/// Longest label, in characters.
const LABEL_MAX: usize = 64;

/// A token that was made, and what it is: shown once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NewToken {
    /// What a script sends.
    pub secret: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub token: Token,
}

impl Viewer {
    async fn make_token(
        &self,
        label: String,
        user: Option<UserName>,
        scope: Right,
        rooms: Rooms,
        expires_unix: Option<u64>,
    ) -> Result<NewToken, Error> {
        let label = label.trim().to_owned();
        let is_shown = |letter: char| !does_something(letter);
        if label.is_empty() || label.chars().count() > LABEL_MAX || !label.chars().all(is_shown) {
            return Err(Error::BadLabel);
        }
        if scope > self.actor().right() {
            return Err(Error::NotAllowed { needed: scope });
        }
        if rooms != Rooms::All && scope != Right::Operate {
            return Err(Error::NoRoomsFor(scope));
        }
        let (secret, hash) = new_secret(PREFIX)?;
        let now = self.service().now();
        let created_unix = now.unix();
        let last_unix = None;
        let mut token =
            Token { id: 0, label, user, scope, rooms, created_unix, expires_unix, last_unix };
        let limit = Some(&token.rooms).filter(|rooms| **rooms != Rooms::All);
        let changes = [
            FieldChange::between("scope", None, Some(scope.to_string())),
            FieldChange::between("rooms", None, limit.map(Rooms::to_string)),
        ];
        let changes = changes.into_iter().flatten().collect();
        let entry = self.actor().does("token.add", &token.label, changes, now.unix_ms);
        let stored = token.clone();
        let written = self.service().database().write(move |tables| {
            if tables.tokens()?.len() >= TOKENS_MAX {
                return Err(Error::TooManyTokens.into());
            }
            check_rooms(tables, &stored.rooms)?;
            let id = tables.put_token(&hash, &stored)?;
            tables.put_audit(&entry)?;
            Ok(id)
        });
        token.id = written.await?;
        Ok(NewToken { secret, token })
    }

    fn tokens_of(&self, is_wanted: impl Fn(&Token) -> bool) -> Vec<Token> {
        let view = self.service().view();
        let mut tokens: Vec<Token> =
            view.people.tokens.values().filter(|it| is_wanted(it)).cloned().collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    async fn void(&self, token: Option<Token>, id: u64) -> Result<(), Error> {
        let token = token.ok_or(Error::NoToken(id))?;
        let now_unix_ms = self.service().now().unix_ms;
        let entry = self.actor().does("token.remove", &token.label, Vec::new(), now_unix_ms);
        let removed = self.service().database().write(move |tables| {
            tables.put_audit(&entry)?;
            Ok(tables.delete_token(id)?)
        });
        removed.await
    }
}

impl AccountOwner {
    /// His tokens, void ones too, the oldest first.
    pub fn tokens(&self) -> Vec<Token> {
        self.tokens_of(|token| token.user.as_ref() == Some(self.user()))
    }

    /// Makes a token that does what he may, within a scope.
    ///
    /// # Errors
    /// The scope is more than he may, there are too many tokens, or the database can't be written.
    pub async fn add_token(
        &self,
        label: String,
        scope: Right,
        expires_unix: Option<u64>,
    ) -> Result<NewToken, Error> {
        self.make_token(label, Some(self.user().clone()), scope, Rooms::All, expires_unix).await
    }

    /// Makes one of his tokens void at once.
    ///
    /// # Errors
    /// It is none of his, or the database can't be written.
    pub async fn remove_token(&self, id: u64) -> Result<(), Error> {
        self.void(self.tokens().into_iter().find(|token| token.id == id), id).await
    }
}

impl Admin {
    /// All tokens, void ones too, the oldest first.
    pub fn tokens(&self) -> Vec<Token> {
        self.tokens_of(|_| true)
    }
}

impl AccountKeeper {
    /// Makes a token: of his own account, or of root if he has none.
    ///
    /// # Errors
    /// There are too many tokens, or the database can't be written.
    pub async fn add_token(
        &self,
        label: String,
        scope: Right,
        expires_unix: Option<u64>,
    ) -> Result<NewToken, Error> {
        self.add_token_for(label, scope, Rooms::All, expires_unix).await
    }

    /// The same, of a token that works with machines of some rooms.
    ///
    /// # Errors
    /// As [`Self::add_token`]; there is no such room, or the scope is another one.
    pub async fn add_token_for(
        &self,
        label: String,
        scope: Right,
        rooms: Rooms,
        expires_unix: Option<u64>,
    ) -> Result<NewToken, Error> {
        self.make_token(label, self.actor().user().cloned(), scope, rooms, expires_unix).await
    }
}

impl Admin {
    /// Makes a token void at once.
    ///
    /// # Errors
    /// There is no such token, or the database can't be written.
    pub async fn remove_token(&self, id: u64) -> Result<(), Error> {
        self.void(self.tokens().into_iter().find(|token| token.id == id), id).await
    }
}
