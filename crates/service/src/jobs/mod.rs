//! Long work that somebody waits for: what runs, how far it is, and how it ended.
//!
//! A job is a process that has a folder here, `jobs/N`, with a lock that it holds as long as it lives. So nobody has to keep book of
//! jobs: what somebody reads of the folder is how the job is, whoever has begun it, and after any restart.

mod files;
mod worker;

pub use worker::{NewJob, Worker};

use crate::clock::Now;
use crate::plain_file::open_plain;
use files::{About, End, Progress, read_json, read_text};
use model::{ImageName, MachineName, VersionState};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Jobs that have ended and are kept, the newest.
const ENDED_JOBS_MAX: usize = 50;

/// Folders that are looked at, the newest: more than these were not made by us.
const JOBS_LISTED_MAX: usize = 1000;

/// How the folder of a job begins before it has its number.
const NEW: &str = ".new-";

/// A folder without a number is of a process that died while it made it, after this time.
const NEW_STAYS_MS: u64 = 3_600_000;

/// Names of the files of a job.
const ABOUT: &str = "about.json";
const LOCK: &str = "lock";
const PROGRESS: &str = "progress.json";
const LOG: &str = "log";
const CANCEL: &str = "cancel";
const END: &str = "end.json";
/// How often the process of an order has begun.
const BEGINS: &str = "begins.json";

/// So often the process of an order is begun: once more after an interruption, by a restart most often.
const BEGINS_MAX: u32 = 2;

/// Orders that wait for their turn.
const WAITING_MAX: usize = 16;

/// The end of a job that nobody has written.
const DIED: &str = "its process ended without a word: it was killed, or the server was switched off. Nothing half done stays; begin it again";

/// The jobs of a site.
#[derive(Clone, Debug)]
pub struct Jobs {
    folder: PathBuf,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// A disk becomes an image version.
    ImageImport,
    /// A system is made of packages, and becomes an image version.
    ImageBuild,
    /// What is on a PC's own disks becomes a version.
    ImageCapture,
    /// What a machine has changed of an image becomes a version.
    ImagePublish,
    /// Image versions are read as a whole.
    ImageVerify,
    /// An image version is written to a file of another format.
    ImageExport,
    /// An image version is sent.
    ImageSend,
    /// An image version is received.
    ImageReceive,
    /// All that can be wrong with the server is looked at. It ends well, whatever it finds.
    Doctor,
}

impl JobKind {
    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ImageImport => "import",
            Self::ImageBuild => "build",
            Self::ImageCapture => "capture",
            Self::ImagePublish => "publish",
            Self::ImageVerify => "verify",
            Self::ImageExport => "export",
            Self::ImageSend => "send",
            Self::ImageReceive => "receive",
            Self::Doctor => "doctor",
        }
    }
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The boot server begins it as soon as others are done, or begins it again.
    Waiting,
    /// Its process works.
    Running,
    /// It has done what it should.
    Done,
    /// It could not.
    Failed,
    /// Somebody wanted it to stop.
    Cancelled,
    /// Its process ended without a word.
    Died,
    /// Its files say nothing that is understood.
    Unreadable,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Died,
        Self::Unreadable,
    ];

    /// As people and programs read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Died => "died",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether nothing more becomes of it.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// How far a job is in the step that it does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JobProgress {
    /// What it does: `copying`.
    pub step: String,
    /// Bytes of the step that are done, `total_bytes` at most.
    pub done_bytes: u64,
    /// Bytes of the step.
    pub total_bytes: u64,
    /// How fast the step was so far; `None`: that is not known yet.
    pub bytes_per_second: Option<u64>,
    /// How long the step takes on; `None`: that is not known yet.
    pub seconds_left: Option<u64>,
}

impl JobProgress {
    /// How much of the step is done, 0 to 100.
    pub fn percent(&self) -> u64 {
        (u128::from(self.done_bytes) * 100 / u128::from(self.total_bytes.max(1))) as u64
    }
}

