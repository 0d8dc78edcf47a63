//! Putting a backup in place.

use super::{new_file, unpack};
use crate::boot_socket;
use crate::config::Config;
use crate::paths::Paths;
use crate::privileges::{as_owner, give_to_servers};
use crate::state_lock::StateLock;
use anyhow::{Context, bail};
use nix::unistd::{Group, geteuid};
use service::backup::{BackupFile, Kind, Manifest, read_backup};
use service::{Actor, open_plain};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What was done.
pub(crate) struct Restored {
    pub(crate) manifest: Manifest,
    pub(crate) n_machines: u64,
    /// What came back with the database, and what did not.
    pub(crate) database: service::Restored,
    /// Files that are as they are in the backup now, and were not.
    pub(crate) placed: Vec<PathBuf>,
    /// What was there before, under the names that it has now.
    pub(crate) aside: Vec<PathBuf>,
}

/// A file that is to be there.
struct Target {
    path: PathBuf,
    /// Where it lies, complete, on the same file system.
    new: PathBuf,
}

/// Puts a backup in place. All of it is looked at before anything is touched; what is there already is put aside if
/// `replace` says so, and else refused.
///
/// # Errors
/// A boot server runs, the backup is damaged, something is there already, or can't be written.
pub(crate) fn restore(paths: &Paths, input: impl Read, replace: bool) -> anyhow::Result<Restored> {
    let running = "the boot server is running: stop it, restore, and start it again";
    if boot_socket::is_answered(&paths.boot_socket()) {
        bail!(running);
    }
    let state = paths.state();
    let is_new = !state.try_exists().unwrap_or(true);
    let _lock = match as_owner(paths, || StateLock::try_take(paths, false))? {
        Ok(lock) => lock,
        Err(holder) if holder.is_server => bail!(running),
        Err(holder) => bail!("{holder} has the state: try again when it is done"),
    };
    fs::create_dir_all(&state).with_context(|| format!("can't make {}", state.display()))?;
    let database =
        Target { path: paths.database(), new: with_suffix(&paths.database(), ".restored") };
    let database_new = database.new.clone();
    let remove_new = || {
        as_owner(paths, || {
            let _ = fs::remove_file(&database_new);
            Ok(())
        })
    };
    remove_new()?;
    let mut small: Vec<(BackupFile, Vec<u8>)> = Vec::new();
    let mut made_by_owner = Vec::new();
    let read = read_backup(input, |_, file, content| match file.kind {
        Kind::Database => {
            as_owner(paths, || Ok(unpack(content, &database.new)?)).map_err(std::io::Error::other)
        }
        Kind::Configuration | Kind::File | Kind::Authority => {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            small.push((file.clone(), bytes));
            Ok(())
        }
    });
    let mut made = Vec::new();
    let placed = (|| {
        let manifest = read?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let actor = Actor::command(geteuid().as_raw());
        let (n_machines, database_of_then) = as_owner(paths, || {
            let n_machines = service::check_database(&database.new)?;
            Ok((n_machines, service::prepare_restored(&database.new, &actor, now_unix_ms)?))
        })?;
        let mut targets = Vec::new();
        for (file, bytes) in wanted(paths, &small)? {
            // What is a link stays one, and what it leads to is replaced.
            let path = file.path.clone().unwrap_or_else(|| paths.config());
            let path = fs::canonicalize(&path).unwrap_or(path);
            if fs::read(&path).is_ok_and(|former| former == *bytes) {
                continue;
            }
            let new = with_suffix(&path, ".restored");
            let _ = fs::remove_file(&new);
            made.push(new.clone());
            write_small(&new, file, bytes)?;
            targets.push(Target { path, new });
        }
        let mut of_authority = Vec::new();
        for (file, bytes) in small.iter().filter(|(file, _)| file.kind == Kind::Authority) {
            let path = paths.state().join(&file.name);
            let new = with_suffix(&path, ".restored");
            made_by_owner.push(new.clone());
            let is_new = as_owner(paths, || write_of_authority(&path, &new, bytes))?;
            of_authority.extend(is_new.then_some(Target { path, new }));
        }
        let there: Vec<String> = targets
            .iter()
            .chain(&of_authority)
            .chain([&database])
            .filter(|target| target.path.symlink_metadata().is_ok())
            .map(|target| target.path.display().to_string())
            .collect();
        if !there.is_empty() && !replace {
            bail!(
                "{} there already; --replace puts that aside, and the backup in its place",
                are(&there)
            );
        }
        let mut restored = Restored {
            manifest,
            n_machines,
            database: database_of_then,
            placed: Vec::new(),
            aside: Vec::new(),
        };
        for target in targets {
            put(target, &mut restored)?;
        }
        as_owner(paths, || {
            if !of_authority.is_empty() {
                // The page's certificate is of another authority: without what is noted of it, a new one is made.
                match fs::remove_file(paths.state().join("web/about.json")) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error).context("the page's former certificate stays");
                    }
                    _ => {}
                }
            }
            for target in of_authority {
                put(target, &mut restored)?;
            }
            put(database, &mut restored)
        })?;
        if is_new {
            give_to_servers(paths)?;
        }
        Ok(restored)
    })();
    // What was placed has another name by now.
    for leftover in made {
        let _ = fs::remove_file(leftover);
    }
    as_owner(paths, || {
        for leftover in made_by_owner {
            let _ = fs::remove_file(leftover);
        }
        Ok(())
    })?;
    remove_new()?;
    placed
}

