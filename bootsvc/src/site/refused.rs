//! Why a command is not carried out, in words for who gave it.

use crate::paths::Paths;
use crate::privileges::GROUP;
use hyper::StatusCode;
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The site answers that it does not do what it was asked.
#[derive(Debug)]
pub(crate) struct Refused {
    /// As the API says it.
    pub(crate) status: StatusCode,
    detail: String,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail }
    }

    /// This user may not do it.
    pub(crate) fn forbidden(detail: &str) -> Self {
        forbidden(detail.to_owned())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Refused {}

/// The boot server's socket is not for this user.
pub(super) fn denied(socket: &Path) -> Refused {
    let me = user(geteuid());
    let Ok(about) = std::fs::metadata(socket) else {
        let folder = socket.parent().unwrap_or(socket).display();
        return forbidden(format!(
            "only root, the servers' user and a group may use {folder}: use sudo, or become a member of that group (sudo \
             usermod -aG {GROUP} {me}, and log in again, unless admin_group below [service] in bootlace.toml names \
             another one)"
        ));
    };
    if about.mode() & 0o060 != 0o060 {
        let owner = user(Uid::from_raw(about.uid()));
        let these =
            if about.uid() == 0 { "root".to_owned() } else { format!("root and the user {owner}") };
        return forbidden(format!(
            "only {these} may use the boot server: use sudo, or let a group use it: make the group {GROUP} (or that of \
             admin_group below [service] in bootlace.toml), restart the boot server, and make {me} a member of it"
        ));
    }
    let group = Group::from_gid(Gid::from_raw(about.gid())).ok().flatten();
    let is_listed = group.as_ref().is_some_and(|group| group.mem.contains(&me));
    let group = group.map_or_else(|| about.gid().to_string(), |group| group.name);
    forbidden(match is_listed {
        true => format!(
            "you have become a member of the group {group} after you logged in, and may use the boot server when you log \
             in again"
        ),
        false => format!(
            "you ({me}) are not a member of the group {group}, whose members may use the boot server: use sudo, or become \
             one (sudo usermod -aG {group} {me}, and log in again)"
        ),
    })
}

/// No boot server runs, and the state is not for this user.
pub(super) fn only_these(paths: &Paths, error: &anyhow::Error) -> Refused {
    let state = paths.state();
    let owner = std::fs::metadata(&state).ok().map(|about| about.uid()).filter(|uid| *uid != 0);
    let these = owner.map_or_else(
        || "root".to_owned(),
        |uid| format!("root and the user {}", user(Uid::from_raw(uid))),
    );
    forbidden(format!(
        "no boot server runs, and without one only {these} may use what is in {}: start it, or use sudo ({error:#})",
        state.display()
    ))
}

fn forbidden(detail: String) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, detail)
}

fn user(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