impl From<Progress> for JobProgress {
    fn from(read: Progress) -> Self {
        let Progress { step, done_bytes, total_bytes, step_ms } = read;
        let done_bytes = done_bytes.min(total_bytes);
        let rate = (u128::from(done_bytes) * 1000).checked_div(u128::from(step_ms));
        let bytes_per_second = rate.and_then(|rate| u64::try_from(rate).ok()).filter(|&it| it > 0);
        let seconds_left = bytes_per_second.map(|rate| (total_bytes - done_bytes).div_ceil(rate));
        Self { step, done_bytes, total_bytes, bytes_per_second, seconds_left }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Job {
    /// By which it is called.
    pub number: u64,
    /// How it is.
    pub state: JobState,
    /// What it does; `None`: that can't be read.
    pub kind: Option<JobKind>,
    /// With what, for people: `debian-12 of /srv/debian.qcow2`.
    pub what: String,
    /// Who has begun it: an account, or a user of the server.
    pub by: String,
    /// When it was begun, milliseconds since 1970.
    pub begun_unix_ms: u64,
    /// When it ended, milliseconds since 1970.
    pub ended_unix_ms: Option<u64>,
    /// How it ended, in a sentence without its dot.
    pub told: Option<String>,
    /// Who wants it to stop.
    pub cancelled_by: Option<String>,
    /// How far it is, as long as it runs.
    pub progress: Option<JobProgress>,
}

/// An import that the boot server does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImportOrder {
    /// Name of the file in the folder of incoming disks.
    pub file: String,
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is. An order of an older Bootlace does not say.
    #[serde(default)]
    pub state: VersionState,
    /// Whether the file is removed when that is done.
    pub removes_file: bool,
    /// Whether files are laid over the version against what hurts in it. An order of an older Bootlace does not say.
    #[serde(default)]
    pub fixes: bool,
}

/// An image that the boot server has built by a recipe that comes along.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BuildOrder {
    /// The recipe.
    pub recipe: String,
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// What was chosen of the recipe's parameters.
    pub set: BTreeMap<String, String>,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
}

/// What a machine has changed of an image, and that becomes a version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishOrder {
    /// The machine.
    pub machine: MachineName,
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// The version that was changed.
    pub changes_of: u32,
    /// The snapshot of its disk.
    pub snapshot: u32,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
    /// Whether files are laid over the version against what hurts in it.
    pub fixes: bool,
}

/// What the boot server has done by a process of its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Order {
    /// A disk file becomes an image version.
    Import(ImportOrder),
    /// A system is made of packages, and becomes one.
    Build(BuildOrder),
    /// What a machine has changed becomes one.
    Publish(PublishOrder),
}

impl Order {
    const fn kind(&self) -> JobKind {
        match self {
            Self::Import(_) => JobKind::ImageImport,
            Self::Build(_) => JobKind::ImageBuild,
            Self::Publish(_) => JobKind::ImagePublish,
        }
    }

    /// For people.
    fn what(&self) -> String {
        match self {
            Self::Import(order) => format!("{} from {}", order.image, order.file),
            Self::Build(order) => format!("{} by {}", order.image, order.recipe),
            Self::Publish(order) => {
                format!("{} of what {} has changed", order.image, order.machine)
            }
        }
    }
}

