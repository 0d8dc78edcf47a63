//! Files inside an image, read without mounting it and without root.

mod ext4;
mod look;
mod readers;
mod squashfs;
mod tree;

use crate::block::Block;
use crate::entry::Entry;
use crate::error::RootfsError;
use crate::ext4::Visit;
use crate::fat::Fat;
use crate::stop::Stop;
use crate::volumes::{Content, FAT, Volume};
use model::FileSystem;
use std::sync::Arc;

pub use look::{FileReader, Looked};

/// A file of this size or more is not read into memory: no kernel or module is that big.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why a look at a whole file system ended.
pub(crate) enum CheckError {
    /// It was told to.
    Stopped,
    /// Something there is damaged.
    Damaged(RootfsError),
}

/// A file system of an image: its root, or that of `/boot`.
///
/// Paths are absolute inside the image; links are followed inside the image only. Not `Send`: open one
/// per thread, that takes well under a millisecond.
pub struct Rootfs {
    files: Box<dyn Files>,
}

/// What each kind of file system does for [`Rootfs`], in its words.
trait Files {
    fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError>;
    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError>;
    fn exists(&self, path: &str) -> Result<bool, RootfsError>;
    fn canonicalize(&self, path: &str) -> Result<String, RootfsError>;

    /// What a path leads to, which is canonical: the first entries of a folder, or a file.
    fn look(&self, path: String, entries_max: usize) -> Result<Looked, RootfsError> {
        let mut entries = self.list(&path)?;
        let is_cut = entries.len() > entries_max;
        entries.truncate(entries_max);
        let entries = entries.into_iter().map(|entry| (entry, None)).collect();
        Ok(Looked { path, entries, is_cut })
    }

    fn open_file(&self, path: &str) -> Result<FileReader, RootfsError> {
        let bytes = self.read(path, FILE_BYTES_MAX)?;
        let left_bytes = bytes.len() as u64;
        Ok(FileReader { left_bytes, path: path.to_owned(), from: look::From::Memory(bytes) })
    }

    /// Of what has no permissions, or none that are read here, nobody knows.
    fn is_for_all(&self, _path: &str) -> Result<bool, RootfsError> {
        Ok(false)
    }

    /// Linux has met errors in it, and nobody has repaired them since.
    fn has_errors(&self) -> bool {
        false
    }

    fn check_mounts(&self) -> Result<(), RootfsError> {
        Ok(())
    }

    fn walk(&self, _visit: Visit<'_>) -> Result<(), RootfsError> {
        let told =
            "only the files of ext4 are told with their owners: export the whole disk instead";
        Err(RootfsError::FileSystem(told.to_owned()))
    }

    fn check(&self, _stop: &Stop) -> Result<(), CheckError> {
        Ok(())
    }
}

impl Files for Fat {
    fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        self.read(path, bytes_max)
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        self.list(path)
    }

    fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        self.exists(path)
    }

    /// Has no links, and no difference between upper and lower case.
    fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        match self.exists(path)? {
            true => Ok(path.to_owned()),
            false => Err(RootfsError::NotFound(path.to_owned())),
        }
    }
}

impl Rootfs {
    /// Opens the file system in a place of a disk: one that can be a root, or FAT. Of btrfs, the subvolume that a
    /// machine would take for its root.
    ///
    /// # Errors
    /// There is no such file system; it is damaged, cut off, or uses features that can't be read.
    pub fn open(disk: Arc<dyn Block>, volume: &Volume) -> Result<Self, RootfsError> {
        let (disk, offset) = volume.view(disk);
        let size_bytes = volume.size_bytes;
        let files: Box<dyn Files> = match volume.content {
            Content::Root(FileSystem::Ext4) => {
                Box::new(ext4::Ext4Files::open(disk, offset, size_bytes)?)
            }
            Content::Root(FileSystem::Xfs) => readers::xfs(disk, offset, size_bytes)?,
            Content::Root(FileSystem::Btrfs) => readers::btrfs(disk, offset, size_bytes)?,
            Content::Root(FileSystem::Squashfs) => readers::squashfs(disk, offset, size_bytes)?,
            Content::Root(FileSystem::Erofs) => readers::erofs(disk, offset, size_bytes)?,
            Content::Other(FAT) => Box::new(Fat::open(disk, offset, size_bytes)?),
            other @ (Content::Other(_) | Content::Unknown) => {
                return Err(RootfsError::FileSystem(format!("there is {other}")));
            }
        };
        Ok(Self { files })
    }

    /// Linux has met errors in it, and nobody has repaired them since.
    pub(crate) fn has_errors(&self) -> bool {
        self.files.has_errors()
    }

    /// Whether Linux mounts it, as far as that can be told without it: of ext4 all that its driver looks at, of others no
    /// more than that it can be opened.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn check_mounts(&self) -> Result<(), RootfsError> {
        self.files.check_mounts()
    }

    /// What a path leads to, links followed: the first `entries_max` entries of a folder, or a file.
    ///
    /// # Errors
    /// It leads nowhere, in circles, or through what is damaged.
    pub fn look(&self, path: &str, entries_max: usize) -> Result<Looked, RootfsError> {
        self.files.look(self.canonicalize(path)?, entries_max)
    }

    /// Whether any user of the system may read the file at a path, as far as that is known; else nobody but root.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub(crate) fn is_for_all(&self, path: &str) -> Result<bool, RootfsError> {
        self.files.is_for_all(path)
    }

    /// Opens a regular file to be read in pieces; links are followed. Of other file systems than ext4 all of it is read at
    /// once.
    ///
    /// # Errors
    /// It is none, or damaged.
    pub fn open_file(&self, path: &str) -> Result<FileReader, RootfsError> {
        self.files.open_file(path)
    }

    /// Gives `visit` all that is in it.
    ///
    /// # Errors
    /// It is damaged, or of a kind of which only single files are read; or `visit` fails.
    pub(crate) fn walk(&self, visit: Visit<'_>) -> Result<(), RootfsError> {
        self.files.walk(visit)
    }

    /// Looks at all folders and at what they name, as far as their checksums tell: what is damaged there would be found
    /// by machines.
    ///
    /// # Errors
    /// The first that is damaged, or it was told to stop.
    pub(crate) fn check(&self, stop: &Stop) -> Result<(), CheckError> {
        self.files.check(stop)
    }

    /// The whole content of a file; links are followed.
    ///
    /// # Errors
    /// The file is missing, is not a regular file, has more than 512 MiB, or is damaged.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, RootfsError> {
        self.read_at_most(path, FILE_BYTES_MAX)
    }

    /// The whole content of a file that is no longer than this.
    ///
    /// # Errors
    /// As [`read`](Self::read), or it is longer.
    pub fn read_at_most(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        self.files.read(path, bytes_max)
    }

    /// The entries of a folder, sorted by name, without `.` and `..`; links to it are followed.
    ///
    /// Names that are no UTF-8 are left out.
    ///
    /// # Errors
    /// The folder is missing, is not a folder, or is damaged.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        self.files.list(path)
    }

    /// Whether the path leads to something; a dangling link does not, nor does one that runs in circles.
    ///
    /// # Errors
    /// It can't be told, since what is on the way to it can't be read.
    pub fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        self.files.exists(path)
    }

    /// The path with all links resolved.
    ///
    /// # Errors
    /// The path leads nowhere, or in circles.
    pub fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        self.files.canonicalize(path)
    }
}
