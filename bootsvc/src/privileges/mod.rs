//! What this process may do: servers and commands that are started as root go on as a user of their own.
//!
//! Call these before the first thread is started: capabilities belong to threads, and new ones inherit them.

mod account;
mod admins;
mod capabilities;
mod take_over;

pub(crate) use admins::{GROUP, admins};

use account::{Account, Who};

use crate::config::{Config, LdapConfig};
use crate::paths::Paths;
use anyhow::{Context, bail};
use model::Architecture;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, geteuid};
use rustix::fs::{Access, Mode, access};
use rustix::process::umask;
use rustix::thread::CapabilitySet;
use service::Unwritable;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A server that changes its user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// `bootlace serve`.
    Boot,
    /// `bootlace storage`.
    Storage,
    /// `bootlace up`: the boot server, which starts the storage server whenever that has died.
    Both,
}

impl Server {
    fn capabilities(self) -> CapabilitySet {
        // Ports below 1024, and raw sockets.
        let boot = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW;
        match self {
            // What `up` has its storage server has, too, and itself it reads what strangers send.
            Self::Boot | Self::Both => boot,
            // On a kernel without packet rings an AoE socket gets a larger buffer than others may have.
            Self::Storage => boot | CapabilitySet::NET_ADMIN,
        }
    }

    /// Files that it must be able to read, as far as they are there.
    fn reads(self, paths: &Paths, config: &Config) -> Vec<PathBuf> {
        let mut files = vec![paths.config()];
        let tls = config.storage.nbd_tls.as_ref();
        let authority = tls.and_then(|tls| tls.machine_ca.clone());
        if self != Self::Storage {
            let names = Architecture::ALL.map(|it| service::init_name(it, authority.is_some()));
            files.extend(names.into_iter().filter_map(service::find_init));
            files.extend(config.boot.rescue_busybox.clone());
            files.extend(authority);
            files.extend(config.alerts.files().cloned());
            files.extend(config.ldap.iter().flat_map(LdapConfig::files).cloned());
        }
        if let Some(tls) = tls.filter(|_| self != Self::Boot) {
            files.extend([tls.certificate.clone(), tls.key.clone()]);
            files.extend(tls.client_ca.clone());
        }
        files
    }
}

/// Reads what root has named, such as a disk to import, whoever may do so.
const READER: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// How a user is made; Debian and Fedora alike.
const USERADD: &str = "useradd --system --user-group --no-create-home --home-dir /var/lib/bootlace \
                       --shell /usr/sbin/nologin bootlace";

/// Makes this process a server: if it is root it takes over the state, and becomes the servers' user for good, with
/// the capabilities of this server alone.
pub(crate) fn become_server(server: Server, paths: &Paths, config: &Config) -> anyhow::Result<()> {
    paths.check_folders()?;
    match Who::of_servers(paths, config.service.user.as_deref())? {
        Who::Unprivileged | Who::Root => {}
        Who::Missing => tracing::warn!(
            "running as root, since there is no user \"bootlace\": whoever breaks into this server has the whole \
             host. Create the user, and restart: {USERADD}"
        ),
        Who::Account(account) => {
            // As root, who finds them wherever they are.
            let reads = server.reads(paths, config);
            let folders = paths.own();
            folders.iter().try_for_each(|folder| make_own(folder, &account))?;
            // To which it gives its socket.
            let group = match server {
                Server::Storage => None,
                Server::Boot | Server::Both => admins::configured(config)?,
            };
            become_user(&account, group, server.capabilities())?;
            let trouble = folders.iter().find_map(|folder| unusable(folder));
            if let Some(trouble) =
                trouble.or_else(|| reads.iter().find_map(|file| unreadable(file)))
            {
                bail!(trouble);
            }
            tracing::info!(user = account.to_string(), "no longer root");
        }
    }
    close_files();
    Ok(())
}

