//! Why there is no write layer.

use super::about::LayerMode;
use super::last_use::LastUse;
use model::{BootId, DiskId, DiskOwner, ImageName};
use std::io;
use std::path::{Path, PathBuf};

/// A write layer can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
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
    /// There is no room for a new layer.
    #[error(
        "the storage server's disk with {path} is full: delete files there that are not needed, or reset or remove machines"
    )]
    Full {
        /// The folder of the layers.
        path: PathBuf,
    },
    /// Another process has the folder.
    #[error(
        "the layers in {0} are in use by another storage server: it is running already; stop that one first"
    )]
    InUse(PathBuf),
    /// The machine's own disk belongs to another version. Mixing them would destroy the file system.
    #[error(
        "the persistent disk of {disk} was made on {image}/v{version}, not on {wanted}: assign \
         {image} again, or start over by bootlace machine reset {disk}"
    )]
    OtherParent {
        /// The disk.
        disk: DiskId,
        /// Image that the layer was made on.
        image: ImageName,
        /// Version that it was made on.
        version: u32,
        /// Version that is asked for, as `image/v2`.
        wanted: String,
    },
    /// The version that a persistent layer was made on has other content now.
    #[error(
        "the persistent disk of {disk} was made on {image}/v{version} when that had other content (BLAKE3 {made_on}…, \
         now {found}…): put the former files of that version back, or start over by bootlace machine reset {disk}"
    )]
    OtherContent {
        /// The disk.
        disk: DiskId,
        /// Image that the layer was made on.
        image: ImageName,
        /// Version that it was made on, and that is asked for.
        version: u32,
        /// Begin of the digest of what it was made on.
        made_on: Box<str>,
        /// Begin of the digest of what is there.
        found: Box<str>,
    },
    /// A discard layer did not survive a restart of the host.
    #[error(
        "what {disk} wrote in its boot {boot} was lost when this server restarted: {disk} must boot \
         again"
    )]
    Lost {
        /// The disk.
        disk: DiskId,
        /// The boot whose writes are lost.
        boot: BootId,
    },
    /// A persistent layer that was there is not.
    #[error(
        "{fact}. Mount it, or put the disk back from a backup; to begin a new one, bootlace machine reset {disk}",
        fact = missing(disk, dir)
    )]
    Missing {
        /// The disk.
        disk: DiskId,
        /// Where it should be.
        dir: PathBuf,
    },
    /// The layer that is there is not the one that the machine had last.
    #[error(transparent)]
    OtherCopy(Box<OtherCopy>),
    /// The layer that is there is of another machine, which had the name when it wrote it.
    #[error(transparent)]
    OtherOwner(Box<OtherOwner>),
    /// Of which machine the persistent layer is that is there can't be told.
    #[error(transparent)]
    OwnerUnknown(Box<OwnerUnknown>),
    /// A persistent layer's files are damaged.
    #[error(
        "{fact}. Put it back from a backup; to begin a new one, bootlace machine reset {disk}",
        fact = damaged(disk, path, why)
    )]
    Damaged {
        /// The disk.
        disk: DiskId,
        /// The damaged file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The disk has no such snapshot.
    #[error(
        "{disk} has no snapshot {number}: bootlace machine snapshots {disk} lists those that there are"
    )]
    NoSnapshot {
        /// The disk.
        disk: DiskId,
        /// The number that is asked for.
        number: u32,
    },
    /// There are as many snapshots as a disk may have.
    #[error(
        "the disk of {disk} has as many snapshots as one may have ({max}): delete some by bootlace machine snapshot-rm"
    )]
    TooManySnapshots {
        /// The disk.
        disk: DiskId,
        /// How many those are.
        max: usize,
    },
    /// The machine keeps no disk.
    #[error("{0} has no persistent disk, of which there could be a snapshot")]
    NoDisk(DiskId),
    /// The image can't be the parent of a layer.
    #[error("{image}/v{version} has a size of {size_bytes} bytes, which is not a multiple of 512")]
    OddSize {
        /// The image.
        image: ImageName,
        /// Its version.
        version: u32,
        /// Its size.
        size_bytes: u64,
    },
    /// The digest of the base is no BLAKE3.
    #[error("the digest {0:?} of the image version is not 64 hexadecimal digits")]
    Digest(String),
}

