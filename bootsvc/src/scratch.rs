//! Folders for what is needed for a moment: the disk with the state may be full, or read-only.

use rustix::fs::statvfs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is needed beside what is asked for: folders, and a log of the database.
const BESIDE_BYTES: u64 = 1 << 20;

/// A new folder, this user's alone, with room for so much; it goes when it is dropped. The first of these folders in which
/// there is room, or where temporary files usually are, or in memory.
///
/// # Errors
/// There is room nowhere.
pub(crate) fn folder(needed_bytes: u64, first: &[PathBuf]) -> io::Result<TempDir> {
    let usual = [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into()];
    let mut why = io::Error::from(ErrorKind::StorageFull);
    for folder in first.iter().chain(&usual) {
        match make(folder, needed_bytes + BESIDE_BYTES) {
            Ok(made) => return Ok(made),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn make(folder: &Path, needed_bytes: u64) -> io::Result<TempDir> {
    let about = statvfs(folder)?;
    if about.f_bavail.saturating_mul(about.f_frsize) < needed_bytes {
        return Err(ErrorKind::StorageFull.into());
    }
    tempfile::Builder::new().prefix("bootlace-").tempdir_in(folder)
}

/// How much a copy of this database takes, with its log.
pub(crate) fn database_bytes(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
    // Both, and once more when they become one.
    2 * (length(database) + length(Path::new(&log)))
}
