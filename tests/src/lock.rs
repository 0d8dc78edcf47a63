//! Locks that hold between processes, so that two runs don't make the same thing at once.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// Where lock files are.
const FOLDER: &str = "/run/lock";

/// An exclusive lock; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock of this name; `waiting` is called once if another run has it.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn take(name: &str, waiting: impl FnOnce()) -> Result<Self> {
        if let Some(lock) = Self::try_take(name)? {
            return Ok(lock);
        }
        waiting();
        let path = path_of(name);
        let file = Flock::lock(open(&path)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| path.display().to_string())?;
        Ok(Self { _file: file })
    }

    /// Takes the lock of this name, unless another run or thread has it.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn try_take(name: &str) -> Result<Option<Self>> {
        let path = path_of(name);
        match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context(path.display().to_string()),
        }
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("bootlace-lab-{name}"))
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("can't open the lock file {}", path.display()))
}