/// Makes this process a command: what root's commands write belongs to the servers' user, and of the state they read no more than
/// he can, who may have laid links to the files of others there.
pub(crate) fn become_command(paths: &Paths) -> anyhow::Result<()> {
    become_command_with(paths, CapabilitySet::empty())
}

/// As [`become_command`]; the programs that it starts read what root has named to it.
pub(crate) fn become_command_with_readers(paths: &Paths) -> anyhow::Result<()> {
    become_command_with(paths, READER)?;
    capabilities::use_none().context("can't put capabilities aside")
}

fn become_command_with(paths: &Paths, kept: CapabilitySet) -> anyhow::Result<()> {
    paths.check_folders()?;
    if let Some(account) = owner(paths)? {
        paths.own().iter().try_for_each(|folder| make_own_if_possible(folder, &account))?;
        become_user(&account, None, kept)?;
    }
    close_files();
    Ok(())
}

/// Makes this process one that can read what the servers can, and no more.
pub(crate) fn become_servers_user(paths: &Paths) -> anyhow::Result<()> {
    match owner(paths)? {
        Some(account) => become_user(&account, None, CapabilitySet::empty()),
        None => Ok(()),
    }
}

/// From now on this process, which need not be root's, may do nothing that its user may not.
pub(crate) fn give_up_capabilities() -> anyhow::Result<()> {
    capabilities::give_up().context("can't give up capabilities")
}

/// From now on what this process makes (state, caches, sockets, logs) is its user's alone, but for what it opens to
/// others on purpose. Who can read a file can lock it, too.
fn close_files() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// As [`as_owner`], and reads what root has named meanwhile: for work that does not read files of the state whose content it tells.
pub(crate) fn as_owner_who_reads<T>(
    paths: &Paths,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    as_owner_with(READER, paths, work)
}

/// Does something with files of the state, and is root again. Whoever broke into a server can put anything in their place, such as
/// links: so it is done as that user, who can do to others no more by this than he can anyway.
pub(crate) fn as_owner<T>(
    paths: &Paths,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    as_owner_with(CapabilitySet::empty(), paths, work)
}

fn as_owner_with<T>(
    kept: CapabilitySet,
    paths: &Paths,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(account) = owner(paths)? else { return work() };
    paths.own().iter().try_for_each(|folder| make_own_if_possible(folder, &account))?;
    let failed = || format!("can't work as the user {account}");
    capabilities::begin_as(&account, kept).with_context(failed)?;
    let done = work();
    capabilities::end_as().with_context(failed)?;
    done
}

/// Whom root's commands work for; `None` if that is root itself, or we are not root.
fn owner(paths: &Paths) -> anyhow::Result<Option<Account>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    if let Some(account) = Account::owning(&paths.state())? {
        return Ok((!account.is_root()).then_some(account));
    }
    // No server has run here yet. What is wrong with the configuration it will report.
    let user = Config::load(&paths.config()).ok().and_then(|config| config.service.user);
    match Who::of_servers(paths, user.as_deref())? {
        Who::Account(account) => Ok(Some(account)),
        Who::Unprivileged | Who::Root | Who::Missing => Ok(None),
    }
}

/// Gives folders of the state that this process has made to the user whom servers of this configuration become, if root
/// is to become anybody: the next commands are his already, as if a server had run.
pub(crate) fn give_to_servers(paths: &Paths) -> anyhow::Result<()> {
    let user = Config::load(&paths.config()).ok().and_then(|config| config.service.user);
    match Who::of_servers(paths, user.as_deref())? {
        Who::Account(account) => make_own(&paths.state(), &account),
        Who::Unprivileged | Who::Root | Who::Missing => Ok(()),
    }
}

fn become_user(account: &Account, group: Option<Gid>, wanted: CapabilitySet) -> anyhow::Result<()> {
    capabilities::become_user(account, group, wanted)
        .with_context(|| format!("can't become the user {account}"))
}

