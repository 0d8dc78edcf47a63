//! Files inside an image, read without mounting it and without root.

use crate::block::Block;
use crate::error::RootfsError;
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType};
use std::sync::Arc;

/// A file of this size or more is not read into memory: no kernel or module is that big.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The root file system of an image.
///
/// Paths are absolute inside the image; links are followed inside the image only. Not `Send`: open one
/// per thread, that takes well under a millisecond.
pub struct Rootfs {
    file_system: Ext4,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without folder.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// Kind of a folder's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Special,
}

impl Rootfs {
    /// Opens the ext2, ext3 or ext4 file system that begins at `offset` of a disk.
    ///
    /// # Errors
    /// There is no such file system, or it is damaged or uses features that can't be read.
    pub fn open(disk: Arc<dyn Block>, offset: u64) -> Result<Self, RootfsError> {
        let window = Window { disk, offset };
        let file_system = Ext4::load(Box::new(window))
            .map_err(|error| RootfsError::FileSystem(error.to_string()))?;
        Ok(Self { file_system })
    }

    /// The whole content of a file; links are followed.
    ///
    /// # Errors
    /// The file is missing, is not a regular file, has more than 512 MiB, or is damaged.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, RootfsError> {
        let length = self.file_system.metadata(path).map_err(error(path))?.len();
        if length > FILE_BYTES_MAX {
            let why = format!("it has {length} bytes, more than {FILE_BYTES_MAX}");
            return Err(RootfsError::Read { path: path.to_owned(), why });
        }
        self.file_system.read(path).map_err(error(path))
    }

    /// The entries of a folder, sorted by name, without `.` and `..`; links to it are followed.
    ///
    /// Names that are no UTF-8 are left out.
    ///
    /// # Errors
    /// The folder is missing, is not a folder, or is damaged.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        let mut entries = Vec::new();
        for entry in self.file_system.read_dir(path).map_err(error(path))? {
            let entry = entry.map_err(error(path))?;
            let name = entry.file_name();
            let Ok(name) = name.as_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type().map_err(error(path))? {
                FileType::Regular => EntryKind::File,
                FileType::Directory => EntryKind::Folder,
                FileType::Symlink => EntryKind::Link,
                _ => EntryKind::Special,
            };
            entries.push(Entry { name: name.to_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Whether the path leads to something; a dangling link does not.
    pub fn exists(&self, path: &str) -> bool {
        self.file_system.exists(path).unwrap_or(false)
    }

    /// The path with all links resolved.
    ///
    /// # Errors
    /// The path leads nowhere, or in circles.
    pub fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        let resolved = self.file_system.canonicalize(path).map_err(error(path))?;
        let resolved = resolved.to_str().map_err(|_| RootfsError::Read {
            path: path.to_owned(),
            why: "it leads to a name that is not UTF-8".to_owned(),
        })?;
        Ok(resolved.to_owned())
    }
}

/// A part of a disk, as the ext4 reader wants it.
struct Window {
    disk: Arc<dyn Block>,
    offset: u64,
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let offset = self.offset.checked_add(start).ok_or("offset beyond the end of the disk")?;
        self.disk.read_at(buffer, offset)?;
        Ok(())
    }
}

fn error(path: &str) -> impl FnOnce(Ext4Error) -> RootfsError {
    let path = path.to_owned();
    move |error| match error {
        Ext4Error::NotFound => RootfsError::NotFound(path),
        other => RootfsError::Read { path, why: other.to_string() },
    }
}
