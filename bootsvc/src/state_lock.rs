//! Who has the state: one boot server, or one command.

use crate::paths::Paths;
use anyhow::{Context, bail};
use rustix::fs::OFlags;
use service::Unwritable;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::time::{Duration, Instant};

/// How long it is waited for whoever has the state. Commands have it for a moment.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long nothing is said of that.
const QUIET: Duration = Duration::from_secs(1);

/// How often it is tried.
pub(crate) const TRY_INTERVAL: Duration = Duration::from_millis(100);

/// The state is this process's, until this is dropped or the process ends, however it does.
#[derive(Debug)]
pub(crate) struct StateLock(Option<File>);

impl Drop for StateLock {
    fn drop(&mut self) {
        // A child that is being started has the file open, too, until it is another program: closing it alone would
        // leave the state to nobody for that moment.
        let _ = self.0.as_ref().map(File::unlock);
    }
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) is_server: bool,
    /// `None`: it has just got it.
    process: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_server { "a boot server" } else { "another bootlace command" })?;
        match self.process {
            Some(process) => write!(f, " (process {process})"),
            None => Ok(()),
        }
    }
}

impl StateLock {
    /// Takes it, or tells who has it. The folder of the state is made if it is missing. Where nothing can be written and no
    /// lock is, nobody has it, and nobody needs it.
    ///
    /// # Errors
    /// The file can't be opened: most often, this user may not.
    pub(crate) fn try_take(paths: &Paths, is_server: bool) -> anyhow::Result<Result<Self, Holder>> {
        paths.check_folders()?;
        let (folder, path) = (paths.state(), paths.state_lock());
        let failed = || format!("can't use {}", path.display());
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // The folder is the servers' user's, who could lead root elsewhere.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let mut file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if Unwritable::of(error.kind()).is_some() => match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(Self(None))),
                Err(error) => return Err(error).with_context(failed),
            },
            Err(error) => return Err(error).with_context(failed),
        };
        let about = file.metadata()?;
        if !about.is_file() || about.nlink() != 1 {
            bail!(
                "{} is no file of its own: remove it, as it only says who has the state",
                path.display()
            );
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        // Root's would keep the servers out, who are another user.
        let owner = fs::metadata(&folder)?;
        if (owner.uid(), owner.gid()) != (about.uid(), about.gid()) {
            let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
        }
        let kind = if is_server { "server" } else { "command" };
        // On a full disk it is a lock nevertheless.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{} {kind}", std::process::id()));
        Ok(Ok(Self(Some(file))))
    }

    /// Takes it for the boot server, when the commands that have it are done.
    ///
    /// # Errors
    /// Another boot server has it, or a command keeps it.
    pub(crate) fn take_for_server(
        paths: &Paths,
        is_answered: impl Fn() -> bool,
    ) -> anyhow::Result<Self> {
        let mut wait = Wait::new();
        loop {
            let holder = match Self::try_take(paths, true)? {
                Ok(lock) => return Ok(lock),
                Err(holder) => holder,
            };
            // One that answers does not stop by itself.
            if holder.is_server && is_answered() {
                bail!("{holder} runs already, with the state in {}", paths.state().display());
            }
            if wait.is_over() {
                bail!("{holder} has the state in {}: stop it", paths.state().display());
            }
            if wait.is_to_be_told() {
                tracing::warn!(%holder, "waiting for the state");
            }
            std::thread::sleep(TRY_INTERVAL);
        }
    }
}

/// What the one who has it has written there.
fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(64).read_to_string(&mut text));
    let (process, kind) = match read {
        Ok(_) => text.trim().split_once(' ').unwrap_or_default(),
        Err(_) => ("", ""),
    };
    Holder { is_server: kind == "server", process: process.parse().ok() }
}

/// Waiting for whoever has it.
pub(crate) struct Wait {
    begun: Instant,
    is_told: bool,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), is_told: false }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() >= WAIT_MAX
    }

    /// Once, when it takes long.
    pub(crate) fn is_to_be_told(&mut self) -> bool {
        let is_now = !self.is_told && self.begun.elapsed() >= QUIET;
        self.is_told |= is_now;
        is_now
    }
}

/// Whether this error is that the user may not.
pub(crate) fn is_denied(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_its_own_is_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        drop(StateLock::try_take(&paths, false).unwrap().unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "mine").unwrap();
        for is_link in [true, false] {
            let lock = paths.state_lock();
            fs::remove_file(&lock).unwrap();
            let planted = if is_link {
                std::os::unix::fs::symlink(&other, &lock)
            } else {
                fs::hard_link(&other, &lock)
            };
            planted.unwrap();
            assert!(StateLock::try_take(&paths, false).is_err());
            assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        }
    }

    #[test]
    fn one_has_it_and_the_others_know_who() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        let server = StateLock::try_take(&paths, true).unwrap().unwrap();
        let holder = StateLock::try_take(&paths, false).unwrap().unwrap_err();
        let words = format!("a boot server (process {})", std::process::id());
        assert!(holder.is_server && holder.to_string() == words, "{holder}");
        let refused = StateLock::take_for_server(&paths, || true).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{words} runs already")), "{refused}");
        drop(server);
        let command = StateLock::try_take(&paths, false).unwrap().unwrap();
        let holder = StateLock::try_take(&paths, true).unwrap().unwrap_err();
        assert!(!holder.is_server && holder.to_string().starts_with("another bootlace command ("));
        // A server waits for a command.
        let waiting = std::thread::spawn(move || StateLock::take_for_server(&paths, || false));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        drop(command);
        waiting.join().unwrap().unwrap();
    }
}
