//! Locks that hold between processes, so that two runs don't make the same thing at once.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        let path = path_of(name);
        let file = open(&path)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => return Ok(Self { _file: file }),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(errno).context(path.display().to_string()),
        };
        waiting();
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| path.display().to_string())?;
        Ok(Self { _file: file })
    }

    /// Waits for any of `n` locks, so that at most `n` holders work at once.
    ///
    /// # Errors
    /// A lock file can't be made.
    pub fn take_one_of(name: &str, n: usize) -> Result<Self> {
        loop {
            for index in 0..n {
                let path = path_of(&format!("{name}-{index}"));
                match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
                    Ok(file) => return Ok(Self { _file: file }),
                    Err((_, Errno::EWOULDBLOCK)) => {}
                    Err((_, errno)) => return Err(errno).context(path.display().to_string()),
                }
            }
            std::thread::sleep(Duration::from_millis(200));
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
