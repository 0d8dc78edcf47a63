//! What folders need that is more than their files: durable names, and the room below them.

use model::Space;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes the names in a folder durable.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether this is what a full disk says.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes `content` a file in one step, durably: whoever reads it meets the former content or this.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Opens the file whose lock says that somebody works in a folder, making it if it is missing.
///
/// Only its owner may open it: who can read a file can lock it, and keep all others out.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let lock =
        OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    if lock.metadata()?.permissions().mode() & 0o077 != 0 {
        lock.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(lock)
}

/// A file that is locked, until this is dropped or the process ends, however it does.
#[derive(Debug)]
pub(crate) struct Locked(pub(crate) File);

impl Drop for Locked {
    fn drop(&mut self) {
        // A child that is being started has the file open, too, until it is another program: closing it alone would
        // keep others out for that moment.
        let _ = self.0.unlock();
    }
}

/// The file system that holds a folder: its size, what is free, and what large files leave free.
///
/// # Errors
/// There is no such folder.
pub fn space(path: &Path) -> io::Result<Space> {
    let told = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    let total_bytes = bytes(told.f_blocks);
    Ok(Space {
        total_bytes,
        free_bytes: bytes(told.f_bavail),
        reserve_bytes: Space::reserve_bytes(total_bytes),
        layer_max_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_its_owners_also_if_it_was_made_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(open_lock(&path).unwrap());
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let lock = open_lock(&path).unwrap();
        assert_eq!(mode(), 0o600);
        lock.try_lock().unwrap();
        open_lock(&path).unwrap().try_lock().unwrap_err();
    }

    #[test]
    fn a_lock_ends_though_a_child_that_is_being_started_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let lock = open_lock(&path).unwrap();
        lock.try_lock().unwrap();
        let of_child = lock.try_clone().unwrap();
        drop(Locked(lock));
        open_lock(&path).unwrap().try_lock().unwrap();
        drop(of_child);
    }
}
