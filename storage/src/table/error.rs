//! Why there is no export.

use images::{LayerError, StoreError};
use model::{BootId, DiskId, ExportSpec};
use std::io;
use std::path::{Path, PathBuf};

/// An export can't be made, or the table can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image version is not in the store.
    #[error(transparent)]
    Image(#[from] StoreError),
    /// The write layer can't be had.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The machine has no export.
    #[error("{0} has no disk here: it gets one when it boots")]
    None(DiskId),
    /// The disk that was to be thrown away is not the one that has the name.
    #[error(
        "the disk that has the name {0} now is not the one that was to be thrown away: it is left alone"
    )]
    OtherDisk(DiskId),
    /// The disk that was to be thrown away is not there, nor anything else of the name.
    #[error("the disk of {0} that was to be thrown away is gone")]
    NoDisk(DiskId),
    /// Another machine has this AoE address.
    #[error(
        "the AoE address {address} is still in use by {other}: shut that PC down, and this one goes on by itself"
    )]
    AddressTaken {
        /// The address.
        address: model::ShelfSlot,
        /// Whose it is.
        other: DiskId,
    },
    /// The disk does not answer, so that the former boot's last writes can't be told from new ones.
    #[error(
        "requests of {0}'s former boot are still waiting for the storage server's disk: is it overloaded or \
         broken?"
    )]
    Busy(DiskId),
    /// No candidate of this boot is waiting.
    #[error(
        "boot {boot} of {disk} is not waiting for its disk: a later one has probably taken its place"
    )]
    NoCandidate {
        /// The machine.
        disk: DiskId,
        /// The boot.
        boot: BootId,
    },
    /// The boot that has the disk uses it.
    #[error(
        "{disk} is running in its boot {boot}: another boot gets the disk when that has been silent for 3 s, \
         or for 25 s after the storage server has started"
    )]
    Runs {
        /// The machine.
        disk: DiskId,
        /// The boot that runs.
        boot: BootId,
    },
    /// The key of a boot that has proven itself is not exchanged.
    #[error("{0} has opened its disk in this boot: its key stays what it is")]
    HasItsDisk(DiskId),
    /// The operating system has no randomness.
    #[error("the operating system gives no random numbers")]
    NoRandomness,
    /// The table's file can't be read or written.
    #[error("can't {action} the export table {path}")]
    Table {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The folder of the layers is not the one that it was.
    #[error(
        "{fact}. Mount it; if it was exchanged for good, remove {note}, and the folder is taken as it is now; disks that \
         are not in it are begun again by bootlace machine reset NAME",
        fact = other_folder(dir)
    )]
    OtherFolder {
        /// The folder.
        dir: PathBuf,
        /// What was noted of it.
        note: PathBuf,
    },
    /// The file that says which machines keep a disk is not what this program wrote.
    #[error(
        "{path} is damaged: {why}. It says which machines keep a disk; if all disks are in place, remove the file, and \
         it is made again"
    )]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The table's file is not what this program wrote.
    #[error(
        "the export table {path} is damaged: {why}. Running machines lose their disks without it; if \
         none runs, remove the file, and machines get new exports when they boot"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

fn other_folder(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "{dir} is not the folder in which machines' disks were: its file system is probably not mounted"
    )
}

impl ExportError {
    /// Whoever this export is for has the address.
    pub(super) fn address_taken(other: &ExportSpec) -> Self {
        Self::AddressTaken { address: other.shelf_slot, other: other.disk.clone() }
    }

    /// What is so, in one line with its causes; without what helps if that is the same for each disk that machines keep.
    pub(crate) fn fact(&self) -> String {
        let fact = match self {
            Self::Layer(error) => error.fact(),
            Self::OtherFolder { dir, .. } => Some(other_folder(dir)),
            _ => None,
        };
        fact.unwrap_or_else(|| wire::error_chain(self))
    }

    /// Whether it is only that the server's disk is full.
    pub(crate) fn is_lack_of_room(&self) -> bool {
        let is_full = |source: &io::Error| source.kind() == io::ErrorKind::StorageFull;
        match self {
            Self::Layer(LayerError::Full { .. }) => true,
            Self::Layer(LayerError::Io { source, .. }) | Self::Table { source, .. } => {
                is_full(source)
            }
            _ => false,
        }
    }
}
