//! Whose rights the servers have.

use crate::paths::Paths;
use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user of the servers, unless the configuration names another one.
const USER: &str = "bootlace";

/// A user who owns the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// `None` if he stands in no list of users, as in a container.
    pub(super) user: Option<String>,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Account {
    fn named(name: &str) -> anyhow::Result<Option<Self>> {
        let found =
            User::from_name(name).with_context(|| format!("can't look for the user {name}"))?;
        Ok(found.map(|user| Self { user: Some(user.name), uid: user.uid, gid: user.gid }))
    }

    /// Who owns the folder; `None` if there is no such folder.
    pub(super) fn owning(folder: &Path) -> anyhow::Result<Option<Self>> {
        match std::fs::metadata(folder) {
            Ok(about) => Ok(Some(Self::of(about.uid(), about.gid()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't look at {}", folder.display())),
        }
    }

    /// Who this process is.
    pub(super) fn ours() -> Self {
        Self::of(geteuid().as_raw(), getegid().as_raw())
    }

    fn of(uid: u32, gid: u32) -> Self {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        // Who is in no list has a number.
        let user = User::from_uid(uid).ok().flatten();
        Self { user: user.map(|user| user.name), uid, gid }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid.is_root()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.uid),
        }
    }
}

/// Who the servers are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// We were not started as root, and stay what we are.
    Unprivileged,
    /// Root, since the configuration says so.
    Root,
    /// Root, since nothing names another user and there is no user `bootlace`.
    Missing,
    /// This user.
    Account(Account),
}

impl Who {
    /// By this order: whom the configuration names; the owner of the folder of `--root`; the user `bootlace`.
    ///
    /// # Errors
    /// The configuration names a user who does not exist.
    pub(super) fn of_servers(paths: &Paths, configured: Option<&str>) -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::Unprivileged);
        }
        if let Some(name) = configured {
            let Some(account) = Account::named(name)? else {
                bail!(
                    "[service] user names {name:?}, and there is no such user: create it, or name another one"
                );
            };
            return Ok(if account.is_root() { Self::Root } else { Self::Account(account) });
        }
        if paths.root != Path::new("/")
            && let Some(owner) = Account::owning(&paths.root)?
            && !owner.is_root()
        {
            return Ok(Self::Account(owner));
        }
        Ok(Account::named(USER)?.map_or(Self::Missing, Self::Account))
    }
}
