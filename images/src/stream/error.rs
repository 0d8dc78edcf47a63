//! Why a version was not sent or received.

use crate::error::{Bytes, ImportError, StoreError};
use std::io;
use std::path::PathBuf;

/// A version was not sent, or not received: nothing of it is in the store then.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version that is sent has changed since it was imported.
    #[error("{0}")]
    Flawed(String),
    /// Who takes it does so no more.
    #[error("it can't be sent further")]
    Write(#[source] io::Error),
    /// Who sends it sends no more.
    #[error("it broke off")]
    Read(#[source] io::Error),
    /// It is something else, or was changed on its way.
    #[error(
        "this is no image that bootlace image send has sent, or it was damaged on its way: {0}"
    )]
    Malformed(String),
    /// A later Bootlace has sent it.
    #[error("a newer Bootlace has sent this ({0}): install that one here, too")]
    Newer(String),
    /// It is of what differs from a version that is not here.
    #[error(
        "it holds only what differs from {base} (digest {}…), which is not here, or is damaged: receive that one first, or send it without \
         --from",
        &digest[..digest.len().min(12)]
    )]
    NoBase {
        /// That version, as its sender calls it.
        base: String,
        /// Its digest.
        digest: String,
    },
    /// It goes on where this store is not.
    #[error(
        "it begins at byte {at_bytes} of the disk, and {done_bytes} have come so far: send it with --resume-at {done_bytes}"
    )]
    Gap {
        /// Where it begins.
        at_bytes: u64,
        /// What is there.
        done_bytes: u64,
    },
    /// Somebody else is at it.
    #[error("another one is receiving the same version at this moment: wait until that has ended")]
    Busy,
    /// Before anything is written: it would not fit.
    #[error(
        "the image needs up to {}, and the disk of the image store in {path} has {} free, of which {} are kept for machines that start: \
         free at least {} there, and send it again",
        Bytes(*needed_bytes),
        Bytes(*free_bytes),
        Bytes(*reserve_bytes),
        Bytes(needed_bytes.saturating_add(*reserve_bytes).saturating_sub(*free_bytes))
    )]
    NoRoom {
        /// The image store.
        path: PathBuf,
        /// What is needed at most.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
        /// What of it must stay free.
        reserve_bytes: u64,
    },
    /// Meanwhile.
    #[error(
        "the disk of the image store in {path} became full: nothing was received. Make room there, and send it again"
    )]
    DiskFull {
        /// The image store.
        path: PathBuf,
    },
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
}

impl StreamError {
    /// Whether what has come before is worth being kept: nothing shows that it is wrong.
    pub fn may_go_on(&self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Write(_)
                | Self::Stopped
                | Self::DiskFull { .. }
                | Self::NoRoom { .. }
                | Self::NoBase { .. }
                | Self::Gap { .. }
        )
    }
}

impl From<ImportError> for StreamError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Store(error) => Self::Store(error),
            ImportError::Stopped => Self::Stopped,
            other => Self::Malformed(other.to_string()),
        }
    }
}