/// Why a job can't be cancelled or begun.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is none.
    #[error("there is no job {0}; bootlace job ls shows all")]
    Missing(u64),
    /// It is over.
    #[error("job {number} has ended: it is {}", state.word())]
    HasEnded {
        /// Which.
        number: u64,
        /// How it is.
        state: JobState,
    },
    /// Orders wait already.
    #[error("{WAITING_MAX} imports are waiting already: try again when one is done")]
    TooMany,
    /// Nothing can be written there.
    #[error("can't write to {}", path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Jobs {
    /// Those in this folder, which need not be there.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// All of them, the newest first.
    pub fn list(&self) -> Vec<Job> {
        self.numbers().into_iter().map(|number| self.read(number)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn get(&self, number: u64) -> Result<Job, JobError> {
        match self.numbers().contains(&number) {
            true => Ok(self.read(number)),
            false => Err(JobError::Missing(number)),
        }
    }

    /// What a job has written for people, line by line.
    pub fn log(&self, number: u64) -> String {
        read_text(&self.path(number).join(LOG), files::LOG_BYTES_MAX + files::LOG_END.len())
            .unwrap_or_default()
    }

    /// Has a job stop, at the wish of `who`. Who wants that once more changes nothing.
    ///
    /// # Errors
    /// There is none, it has ended, or its folder can't be written.
    pub fn cancel(&self, number: u64, who: &str) -> Result<(), JobError> {
        let state = self.get(number)?.state;
        if state.has_ended() {
            return Err(JobError::HasEnded { number, state });
        }
        let path = self.path(number).join(CANCEL);
        match files::create(&path, who.as_bytes()) {
            Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                Err(JobError::Unwritable { path, source })
            }
            _ => Ok(()),
        }
    }

    /// The newest job of a kind that has ended.
    pub(crate) fn last_ended(&self, kind: JobKind) -> Option<Job> {
        let mut jobs = self.numbers().into_iter().map(|number| self.read(number));
        jobs.find(|job| job.kind == Some(kind) && job.state.has_ended())
    }

    /// Orders an import, which the boot server begins. Returns the number of the job.
    ///
    /// # Errors
    /// Too many wait, or its folder can't be made.
    pub fn order(&self, order: Order, by: &str, now: Now) -> Result<u64, JobError> {
        let waiting = self.list().into_iter().filter(|job| job.state == JobState::Waiting);
        if waiting.count() >= WAITING_MAX {
            return Err(JobError::TooMany);
        }
        let about = About {
            kind: order.kind(),
            what: order.what(),
            by: by.to_owned(),
            begun_unix_ms: now.unix_ms,
            order: Some(order),
        };
        let made = self.make(&about).map(|(number, _lock)| number);
        let path = self.folder.clone();
        made.map_err(|source| JobError::Unwritable { path, source })
    }

    /// The order that is to be begun now: the first of those that wait, unless one runs.
    pub fn next_order(&self) -> Option<u64> {
        let mut next = None;
        for number in self.numbers() {
            let job = self.read(number);
            match job.state {
                JobState::Waiting => next = Some(number),
                JobState::Running if self.order_of(number).is_some() => return None,
                _ => {}
            }
        }
        next
    }

    /// What is ordered by a job; `None`: somebody else does it.
    pub fn order_of(&self, number: u64) -> Option<Order> {
        read_json::<About>(&self.path(number).join(ABOUT))?.order
    }

    /// How often the process of an order has begun.
    pub fn n_begins(&self, number: u64) -> u32 {
        let path = self.path(number).join(BEGINS);
        // What can't be read must not be begun for ever.
        let is_there = fs::symlink_metadata(&path).is_ok();
        read_json(&path).unwrap_or(if is_there { BEGINS_MAX } else { 0 })
    }

    /// The process of an order begins, or could not even be started.
    ///
    /// # Errors
    /// That can't be written.
    pub fn note_begin(&self, number: u64) -> io::Result<()> {
        let n_begins = self.n_begins(number).saturating_add(1);
        files::replace(&self.path(number).join(BEGINS), &n_begins)
    }

    /// Writes the end of those whose process ended without a word, and removes those that ended long ago. Returns the former: what
    /// they have left half done is to be cleaned up.
    pub fn settle(&self, now: Now) -> Vec<Job> {
        let mut settled = Vec::new();
        let mut n_ended = 0;
        for number in self.numbers() {
            let mut job = self.read(number);
            if job.state == JobState::Waiting
                && let Some(who) = &job.cancelled_by
                && let Some(_lock) = self.lock(number)
            {
                let told = format!("cancelled by {who}");
                let end = End { state: JobState::Cancelled, at_unix_ms: now.unix_ms, told };
                let _ = files::replace(&self.path(number).join(END), &end);
            }
            if job.state == JobState::Died && job.ended_unix_ms.is_none() {
                let end =
                    End { state: JobState::Died, at_unix_ms: now.unix_ms, told: DIED.to_owned() };
                // Only one writes it, and nobody of whom it is not true.
                let is_ours = self.lock(number).is_some_and(|_lock| {
                    files::replace(&self.path(number).join(END), &end).is_ok()
                });
                if is_ours {
                    job.ended_unix_ms = Some(now.unix_ms);
                    settled.push(job.clone());
                }
            }
            n_ended += usize::from(job.state.has_ended());
            if job.state.has_ended() && n_ended > ENDED_JOBS_MAX && self.lock(number).is_some() {
                let _ = fs::remove_dir_all(self.path(number));
            }
        }
        self.remove_unfinished(now);
        settled
    }

    /// Numbers of all jobs, the newest first.
    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut numbers: Vec<u64> =
            folders.filter_map(|entry| number_of(entry.file_name().to_str()?)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.truncate(JOBS_LISTED_MAX);
        numbers
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn read(&self, number: u64) -> Job {
        let folder = self.path(number);
        // First: it is held until the end is written.
        let is_running = is_held(&folder.join(LOCK));
        let about: Option<About> = read_json(&folder.join(ABOUT));
        let end: Option<End> = read_json(&folder.join(END));
        let state = match (&about, &end) {
            (Some(_), _) if is_running => JobState::Running,
            (None, _) => JobState::Unreadable,
            (_, Some(end)) if end.state.has_ended() => end.state,
            (Some(about), _) if about.order.is_some() && self.n_begins(number) < BEGINS_MAX => {
                JobState::Waiting
            }
            _ => JobState::Died,
        };
        let cancel = read_text(&folder.join(CANCEL), files::JSON_BYTES_MAX);
        let progress = read_json::<Progress>(&folder.join(PROGRESS)).filter(|_| is_running);
        let (kind, what, by, begun_unix_ms) = match about {
            Some(about) => (Some(about.kind), about.what, about.by, about.begun_unix_ms),
            None => (None, String::new(), String::new(), 0),
        };
        let (ended_unix_ms, told) = match end.filter(|_| state.has_ended()) {
            Some(end) => (Some(end.at_unix_ms), Some(end.told)),
            None if state == JobState::Died => (None, Some(DIED.to_owned())),
            None => (None, None),
        };
        Job {
            number,
            state,
            kind,
            what,
            by,
            begun_unix_ms,
            ended_unix_ms,
            told,
            cancelled_by: cancel,
            progress: progress.map(Into::into),
        }
    }

    /// The lock of a job whose process is gone.
    fn lock(&self, number: u64) -> Option<File> {
        let file = files::open_lock(&self.path(number).join(LOCK)).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }

    /// Removes what processes have left that died while they made the folder of a job.
    fn remove_unfinished(&self, now: Now) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in
            entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()))
        {
            let modified = entry.metadata().and_then(|about| about.modified()).ok();
            let since_1970 = modified.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
            let made_ms = since_1970.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0));
            if now.unix_ms.saturating_sub(made_ms) > NEW_STAYS_MS {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The number that a folder is called by; others have none.
fn number_of(name: &str) -> Option<u64> {
    let number: u64 = name.parse().ok()?;
    // `007` and `+7` are no names of ours.
    (number.to_string() == name && number < u64::MAX).then_some(number)
}

/// Whether somebody holds the lock. That is looked at by a lock which others may have, too.
fn is_held(path: &Path) -> bool {
    let Ok(file) = open_plain(path) else { return false };
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(fs::TryLockError::WouldBlock) => true,
        Err(fs::TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests;
