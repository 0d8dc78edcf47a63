//! The group whose members may use the boot server by its socket.

use super::Account;
use crate::config::Config;
use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, getegid, geteuid, getgroups};

/// The group, unless the configuration names another one.
pub(crate) const GROUP: &str = "bootlace-admin";

/// The group, if there is one: the one that is configured, or else `bootlace-admin`.
///
/// # Errors
/// The configuration names one that does not exist.
pub(super) fn configured(config: &Config) -> anyhow::Result<Option<Gid>> {
    let Some(name) = &config.service.admin_group else { return named(GROUP) };
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    let Some(group) = named(name)? else {
        bail!(
            "[service] admin_group names {name:?}, and there is no such group: create it (groupadd --system {name}), or \
             name another one"
        );
    };
    Ok(Some(group))
}

fn named(name: &str) -> anyhow::Result<Option<Gid>> {
    let found =
        Group::from_name(name).with_context(|| format!("can't look for the group {name}"))?;
    Ok(found.map(|group| group.gid))
}

/// The group to which this process gives its socket. One that it may not give it to is left out and told if nobody has
/// configured it.
///
/// # Errors
/// The one that is configured does not exist, or this process may not.
pub(crate) fn admins(config: &Config) -> anyhow::Result<Option<Gid>> {
    let Some(group) = configured(config)? else { return Ok(None) };
    let is_ours = geteuid().is_root() || getegid() == group || getgroups()?.contains(&group);
    if is_ours {
        return Ok(Some(group));
    }
    let (user, name) = (Account::ours(), name(group));
    let why = format!(
        "the user {user} is no member of the group {name}, and so can't let it use the boot server: start this server as \
         root, or usermod -aG {name} {user}"
    );
    if config.service.admin_group.is_some() {
        bail!(why);
    }
    tracing::warn!("{why}");
    Ok(None)
}

/// What it is called; its number if it is in no list.
pub(super) fn name(group: Gid) -> String {
    let found = Group::from_gid(group).ok().flatten();
    found.map_or_else(|| group.to_string(), |group| group.name)
}
