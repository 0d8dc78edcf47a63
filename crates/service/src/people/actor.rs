//! Somebody who asks for something.

use crate::store::{AuditEntry, FieldChange};
use model::{Reach, Right, UserName};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Who asks, how, and what he may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub(super) user: Option<UserName>,
    pub(super) right: Right,
    /// With which machines he may work, and when. Who may change everything is bound by nothing.
    pub(super) reach: Reach,
    pub(super) via: Via,
    pub(super) address: Option<IpAddr>,
}

/// How somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a command on the server, as a user who may open its socket or its database: this one, by number.
    Command(u32),
    /// Without a proof, on the server itself.
    Watching,
    /// By a browser in the session with this number.
    Session(u64),
    /// By a browser in the session with this number, of somebody whom the directory knows, and who has no account here.
    Directory(u64),
    /// By the API token with this number.
    Token(u64),
}

impl Actor {
    /// Who runs a command on the server and may open its socket or its database may do everything: root, and those whom
    /// root has let in.
    pub const fn command(uid: u32) -> Self {
        Self {
            user: None,
            right: Right::Admin,
            reach: Reach::EVERYWHERE,
            via: Via::Command(uid),
            address: None,
        }
    }

    /// A program on the server that watches it, of whom nobody knows more.
    pub const fn watcher() -> Self {
        Self {
            user: None,
            right: Right::Read,
            reach: Reach::EVERYWHERE,
            via: Via::Watching,
            address: None,
        }
    }

    /// Whether he is logged in by an account of this server.
    pub const fn has_account(&self) -> bool {
        self.user.is_some() && !matches!(self.via, Via::Directory(_))
    }

    /// Whether he is logged in, and not a command or a script.
    pub const fn is_logged_in(&self) -> bool {
        matches!(self.via, Via::Session(_) | Via::Directory(_))
    }

    /// Who this is, by his account here or in the directory; `None`: root of this server.
    pub const fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// What he may do.
    pub const fn right(&self) -> Right {
        self.right
    }

    /// With which machines he may work, and when.
    pub const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Where he is, if he asks over the network.
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// How he asks.
    pub const fn via(&self) -> Via {
        self.via
    }

    /// What people call him.
    pub fn name(&self) -> &str {
        self.user.as_ref().map_or("root", UserName::as_str)
    }

    /// What has the limits that he has.
    pub(super) const fn by_what(&self) -> &'static str {
        match self.via {
            Via::Token(_) => "this token",
            Via::Command(_) | Via::Watching | Via::Session(_) | Via::Directory(_) => "this account",
        }
    }

    /// He does this now.
    pub(crate) fn does(
        &self,
        action: &str,
        subject: &(impl ToString + ?Sized),
        changes: Vec<FieldChange>,
        now_unix_ms: u64,
    ) -> AuditEntry {
        AuditEntry {
            id: 0,
            at_unix_ms: now_unix_ms,
            who: self.name().to_owned(),
            via: match self.via {
                Via::Command(0) => "command".to_owned(),
                Via::Command(uid) => format!("command of user {uid}"),
                Via::Watching => "watching".to_owned(),
                Via::Session(_) => "page".to_owned(),
                Via::Directory(_) => "page, by the directory".to_owned(),
                Via::Token(id) => format!("token {id}"),
            },
            address: self.address.map(|address| address.to_string()),
            action: action.to_owned(),
            subject: subject.to_string(),
            changes,
        }
    }
}

impl FieldChange {
    /// All fields by which two of a kind differ; one that is not there has none.
    pub(crate) fn all<T: serde::Serialize>(old: Option<&T>, new: Option<&T>) -> Vec<Self> {
        let fields = |one: Option<&T>| match one.map(serde_json::to_value) {
            Some(Ok(serde_json::Value::Object(fields))) => fields,
            _ => serde_json::Map::new(),
        };
        let (old, new) = (fields(old), fields(new));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        // Where there is nothing to compare with, a setting that is off says nothing.
        let is_off = |value: Option<&serde_json::Value>| value == Some(&false.into());
        let says = |name: &String| match (old.get(name), new.get(name)) {
            (None, one) | (one, None) => !is_off(one),
            _ => true,
        };
        let change =
            |name: &String| Self::between(name, words(old.get(name)), words(new.get(name)));
        names.into_iter().filter(|name| says(name)).filter_map(change).collect()
    }

    /// `None` if nothing is otherwise than before.
    pub(crate) fn between(field: &str, old: Option<String>, new: Option<String>) -> Option<Self> {
        (old != new).then(|| Self { field: field.to_owned(), old, new })
    }
}

/// A value as people read it; `None` if it says nothing.
fn words(value: Option<&serde_json::Value>) -> Option<String> {
    use serde_json::Value;
    match value? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => {
            let words: Vec<String> = list.iter().filter_map(|one| words(Some(one))).collect();
            Some(words.join(", "))
        }
        Value::Object(fields) => {
            let words = |(name, value)| words(Some(value)).map(|value| format!("{name} {value}"));
            let words: Vec<String> = fields.iter().filter_map(words).collect();
            (!words.is_empty()).then(|| words.join(", "))
        }
        other => Some(other.to_string()),
    }
}
