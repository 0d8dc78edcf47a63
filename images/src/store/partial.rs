//! What has come so far of a version that is received: kept when its stream breaks off, so that the next one goes on there.

use super::{Store, names_in};
use crate::digest::PIECE_BYTES;
use crate::error::{StoreError, io_error};
use crate::folder::Locked;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the folder begins; an image's name can't.
const PARTIAL: &str = ".receive-";

/// Letters of a digest that the folder has in its name.
const DIGEST_LETTERS: usize = 32;

/// Who did not come back for so long does not.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// A disk of which the first part is there.
pub(crate) struct Partial {
    folder: PathBuf,
    _lock: Locked,
}

/// How much of a disk is there for sure, if its file is so long: the last piece may be half of one, and the last byte comes once more.
pub(crate) fn whole_pieces(file_bytes: u64, size_bytes: u64) -> u64 {
    let length = file_bytes.min(size_bytes.saturating_sub(1));
    length - length % PIECE_BYTES as u64
}

impl Store {
    /// What is there of the disk with this digest, or a place for it; `None`: somebody receives it at this moment.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn partial(&self, digest: &str) -> Result<Option<Partial>, StoreError> {
        let folder = self.partial_folder(digest);
        let _lock = self.lock()?;
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("make the folder", &folder)(error));
            }
            _ => {}
        }
        let lock = File::open(&folder).map_err(io_error("open", &folder))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Partial { folder, _lock: Locked(lock) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &folder)(error)),
        }
    }

    /// How many bytes of the disk with this digest and of this size have come so far: a stream that begins there goes on.
    pub fn partial_bytes(&self, digest: &str, size_bytes: u64) -> u64 {
        let disk = self.partial_folder(digest).join("disk.raw");
        fs::metadata(disk).map_or(0, |disk| whole_pieces(disk.len(), size_bytes))
    }

    /// Removes those that nobody came back for.
    pub(super) fn remove_old_partials(&self) -> Result<(), StoreError> {
        for name in names_in(&self.dir)? {
            if !name.starts_with(PARTIAL) {
                continue;
            }
            let path = self.dir.join(name);
            let changed = fs::metadata(path.join("disk.raw")).or_else(|_| fs::metadata(&path));
            let changed = changed.and_then(|it| it.modified()).ok();
            let age = changed.and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > KEPT)
                && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok())
            {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    fn partial_folder(&self, digest: &str) -> PathBuf {
        let letters = digest.chars().filter(char::is_ascii_hexdigit).take(DIGEST_LETTERS);
        self.dir.join(format!("{PARTIAL}{}", letters.collect::<String>()))
    }
}

impl Partial {
    /// The disk, as far as it is there.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn open_disk(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(self.disk_path())
    }

    pub(crate) fn disk_path(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Nothing of it is worth being kept, or it is elsewhere now.
    pub(crate) fn remove(self) -> Result<(), StoreError> {
        fs::remove_dir_all(&self.folder).map_err(io_error("remove", &self.folder))
    }
}
