//! Somebody who asks for something.

use crate::store::{AuditEntry, FieldChange};
use model::{Right, UserName};
use std::net::IpAddr;

/// Who asks, how, and what he may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub(super) user: Option<UserName>,
    pub(super) right: Right,
    pub(super) via: Via,
    pub(super) address: Option<IpAddr>,
}

/// How somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a command on the server, as somebody who may open its socket or its database.
    Command,
    /// By a browser in the session with this number.
    Session(u64),
    /// By the API token with this number.
    Token(u64),
}

impl Actor {
    /// Who runs a command on the server and may open its socket or its database may do everything: root, and those whom
    /// root has let in.
    pub const fn command() -> Self {
        Self { user: None, right: Right::Admin, via: Via::Command, address: None }
    }

    /// The account in whose name this is; `None`: root of this server.
    pub const fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// What he may do.
    pub const fn right(&self) -> Right {
        self.right
    }

    /// How he asks.
    pub const fn via(&self) -> Via {
        self.via
    }

    /// What people call him.
    pub fn name(&self) -> &str {
        self.user.as_ref().map_or("root", UserName::as_str)
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
                Via::Command => "command".to_owned(),
                Via::Session(_) => "page".to_owned(),
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
    /// `None` if nothing is otherwise than before.
    pub(crate) fn between(field: &str, old: Option<String>, new: Option<String>) -> Option<Self> {
        (old != new).then(|| Self { field: field.to_owned(), old, new })
    }
}
