//! The file of the configuration, as setups write it and put it back.

use super::{after_undo, configured, has_units, is_served};
use crate::paths::Paths;
use anyhow::{Context as _, bail};
use jiff::Zoned;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What a former configuration is called, with the time behind it. An empty one: there was none.
const BEFORE: &str = "bootlace.toml.before-setup-";

/// What one is called that was undone.
const UNDONE: &str = "bootlace.toml.undone-";

/// Puts this configuration in the place of the one that is there. That is kept beside it if `keeps_former`, so that an undo finds it.
///
/// # Errors
/// It can't be written; nothing is changed then.
pub(super) fn write(paths: &Paths, text: &str, keeps_former: bool) -> anyhow::Result<()> {
    let path = paths.config();
    let folder = folder(paths)?;
    let failed = || format!("can't write {}", path.display());
    fs::create_dir_all(&folder).with_context(failed)?;
    let former = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("can't keep {}", path.display()))?,
    };
    let new = new_file(&folder, text.as_bytes()).with_context(failed)?;
    if keeps_former {
        let kept = new_file(&folder, &former).with_context(failed)?;
        let mode = fs::metadata(&path).map_or(0o644, |it| it.permissions().mode() & 0o777);
        kept.as_file().set_permissions(fs::Permissions::from_mode(mode)).with_context(failed)?;
        kept.persist_noclobber(free_name(&folder, BEFORE)).with_context(failed)?;
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
    let path = paths.config();
    let Some(former) = newest_former(paths)? else {
        bail!("no setup has written {}: there is nothing to undo", path.display());
    };
    let failed = || format!("can't put {} back", path.display());
    let undone = free_name(&folder(paths)?, UNDONE);
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

fn folder(paths: &Paths) -> anyhow::Result<PathBuf> {
    let folder = paths.config().parent().map(Path::to_owned);
    folder.context("a configuration lies in a folder")
}

/// What the last setup that was not undone has replaced.
fn newest_former(paths: &Paths) -> anyhow::Result<Option<PathBuf>> {
    let folder = folder(paths)?;
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("can't look into {}", folder.display()))?,
    };
    let mut newest = None;
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(BEFORE)) {
            newest = newest.max(Some(name));
        }
    }
    Ok(newest.map(|name| folder.join(name)))
}

/// A name that no file has, and that comes behind those that were made before it.
fn free_name(folder: &Path, beginning: &str) -> PathBuf {
    let now = Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
    let named = |n: u32| folder.join(format!("{beginning}{now}-{n}"));
    (1..).map(named).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| named(0))
}

fn new_file(folder: &Path, content: &[u8]) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
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
}
