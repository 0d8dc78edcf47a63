//! Why an image can't be stored, read or imported.

use model::{ImageName, NOTE_MAX};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The image store can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("can't {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such version.
    #[error(
        "version {version} of the image {image} is not in the image store: its folder was deleted, or its file system is \
         not mounted"
    )]
    Missing {
        /// The image.
        image: ImageName,
        /// The version.
        version: u32,
    },
    /// The description of a version can't be read.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The description.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The image's root file system can't be read.
    #[error("can't read the image's root file system")]
    Rootfs(#[from] RootfsError),
}

/// An import did not happen. Nothing of it stays in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source can't be read.
    #[error("can't read {path}")]
    Source {
        /// The source.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source is something else than a disk.
    #[error("{path} is not a disk image: it is {found}{advice}")]
    NoDisk {
        /// The source.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What to do, with the separator before it; may be empty.
        advice: &'static str,
    },
    /// A disk image that refers to other files or is encrypted.
    #[error("{path} can't be imported: {why}")]
    Refused {
        /// The source.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Another program may write to it at any moment.
    #[error(
        "{path} is {how}: what was imported might be half of an old and half of a new state; {help}, and import again"
    )]
    InUse {
        /// The source.
        path: PathBuf,
        /// How it is used: `open for writing by dd (pid 812)`.
        how: String,
        /// What ends that.
        help: String,
    },
    /// Somebody wrote to it meanwhile.
    #[error(
        "{path} changed while it was copied: nothing was imported, as that might be half of an old and half of a new \
         state; import it again when nobody writes to it"
    )]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// It was told to stop.
    #[error("the import was stopped")]
    Stopped,
    /// Before the copy: it would not fit.
    #[error(
        "the image needs at least {}, and the disk of the image store in {path} has {} free, of which {} are kept for \
         machines that start: free at least {} there, and import again",
        Bytes(*needed_bytes),
        Bytes(*free_bytes),
        Bytes(*reserve_bytes),
        Bytes(needed_bytes.saturating_add(*reserve_bytes).saturating_sub(*free_bytes))
    )]
    NoRoom {
        /// The image store.
        path: PathBuf,
        /// What is needed at least.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
        /// What of it must stay free.
        reserve_bytes: u64,
    },
    /// During the copy.
    #[error(
        "the disk of the image store in {path} became full: nothing was imported. The image needs up to {}, less what is \
         empty of it, and {} were free: make room there, and import again",
        Bytes(*needed_bytes),
        Bytes(*free_bytes)
    )]
    DiskFull {
        /// The image store.
        path: PathBuf,
        /// What is needed at most: the size of the disk.
        needed_bytes: u64,
        /// What was free before.
        free_bytes: u64,
    },
    /// `qemu-img` failed or is missing.
    #[error("{0}")]
    Convert(String),
    /// Something on the disk was recognized, but no root file system.
    #[error("no root file system in {path}: {found}{advice}")]
    NoRoot {
        /// The source.
        path: PathBuf,
        /// What was found instead.
        found: String,
        /// What to do, with the separator before it; may be empty.
        advice: String,
    },
    /// The system on the disk can't boot.
    #[error("{path} can't be booted: {why}")]
    NotBootable {
        /// The source.
        path: PathBuf,
        /// What is missing, and what to do.
        why: String,
    },
    /// The note is not one that lists can show.
    #[error("a note is one line of at most {NOTE_MAX} bytes, without control characters")]
    BadNote,
    /// The newest version has the same content.
    #[error("{image}/v{version} has exactly this content already: nothing was imported")]
    SameAsNewest {
        /// The image.
        image: ImageName,
        /// Its newest version.
        version: u32,
    },
}

/// A file system in an image can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The file system is no ext4, damaged, cut off, or of a kind that can't be read; why, and what helps.
    #[error("{0}")]
    FileSystem(String),
    /// There is no such file or folder.
    #[error("{0} is not in the image")]
    NotFound(String),
    /// What is to be read as a file is a folder, a device, a pipe or a socket.
    #[error("can't read {path} in the image: {why}")]
    NoFile {
        /// The path in the image.
        path: String,
        /// What it is.
        why: &'static str,
    },
    /// A file or folder can't be read.
    #[error("can't read {path} in the image: {why}")]
    Read {
        /// The path in the image.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A size as people say it, rounded up: `3.2 GB`, `12 MB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        match bytes.div_ceil(1_000_000) {
            megabytes @ 0..1000 => write!(f, "{megabytes} MB"),
            _ => write!(f, "{:.1} GB", bytes.div_ceil(100_000_000) as f64 / 10.0),
        }
    }
}

pub(crate) fn io_error(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        let said = [0, 1, 999_000_001, 1_000_000_000, 3_210_000_000, 42_000_000_000].map(Bytes);
        let said = said.map(|bytes| bytes.to_string());
        assert_eq!(said, ["0 MB", "1 MB", "1.0 GB", "1.0 GB", "3.3 GB", "42.0 GB"]);
    }
}
