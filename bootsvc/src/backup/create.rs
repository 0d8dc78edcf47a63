//! Making a backup, while the boot server runs or not.

use crate::boot_socket;
use crate::config::Config;
use crate::paths::Paths;
use crate::privileges::as_command;
use crate::site::{Reached, Refused, Site, reach};
use anyhow::{Context, bail};
use hyper::StatusCode;
use nix::unistd::{Gid, Group};
use service::backup::{BackupFile, Kind, Manifest, digest, write_backup};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A copy of the database, which goes when this does.
struct StateCopy(PathBuf);

impl Drop for StateCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a backup; what is in it, and how many machines it has. `progress` hears how many bytes of how many are done.
///
/// # Errors
/// Something can't be read or written. What is written then is no backup.
pub(crate) fn create<W: Write>(
    paths: &Paths,
    out: W,
    mut progress: impl FnMut(u64, u64),
) -> anyhow::Result<(W, Manifest, u64)> {
    let copy = copy_state(paths)?;
    let n_machines = service::check_database(&copy.0)?;
    let mut sources = Vec::new();
    let config = paths.config();
    if config.try_exists().with_context(|| format!("can't read {}", config.display()))? {
        sources.push((Kind::Configuration, "bootlace.toml".to_owned(), config.clone()));
        let named = Config::load(&config).map(|config| config.files());
        let named = named.context("the configuration must be right, to know what belongs to it")?;
        let named = named.into_iter().enumerate();
        sources.extend(named.map(|(n, path)| (Kind::File, format!("files/{n}"), path)));
    }
    sources.push((Kind::Database, "state.db".to_owned(), copy.0.clone()));
    let files = sources.iter().map(|(kind, name, source)| entry(*kind, name, source));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let manifest = Manifest::new(now, files);
    let total = manifest.size_bytes();
    let sources: Vec<&Path> = sources.iter().map(|(_, _, source)| source.as_path()).collect();
    let out = write_backup(out, &manifest, &sources, |done| progress(done, total))?;
    Ok((out, manifest, n_machines))
}

fn entry(kind: Kind, name: &str, source: &Path) -> anyhow::Result<BackupFile> {
    let about = fs::metadata(source).with_context(|| format!("can't read {}", source.display()))?;
    let (size_bytes, blake3) = digest(source)?;
    let group = match kind {
        Kind::Database => None,
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

/// Where the boot server has made a copy, or why not.
#[derive(serde::Deserialize)]
struct Copied {
    path: Option<PathBuf>,
    error: Option<String>,
}

/// By the boot server that runs, which has it even if somebody has deleted it meanwhile; or of the file, if none runs.
fn copy_state(paths: &Paths) -> anyhow::Result<StateCopy> {
    as_command(paths, || {
        let _lock = match reach(paths, None)? {
            Reached::Lock(lock) => Some(lock),
            Reached::Server(stream) => {
                let site = Site::of_server(paths, stream)?;
                match site.work::<Copied>(boot_socket::STATE_COPY, &()) {
                    Ok(Copied { path: Some(path), .. }) => return Ok(StateCopy(path)),
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
        let cache = paths.cache();
        fs::create_dir_all(&cache).with_context(|| format!("can't make {}", cache.display()))?;
        let copy = StateCopy(boot_socket::new_copy(&cache));
        service::copy_database(&paths.database(), &copy.0)?;
        Ok(copy)
    })
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == StatusCode::NOT_IMPLEMENTED)
}
