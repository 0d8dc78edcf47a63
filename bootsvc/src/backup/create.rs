//! Making a backup, while the boot server runs or not.

use super::new_file;
use crate::boot_socket;
use crate::config::{Config, ConfigError};
use crate::paths::Paths;
use crate::privileges::{as_owner, is_owner};
use crate::scratch;
use crate::site::{Reached, Refused, Site, reach};
use anyhow::{Context, bail};
use hyper::StatusCode;
use nix::unistd::{Gid, Group};
use service::backup::{AUTHORITY_FILES, BackupFile, Kind, Manifest, digest, write_backup};
use service::open_plain;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use wire::error_chain;

/// A copy of the database in a folder of this process, where nobody else can put anything in its place. It goes when this does.
struct StateCopy {
    folder: TempDir,
}

impl StateCopy {
    fn path(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }
}

/// A backup that is written.
pub(crate) struct Saved<W> {
    pub(crate) out: W,
    pub(crate) manifest: Manifest,
    pub(crate) n_machines: u64,
    /// What belongs to the site and is not in the backup, and why.
    pub(crate) left_out: Vec<String>,
}

/// Writes a backup. `progress` hears how many bytes of how many are done. The database must be in it; what else can't be
/// read or understood is left out, since a backup is wanted most when something is broken.
///
/// # Errors
/// The database can't be read, or something not be written. What is written then is no backup.
pub(crate) fn create<W: Write>(
    paths: &Paths,
    out: W,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<Saved<W>> {
    if !is_owner(&paths.state()) {
        let told =
            "a backup holds secrets, so only root and the servers' user can make one: use sudo";
        return Err(Refused::forbidden(told).into());
    }
    let copy = copy_state(paths)?;
    let n_machines = service::check_database(&copy.path())?;
    let (mut sources, mut left_out) = (Vec::new(), Vec::new());
    let config = paths.config();
    let mut named = Vec::new();
    match Config::load(&config) {
        Ok(config) => named = config.files(),
        Err(ConfigError::Missing { .. }) => {
            left_out.push(format!("the configuration: there is no {}", config.display()));
        }
        Err(error @ ConfigError::Wrong(_)) => left_out.push(format!(
            "the files that the configuration names, as it can't be used: {}",
            error_chain(&error)
        )),
        // That is told of the file itself.
        Err(ConfigError::Unreadable { .. }) => {}
    }
    let is_there =
        config.try_exists().with_context(|| format!("can't read {}", config.display()))?;
    let config = is_there.then_some((Kind::Configuration, "bootlace.toml".to_owned(), config));
    let named =
        named.into_iter().enumerate().map(|(n, path)| (Kind::File, format!("files/{n}"), path));
    let mut files = Vec::new();
    for (kind, name, source) in config.into_iter().chain(named) {
        match entry(kind, &name, &source) {
            Ok(file) => {
                files.push(file);
                sources.push(source);
            }
            Err(error) => left_out.push(format!("{}: {error:#}", source.display())),
        }
    }
    files.push(entry(Kind::Database, "state.db", &copy.path())?);
    sources.push(copy.path());
    match copy_authority(paths, copy.folder.path()) {
        Ok(copies) => {
            for (name, source) in copies {
                files.push(entry(Kind::Authority, name, &source)?);
                sources.push(source);
            }
        }
        Err(error) => left_out.push(format!("the authority of the web page: {error:#}")),
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let manifest = Manifest::new(now, files);
    let total = manifest.size_bytes();
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let out = write_backup(out, &manifest, &sources, |done| progress(done, total))?;
    Ok(Saved { out, manifest, n_machines, left_out })
}

/// Checks each page of the database, in a copy of it; how many machines it has. The boot server may run.
///
/// # Errors
/// It is damaged, or can't be copied.
pub(crate) fn check_state(paths: &Paths) -> anyhow::Result<u64> {
    Ok(service::check_database(&copy_state(paths)?.path())?)
}

fn entry(kind: Kind, name: &str, source: &Path) -> anyhow::Result<BackupFile> {
    let about = fs::metadata(source).with_context(|| format!("can't read {}", source.display()))?;
    if !about.is_file() {
        bail!("it is no file");
    }
    let (size_bytes, blake3) = digest(source)?;
    let group = match kind {
        Kind::Database | Kind::Authority => None,
        _ => Group::from_gid(Gid::from_raw(about.gid())).ok().flatten().map(|group| group.name),
    };
    Ok(BackupFile {
        name: name.to_owned(),
        kind,
        path: (kind == Kind::File).then(|| source.to_owned()),
        size_bytes,
        blake3,
        mode: about.mode() & 0o777,
        group,
    })
}

/// No file of the authority is longer.
const AUTHORITY_BYTES_MAX: u64 = 1 << 16;

/// Copies the files of the pages' own authority to a folder of ours, if there is one; their names in a backup, and the copies.
fn copy_authority(paths: &Paths, folder: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut copies = Vec::new();
    let mut missing = Vec::new();
    for name in AUTHORITY_FILES {
        let path = paths.state().join(name);
        let failed = || format!("can't read {}", path.display());
        let opened = as_owner(paths, || match open_plain(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        });
        let Some(theirs) = opened.with_context(failed)? else {
            missing.push(path);
            continue;
        };
        let mut bytes = Vec::new();
        let n_bytes = theirs.take(AUTHORITY_BYTES_MAX + 1).read_to_end(&mut bytes);
        if n_bytes.with_context(failed)? as u64 > AUTHORITY_BYTES_MAX {
            bail!("{} is too long for what it should be", path.display());
        }
        let copy = folder.join(Path::new(name).file_name().context("it has a name")?);
        let mut ours = new_file(&copy).with_context(failed)?;
        ours.write_all(&bytes).with_context(failed)?;
        copies.push((name, copy));
    }
    match missing.as_slice() {
        [one] => bail!("there is no {}", one.display()),
        _ => Ok(copies),
    }
}

/// Where the boot server has made a copy, or why not.
#[derive(serde::Deserialize)]
struct Copied {
    path: Option<PathBuf>,
    error: Option<String>,
}

fn copy_state(paths: &Paths) -> anyhow::Result<StateCopy> {
    let mut theirs = as_owner(paths, || copy_of_theirs(paths))?;
    let folder = scratch::folder(theirs.metadata()?.len(), &[])
        .context("there is no room for a copy of the database")?;
    let copy = StateCopy { folder };
    let mut ours = new_file(&copy.path()).context("the database can't be copied")?;
    io::copy(&mut theirs, &mut ours).context("the database can't be copied")?;
    Ok(copy)
}

/// A copy that has no name any more: by the boot server that runs, which has the database even if somebody has deleted it meanwhile; or of
/// the file, if none runs.
fn copy_of_theirs(paths: &Paths) -> anyhow::Result<File> {
    let _lock = match reach(paths, None)? {
        Reached::Lock(lock) => Some(lock),
        Reached::Server(stream) => {
            let site = Site::of_server(paths, stream)?;
            match site.work::<Copied>(boot_socket::STATE_COPY, &()) {
                Ok(Copied { path: Some(path), .. }) => {
                    let opened = open_plain(&path);
                    let _ = fs::remove_file(&path);
                    return opened.with_context(|| format!("can't read {}", path.display()));
                }
                Ok(copied) => {
                    let why = copied.error.unwrap_or_default();
                    bail!("the boot server can't copy its database: {why}");
                }
                // An older one can't. SQLite copies what others write to, too.
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error),
            }
        }
    };
    let needed_bytes = scratch::database_bytes(&paths.database());
    let folder = scratch::folder(needed_bytes, &paths.for_copies())
        .context("there is no room for a copy of the database")?;
    let copy = folder.path().join("state.db");
    service::copy_database(&paths.database(), &copy)?;
    open_plain(&copy).with_context(|| format!("can't read {}", copy.display()))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == StatusCode::NOT_IMPLEMENTED)
}
