//! The process that does a job, as others see it.

use super::files::{self, About, End, LOG_BYTES_MAX, LOG_END, Progress, read_text};
use super::{ABOUT, CANCEL, END, JobKind, JobState, Jobs, LOCK, LOG, NEW, Order, PROGRESS};
use crate::clock::Clock;
use images::Stop;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often a working process looks whether it is to stop.
const CANCEL_INTERVAL: Duration = Duration::from_millis(250);

/// How often it says how far it is.
const PROGRESS_INTERVAL_MS: u64 = 1000;

/// Longest sentence on how a job ended, in characters.
const TOLD_MAX: usize = 2000;

/// What becomes a job.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What it does.
    pub kind: JobKind,
    /// With what, for people.
    pub what: String,
    /// Who begins it.
    pub by: String,
}

/// A job that this process does. One that is dropped without an end has died.
#[derive(Debug)]
pub struct Worker {
    number: u64,
    folder: PathBuf,
    clock: Clock,
    step: Step,
    told_ms: Option<u64>,
    log_bytes: usize,
    /// Ends the watch for who wants it to stop.
    _watched: mpsc::Sender<()>,
    _lock: Locked,
}

/// A lock, until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Locked(File);

#[derive(Debug)]
struct Step {
    word: String,
    since_ms: u64,
}

impl Jobs {
    /// Begins a job that this process does. `stop` is told when somebody wants it to end.
    ///
    /// # Errors
    /// Its folder can't be made.
    pub fn begin(&self, new: NewJob, clock: Clock, stop: &Stop) -> io::Result<Worker> {
        let NewJob { kind, what, by } = new;
        let begun_unix_ms = clock.now().unix_ms;
        let (number, lock) = self.make(&About { kind, what, by, begun_unix_ms, order: None })?;
        Ok(self.work(number, lock, clock, stop))
    }

    /// This process does what was ordered. `stop` is told when somebody wants it to end.
    ///
    /// # Errors
    /// There is no such order, it does not wait any more, or that can't be written.
    pub fn take(&self, number: u64, clock: Clock, stop: &Stop) -> io::Result<(Worker, Order)> {
        let taken = || io::Error::new(ErrorKind::InvalidInput, "this job does not wait to be done");
        let is_waiting = self.get(number).is_ok_and(|job| job.state == JobState::Waiting);
        let order = self.order_of(number).filter(|_| is_waiting).ok_or_else(taken)?;
        let lock = files::open_lock(&self.path(number).join(LOCK))?;
        // Somebody may be looking whether it is held, which takes no time.
        lock.lock()?;
        let lock = Locked(lock);
        // It may have been cancelled in the meantime.
        if fs::symlink_metadata(self.path(number).join(END)).is_ok() {
            return Err(taken());
        }
        self.note_begin(number)?;
        Ok((self.work(number, lock, clock, stop), order))
    }

    /// Makes the folder of a job, and holds its lock.
    pub(super) fn make(&self, about: &About) -> io::Result<(u64, Locked)> {
        fs::create_dir_all(&self.folder)?;
        let folder = tempfile::Builder::new().prefix(NEW).tempdir_in(&self.folder)?;
        let lock = files::open_lock(&folder.path().join(LOCK))?;
        lock.lock()?;
        files::replace(&folder.path().join(ABOUT), about)?;
        let number = self.give_number(folder.path())?;
        // It has its name now.
        let _ = folder.keep();
        Ok((number, Locked(lock)))
    }

    fn work(&self, number: u64, lock: Locked, clock: Clock, stop: &Stop) -> Worker {
        let folder = self.path(number);
        let watched = watch(folder.join(CANCEL), stop.clone());
        let step = Step { word: String::new(), since_ms: 0 };
        let (told_ms, log_bytes) = (None, 0);
        Worker { number, folder, clock, step, told_ms, log_bytes, _watched: watched, _lock: lock }
    }

    /// Makes a folder the job with the next number.
    fn give_number(&self, folder: &Path) -> io::Result<u64> {
        let mut number = self.numbers().first().map_or(1, |newest| newest + 1);
        loop {
            match fs::rename(folder, self.path(number)) {
                Ok(()) => return Ok(number),
                // Somebody else was faster, or something else has that name.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::AlreadyExists
                            | ErrorKind::DirectoryNotEmpty
                            | ErrorKind::NotADirectory
                    ) =>
                {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Worker {
    /// By which the job is called.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Says how far it is, which is written once in a second. On a full disk nobody learns of it.
    pub fn on_progress(&mut self, step: &str, done_bytes: u64, total_bytes: u64) {
        let now_ms = self.clock.now().moment.as_millis();
        let is_new = self.step.word != step;
        if is_new {
            self.step = Step { word: step.to_owned(), since_ms: now_ms };
        }
        let is_told =
            self.told_ms.is_some_and(|ms| now_ms.saturating_sub(ms) < PROGRESS_INTERVAL_MS);
        if is_told && !is_new {
            return;
        }
        self.told_ms = Some(now_ms);
        let step_ms = now_ms.saturating_sub(self.step.since_ms);
        let progress = Progress { step: step.to_owned(), done_bytes, total_bytes, step_ms };
        let _ = files::replace(&self.folder.join(PROGRESS), &progress);
    }

    /// Adds a line to its log.
    pub fn log(&mut self, line: &str) {
        if self.log_bytes > LOG_BYTES_MAX {
            return;
        }
        let mut text = line.replace('\n', " ");
        text.push('\n');
        if self.log_bytes + text.len() > LOG_BYTES_MAX {
            self.log_bytes = LOG_BYTES_MAX;
            LOG_END.clone_into(&mut text);
        }
        self.log_bytes += text.len();
        let log = self.folder.join(LOG);
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(log);
        let _ = opened.and_then(|mut log| log.write_all(text.as_bytes()));
    }

    /// Who wanted it to stop; `None`: nobody by these means.
    pub fn cancelled_by(&self) -> Option<String> {
        read_text(&self.folder.join(CANCEL), files::JSON_BYTES_MAX)
    }

    /// It has ended so, and `told` is the sentence for people.
    pub fn end(self, state: JobState, told: &str) {
        let told = told.chars().take(TOLD_MAX).collect();
        let end = End { state, at_unix_ms: self.clock.now().unix_ms, told };
        let _ = files::replace(&self.folder.join(END), &end);
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A child that is being started has the file open, too, until it is another program.
        let _ = self.0.unlock();
    }
}

/// Tells `stop` when the file is there.
fn watch(file: PathBuf, stop: Stop) -> mpsc::Sender<()> {
    let (watched, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        while is_over.recv_timeout(CANCEL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if fs::symlink_metadata(&file).is_ok() {
                stop.stop();
                return;
            }
        }
    });
    watched
}
