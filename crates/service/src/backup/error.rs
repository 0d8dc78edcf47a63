//! What is wrong with a backup.

use std::io;

/// The file can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("it is not a backup of Bootlace")]
    NoBackup,
    /// There is nothing in it.
    #[error("it is empty: probably its disk was full when it was written. Take another one")]
    Empty,
    /// It ends too early.
    #[error("it is cut off: {0} is not all there. Copy it again, or take another one")]
    CutOff(String),
    /// The manifest makes no sense.
    #[error("its manifest is damaged: {0}")]
    Manifest(String),
    /// It was made by a newer Bootlace.
    #[error(
        "it has format {found}, and this Bootlace knows only format {known}: use the newer one that made it"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// What follows the manifest is not what the manifest says.
    #[error("{name} in it is damaged: {why}")]
    Damaged {
        /// Name of the file in the backup.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// What was read can't be kept, or what is to be written can't be read.
    #[error("can't {action} {name}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}
