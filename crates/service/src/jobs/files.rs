//! The files of a job. They may be anything: who reads one gets what is understood, or nothing.

use super::{JobKind, JobState, Order};
use crate::plain_file::open_plain;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Longest description of a job: names and sentences of a few hundred bytes.
pub(super) const JSON_BYTES_MAX: usize = 16 << 10;

/// Longest log of a job. What would be more is dropped, and said.
pub(super) const LOG_BYTES_MAX: usize = 64 << 10;

/// The last line of a log that is full.
pub(super) const LOG_END: &str = "the log is full: what comes now is not in it\n";

/// What a job is.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct About {
    pub(super) kind: JobKind,
    pub(super) what: String,
    pub(super) by: String,
    pub(super) begun_unix_ms: u64,
    /// What the boot server has done by a process of its own; `None`: whoever has begun it does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<Order>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Progress {
    pub(super) step: String,
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
    /// How long the step has taken so far.
    pub(super) step_ms: u64,
}

/// How it ended.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct End {
    pub(super) state: JobState,
    pub(super) at_unix_ms: u64,
    pub(super) told: String,
}

/// The file whose lock says that a process works; made if it is missing.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

/// The text of a file; `None`: there is none, it is longer than `bytes_max`, or no text.
pub(super) fn read_text(path: &Path, bytes_max: usize) -> Option<String> {
    let mut bytes = Vec::new();
    open_plain(path).ok()?.take(bytes_max as u64 + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() > bytes_max {
        return None;
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&read_text(path, JSON_BYTES_MAX)?).ok()
}

/// Makes this the content of a file: whoever reads it meets the former content or this.
pub(super) fn replace(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&new, &serde_json::to_vec(content)?)?;
    fs::rename(&new, path)
}

/// Makes a file.
///
/// # Errors
/// `AlreadyExists`: there is something of that name.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}