/// Writes a file of the pages' authority beside its place, as whoever owns the state; `false`: it is there already.
fn write_of_authority(path: &Path, new: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    let failed = || format!("can't write {}", new.display());
    let mut former = Vec::new();
    let read = open_plain(path)
        .and_then(|file| file.take(bytes.len() as u64 + 1).read_to_end(&mut former));
    if read.is_ok() && former == bytes {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(failed)?;
    }
    let _ = fs::remove_file(new);
    let mut file = new_file(new).with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    Ok(true)
}

/// The files that are put back besides the database: only what the configuration names.
fn wanted<'a>(
    paths: &Paths,
    small: &'a [(BackupFile, Vec<u8>)],
) -> anyhow::Result<Vec<&'a (BackupFile, Vec<u8>)>> {
    let config = small.iter().find(|(file, _)| file.kind == Kind::Configuration);
    let named = match config {
        Some((_, text)) => {
            let text = String::from_utf8_lossy(text);
            match Config::parse(&paths.config(), &text) {
                Ok(config) => config.files(),
                // It was broken when it was saved, and no files with it.
                Err(_) if !small.iter().any(|(file, _)| file.kind == Kind::File) => Vec::new(),
                Err(error) => {
                    return Err(error).context("the configuration in the backup can't be used");
                }
            }
        }
        None => Vec::new(),
    };
    for (file, _) in small {
        if let Some(path) = file.path.as_ref().filter(|path| !named.contains(path)) {
            bail!(
                "the backup has a file for {}, which its configuration does not name",
                path.display()
            );
        }
    }
    Ok(small.iter().filter(|(file, _)| file.kind != Kind::Authority).collect())
}

fn write_small(path: &Path, about: &BackupFile, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let mut file = new_file(path).with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    let group = about.group.as_deref().and_then(|name| Group::from_name(name).ok().flatten());
    // Who is not root gives away nothing.
    let is_given = group.is_some_and(|group| fchown(&file, None, Some(group.gid.as_raw())).is_ok());
    // Files that the configuration names may be keys. It has none, and the servers' user must read it: where all could, all can.
    let of_all = if about.kind == Kind::Configuration { 0o005 } else { 0 };
    let of_group = if is_given { 0o050 } else { 0 };
    let mode = about.mode & (0o700 | of_group | of_all);
    file.set_permissions(Permissions::from_mode(mode)).with_context(failed)?;
    file.sync_all().with_context(failed)
}

/// Puts aside what is there, and the new file in its place.
fn put(target: Target, restored: &mut Restored) -> anyhow::Result<()> {
    let Target { path, new } = target;
    let failed = || format!("can't put {} in place", path.display());
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
    if path.symlink_metadata().is_ok() {
        let aside = with_suffix(&path, &format!(".before-restore-{now}"));
        fs::rename(&path, &aside).map_err(|error| of_mount(error, &path)).with_context(failed)?;
        restored.aside.push(aside);
    }
    // The log of the former database belongs to that: beside another one it would spoil it.
    for suffix in ["-wal", "-shm"] {
        let log = with_suffix(&path, suffix);
        if log.exists() {
            let aside = with_suffix(&path, &format!(".before-restore-{now}{suffix}"));
            fs::rename(&log, &aside).with_context(failed)?;
        }
    }
    fs::rename(&new, &path).with_context(failed)?;
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
    }
    restored.placed.push(path);
    Ok(())
}

/// Containers often get such a file by a mount of its own.
fn of_mount(error: std::io::Error, path: &Path) -> anyhow::Error {
    if error.kind() != ErrorKind::ResourceBusy {
        return error.into();
    }
    anyhow::anyhow!(
        "{} is mounted by itself, and can't be replaced by another file: unmount it, or mount the folder that has it",
        path.display()
    )
}

fn are(paths: &[String]) -> String {
    let verb = if paths.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", paths.join(", "))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
