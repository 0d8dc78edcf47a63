//! The file of the configuration, as setups write it and put it back.

use super::{after_undo, configured, has_units, is_served};
use crate::paths::Paths;
use anyhow::{Context as _, bail};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What a former configuration is called, with a number behind it: the highest is the last. An empty one: there was none.
const BEFORE: &str = "bootlace.toml.before-setup-";

/// What one is called that was undone, with a number behind it.
const UNDONE: &str = "bootlace.toml.undone-";

/// Puts this configuration in the place of the one that is there. That is kept beside it if `keeps_former`, so that an undo finds it.
///
/// # Errors
/// It can't be written; nothing is changed then.
pub(super) fn write(paths: &Paths, text: &str, keeps_former: bool) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", paths.config().display());
    fs::create_dir_all(folder_of(&paths.config())?).with_context(failed)?;
    let path = real(paths)?;
    let folder = folder_of(&path)?;
    let _lock = lock(folder)?;
    let former = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        opened => Some(opened.with_context(failed)?),
    };
    let mut content = Vec::new();
    let about = match former {
        Some(mut file) => {
            file.read_to_end(&mut content).with_context(failed)?;
            Some(file.metadata().with_context(failed)?)
        }
        None => None,
    };
    let new = new_file(folder, text.as_bytes(), about.as_ref()).with_context(failed)?;
    if keeps_former {
        let kept = new_file(folder, &content, about.as_ref()).with_context(failed)?;
        kept.persist_noclobber(next_name(folder, BEFORE)?).with_context(failed)?;
    }
    new.persist(&path).with_context(failed)?;
    Ok(())
}

/// Whether there was a setup that was not undone.
pub(crate) fn is_undoable(paths: &Paths) -> bool {
    newest_former(paths).is_ok_and(|former| former.is_some())
}

/// Puts the configuration back that was there before the last setup, has the servers follow, and says what is so now. What was there is
/// kept beside it.
///
/// # Errors
/// There was no setup, or the file can't be put back.
pub(crate) fn undo(paths: &Paths) -> anyhow::Result<String> {
    let kept = put_back(paths)?;
    let is_configured = configured(paths)?.is_some();
    if has_units(paths) {
        after_undo(is_configured)?;
    }
    let mut told = match is_configured {
        true => "The former configuration is back.",
        false => "Bootlace is not configured any more. Accounts and images are kept.",
    }
    .to_owned();
    if let Some(kept) = kept {
        told += &format!(" What was undone is in {}.", kept.display());
    }
    told += match (is_served(paths), is_configured) {
        (true, true) => " The servers that run still have the other one: restart them.",
        (true, false) => " The servers that run go on until they are stopped.",
        (false, true) => "",
        (false, false) => " It answers nobody.",
    };
    Ok(told)
}

/// Puts the configuration back. Returns where the one that was there is now, if it was there.
fn put_back(paths: &Paths) -> anyhow::Result<Option<PathBuf>> {
    let path = real(paths)?;
    let _lock = lock(folder_of(&path)?)?;
    let Some(former) = newest_former(paths)? else {
        bail!("no setup has written {}: there is nothing to undo", path.display());
    };
    let failed = || format!("can't put {} back", path.display());
    let undone = next_name(folder_of(&path)?, UNDONE)?;
    let kept = match fs::hard_link(&path, &undone) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        linked => linked.map(|()| Some(undone)).with_context(failed)?,
    };
    if fs::metadata(&former).with_context(failed)?.len() > 0 {
        fs::rename(&former, &path).with_context(failed)?;
    } else {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => fs::remove_file(&former).with_context(failed)?,
        }
    }
    Ok(kept)
}

/// One setup writes or puts back after the other; until this is dropped.
fn lock(folder: &Path) -> anyhow::Result<Option<File>> {
    let opened = match File::open(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.and_then(|folder| folder.lock().map(|()| folder)),
    };
    opened.map(Some).with_context(|| format!("can't use {}", folder.display()))
}

/// Where the file really is, if the path is a link.
fn real(paths: &Paths) -> anyhow::Result<PathBuf> {
    let path = paths.config();
    match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path),
        real => real.with_context(|| format!("can't find {}", path.display())),
    }
}

fn folder_of(path: &Path) -> anyhow::Result<&Path> {
    path.parent().context("a configuration lies in a folder")
}

/// What the last setup that was not undone has replaced.
fn newest_former(paths: &Paths) -> anyhow::Result<Option<PathBuf>> {
    let path = real(paths)?;
    let folder = folder_of(&path)?;
    let last = numbers(folder, BEFORE)?.into_iter().max();
    Ok(last.map(|number| folder.join(format!("{BEFORE}{number}"))))
}

/// The name behind all of them.
fn next_name(folder: &Path, beginning: &str) -> anyhow::Result<PathBuf> {
    let last = numbers(folder, beginning)?.into_iter().max().unwrap_or(0);
    Ok(folder.join(format!("{beginning}{}", last.saturating_add(1))))
}

fn numbers(folder: &Path, beginning: &str) -> anyhow::Result<Vec<u32>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("can't look into {}", folder.display()))?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(beginning));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// A file with the owner and the rights of the one that it replaces, or is a copy of.
fn new_file(folder: &Path, content: &[u8], like: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    if let Some(like) = like {
        fchown(file.as_file(), Some(like.uid()), Some(like.gid()))?;
    }
    let mode = like.map_or(0o644, |like| like.mode() & 0o7777);
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setup_can_be_undone_once_and_nothing_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let read = || fs::read_to_string(paths.config()).ok();
        let undone =
            || put_back(&paths).map(|kept| kept.map(|kept| fs::read_to_string(kept).unwrap()));
        assert!(undone().unwrap_err().to_string().contains("nothing to undo"));
        write(&paths, "one", true).unwrap();
        assert_eq!((undone().unwrap().as_deref(), read()), (Some("one"), None));
        assert!(undone().is_err(), "once");

        fs::write(paths.config(), "mine").unwrap();
        assert!(undone().is_err(), "what was written by hand is not touched");
        write(&paths, "two", true).unwrap();
        write(&paths, "two, another try", false).unwrap();
        fs::write(paths.config(), "two, and edited").unwrap();
        write(&paths, "three", true).unwrap();
        assert_eq!(undone().unwrap().as_deref(), Some("three"));
        assert_eq!(read().as_deref(), Some("two, and edited"));
        assert_eq!(undone().unwrap().as_deref(), Some("two, and edited"));
        assert_eq!(read().as_deref(), Some("mine"));
        assert!(undone().is_err() && read().as_deref() == Some("mine"));
    }

    #[test]
    fn links_and_rights_stay() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        let real = root.path().join("real.toml");
        fs::write(&real, "mine").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir_all(folder_of(&paths.config()).unwrap()).unwrap();
        std::os::unix::fs::symlink(&real, paths.config()).unwrap();
        for n in 1..=12 {
            write(&paths, &n.to_string(), true).unwrap();
        }
        let mode = || fs::metadata(&real).unwrap().mode() & 0o777;
        assert!(fs::symlink_metadata(paths.config()).unwrap().is_symlink());
        assert_eq!((fs::read_to_string(&real).unwrap().as_str(), mode()), ("12", 0o640));
        for n in (1..=11).rev() {
            put_back(&paths).unwrap();
            assert_eq!((fs::read_to_string(&real).unwrap(), mode()), (n.to_string(), 0o640));
        }
        put_back(&paths).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "mine");
    }
}
