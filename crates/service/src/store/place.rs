//! Whether the database that is open is the one that has its name: somebody may delete it or put another one in its place
//! while this process runs, and what is written then is lost.

use crate::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of an open database.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    database: Option<File>,
    log: Option<File>,
}

/// Device and inode.
type File = (u64, u64);

/// The open database has its name no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// There is no file of that name.
    Missing,
    /// There is another one.
    Replaced,
    /// So it is with the file beside it that has its last changes.
    Log,
}

impl Place {
    /// That of a database which is open, and was read already.
    pub(super) fn of(path: &Path) -> Self {
        let (database, log) = (file(path), file(&log_of(path)));
        Self { path: path.to_owned(), database, log }
    }

    /// What has become of it; `None`: all is as it was.
    pub(super) fn gone(&self) -> Option<Gone> {
        match file(&self.path) {
            None => Some(Gone::Missing),
            found if found != self.database => Some(Gone::Replaced),
            _ if self.log.is_some() && file(&log_of(&self.path)) != self.log => Some(Gone::Log),
            _ => None,
        }
    }
}

impl Gone {
    pub(super) fn error(self, path: &Path) -> Error {
        let what = match self {
            Self::Missing => "it was deleted, moved, or its file system is no longer mounted",
            Self::Replaced => "there is another file in its place",
            Self::Log => {
                "the file beside it with its last changes, state.db-wal, was deleted or replaced"
            }
        };
        Error::DatabaseGone { path: path.to_owned(), what }
    }
}

/// What cannot be looked at counts as not there: nothing could be written to it either.
fn file(path: &Path) -> Option<File> {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}