/// Makes the folder if it is missing, and the account the owner of all in it.
fn make_own(folder: &Path, account: &Account) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    let taken = take_over::take_over(folder, account)
        .with_context(|| format!("can't give {} to the user {account}", folder.display()))?;
    if taken > 0 {
        tracing::info!(folder = %folder.display(), user = account.to_string(), taken, "files taken over");
    }
    Ok(())
}

/// The same for commands, which look at what is on a full disk or a read-only file system, too.
fn make_own_if_possible(folder: &Path, account: &Account) -> anyhow::Result<()> {
    let is_unwritable = |error: &anyhow::Error| {
        let mut causes = error.chain().filter_map(|it| it.downcast_ref::<std::io::Error>());
        causes.any(|cause| Unwritable::of(cause.kind()).is_some())
    };
    match make_own(folder, account) {
        Err(error) if is_unwritable(&error) => Ok(()),
        made => made,
    }
}

/// What is wrong with the user whom `bootlace up` would become. If this process is root it becomes that user, so
/// that nothing can be checked afterwards for which root is needed.
pub(crate) fn check(paths: &Paths, config: &Config) -> Result<String, Trouble> {
    let wrong = |error: anyhow::Error| Trouble::Wrong(format!("{error:#}"));
    match Who::of_servers(paths, config.service.user.as_deref()).map_err(wrong)? {
        Who::Unprivileged => Ok("user: not root, so the servers would run as this one".to_owned()),
        Who::Root => Ok("user: the servers stay root, as [service] user says".to_owned()),
        Who::Missing => Err(Trouble::Unsafe(format!(
            "user: the servers would stay root, since there is no user \"bootlace\"; create it: {USERADD}"
        ))),
        Who::Account(account) => {
            let reads = Server::Both.reads(paths, config);
            become_user(&account, None, Server::Both.capabilities()).map_err(wrong)?;
            let troubles: Vec<String> = reads.iter().filter_map(|file| unreadable(file)).collect();
            match troubles.is_empty() {
                true => {
                    Ok(format!("user: the servers become {account}, who can read what they need"))
                }
                false => Err(Trouble::Wrong(troubles.join("; "))),
            }
        }
    }
}

/// Who may use the boot server by commands.
///
/// # Errors
/// What is wrong with the group that is configured.
pub(crate) fn check_admins(config: &Config) -> Result<String, String> {
    match admins::configured(config).map_err(|error| format!("{error:#}"))? {
        Some(group) => {
            let name = admins::name(group);
            Ok(format!("commands: for root, and for members of the group {name}"))
        }
        None => Ok("commands: for root only; members of a group bootlace-admin might, too, if there were one".to_owned()),
    }
}

/// Whether this process may write to the folder as the servers do, or make it.
pub(crate) fn is_owner(folder: &Path) -> bool {
    geteuid().is_root()
        || Account::owning(folder)
            .is_ok_and(|owner| owner.is_none_or(|owner| owner.uid == geteuid()))
}

/// What a check finds.
pub(crate) enum Trouble {
    /// It keeps the servers from starting.
    Wrong(String),
    /// They start, and should not run so.
    Unsafe(String),
}

/// Why this process, which has changed its user, can't write to a folder of its own.
fn unusable(folder: &Path) -> Option<String> {
    let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
    let user = Account::ours();
    Some(format!(
        "the user {user} can't write to {}: {error}; each folder above it must let others through (chmod o+x), and what \
         a symbolic link leads to must belong to {user} (chown -R)",
        folder.display()
    ))
}

/// Why this process can't read a file. One that is missing is reported by who needs it.
fn unreadable(file: &Path) -> Option<String> {
    let error =
        File::open(file).err().filter(|error| error.kind() == ErrorKind::PermissionDenied)?;
    let (user, file) = (Account::ours(), file.display());
    Some(format!(
        "the user {user} can't read {file}: {error}; let the group of {user} read it (chgrp and chmod g+r {file}), and \
         others through the folders above it (chmod o+x)"
    ))
}

/// Lets this process have as many files and sockets open as it may.
pub(crate) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of file descriptors can't be raised");
    }
}