/// The layer that is there is not the one that the machine had last: an older copy of it, or another one.
#[derive(Debug, thiserror::Error)]
#[error("{fact}. {remedy}", fact = self.fact(), remedy = self.remedy())]
pub struct OtherCopy {
    /// The disk.
    pub disk: DiskId,
    /// What becomes of its writes.
    pub mode: LayerMode,
    /// The folder of the layers.
    pub dir: PathBuf,
    /// What is there.
    pub found: LastUse,
    /// What was noted when the machine had it last.
    pub noted: LastUse,
    /// The file that says that what is there is to be taken all the same.
    pub put_back: PathBuf,
}

impl OtherCopy {
    fn fact(&self) -> String {
        let Self { disk, dir, found, noted, .. } = self;
        let kind = match self.mode {
            LayerMode::Persistent => "the persistent disk",
            LayerMode::Discard => "the disk",
        };
        format!(
            "{kind} of {disk} in {} ({found}) is an older copy, or another one, and not the one that it had last \
             ({noted}): the file system that holds that one is probably not mounted",
            dir.display()
        )
    }

    fn remedy(&self) -> String {
        let Self { disk, put_back, .. } = self;
        match self.mode {
            LayerMode::Discard => {
                format!("Mount it, or restart {disk}, which forgets what it wrote")
            }
            LayerMode::Persistent => format!(
                "Mount it; if the older one was put back on purpose, touch {}, and it is taken; to begin a new one, bootlace \
                 machine reset {disk}",
                put_back.display()
            ),
        }
    }
}

/// The persistent layer that is there is of another machine, which had the name when it wrote it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the persistent disk of {disk} in {dir} is of another machine that had this name ({noted}), and not of this one \
     ({asked}): an older database was probably restored. If it is to have that disk all the same, touch {take_over}, and it \
     gets it; to delete it and begin a new one, bootlace machine reset {disk}",
    dir = dir.display(),
    take_over = take_over.display()
)]
pub struct OtherOwner {
    /// The disk that is asked for.
    pub disk: DiskId,
    /// The folder of the layers.
    pub dir: PathBuf,
    /// Who has had it last.
    pub noted: DiskOwner,
    /// Who asks.
    pub asked: DiskOwner,
    /// The file that says that it is to be given all the same.
    pub take_over: PathBuf,
}

/// What says of which machine a persistent layer is can't be read; the layer itself may be as it should be.
#[derive(Debug, thiserror::Error)]
#[error(
    "whose the persistent disk of {disk} is can't be read: {path}: {why}. If {disk} is to have that disk, touch {take_over}, \
     and it gets it; to delete it and begin a new one, bootlace machine reset {disk}",
    path = path.display(),
    take_over = take_over.display()
)]
pub struct OwnerUnknown {
    /// The disk.
    pub disk: DiskId,
    /// What should say it.
    pub path: PathBuf,
    /// What is wrong with that.
    pub why: String,
    /// The file that says that the machine is to have the layer all the same.
    pub take_over: PathBuf,
}

impl LayerError {
    /// What is so of a disk that a machine keeps, without what helps: who lists such disks says that once. `None`: it is
    /// another error.
    pub fn fact(&self) -> Option<String> {
        match self {
            Self::Missing { disk, dir } => Some(missing(disk, dir)),
            Self::Damaged { disk, path, why } => Some(damaged(disk, path, why)),
            // What helps is not the same for all: only who has put it back knows.
            Self::OtherCopy(other) => Some(other.to_string()),
            Self::OtherOwner(other) => Some(other.to_string()),
            Self::OwnerUnknown(unknown) => Some(unknown.to_string()),
            _ => None,
        }
    }
}

fn missing(disk: &DiskId, dir: &Path) -> String {
    format!(
        "the persistent disk of {disk} is not in {}, where it was: the file system that holds it is probably not mounted",
        dir.display()
    )
}

fn damaged(disk: &DiskId, path: &Path, why: &str) -> String {
    format!("the persistent disk of {disk} is damaged: {}: {why}", path.display())
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> LayerError + use<> {
    let path = path.to_owned();
    move |source| LayerError::Io { action, path, source }
}
