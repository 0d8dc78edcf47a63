//! The files of a system, as checks read them: few, small, and from whoever made the image.

use crate::entry::Entry;
use crate::error::RootfsError;
use crate::rootfs::Rootfs;

/// Longest file that a check reads: a configuration is never that long.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Entries of one folder that checks look at.
const ENTRIES_MAX: usize = 4096;

/// What checks need of a file system.
pub(super) trait Files {
    /// See [`Rootfs::read_at_most`].
    fn read_at_most(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError>;
    /// See [`Rootfs::list`].
    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError>;
    /// See [`Rootfs::exists`].
    fn exists(&self, path: &str) -> Result<bool, RootfsError>;
    /// See [`Rootfs::canonicalize`].
    fn canonicalize(&self, path: &str) -> Result<String, RootfsError>;
    /// See [`Rootfs::is_for_all`].
    fn is_for_all(&self, path: &str) -> Result<bool, RootfsError>;
}

impl Files for Rootfs {
    fn read_at_most(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        Self::read_at_most(self, path, bytes_max)
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        Self::list(self, path)
    }

    fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        Self::exists(self, path)
    }

    fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        Self::canonicalize(self, path)
    }

    fn is_for_all(&self, path: &str) -> Result<bool, RootfsError> {
        Self::is_for_all(self, path)
    }
}

/// The same, in the words of checks.
pub(super) struct Tree<'a> {
    files: &'a dyn Files,
}

impl<'a> Tree<'a> {
    pub(super) fn new(files: &'a dyn Files) -> Self {
        Self { files }
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        self.files.exists(path)
    }

    /// Whether any user of the system may read the file.
    pub(super) fn is_for_all(&self, path: &str) -> Result<bool, RootfsError> {
        self.files.is_for_all(path)
    }

    /// Where a path leads, without links.
    pub(super) fn real(&self, path: &str) -> Result<String, RootfsError> {
        self.files.canonicalize(path)
    }

    /// The bytes of a file; `None`: there is none.
    pub(super) fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, RootfsError> {
        if !self.files.exists(path)? {
            return Ok(None);
        }
        match self.files.read_at_most(path, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            // A folder or a device in the place of a file is no configuration.
            Err(RootfsError::NoFile { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a file; empty if there is none.
    pub(super) fn text(&self, path: &str) -> Result<String, RootfsError> {
        let bytes = self.bytes(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is in a folder; empty if there is none.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        // Of a file the list is an error of its kind.
        if !self.files.exists(path)? || !self.files.exists(&format!("{path}/."))? {
            return Ok(Vec::new());
        }
        let mut entries = self.files.list(path)?;
        entries.truncate(ENTRIES_MAX);
        Ok(entries)
    }

    /// Files of a folder whose names end so, with their texts.
    pub(super) fn texts(
        &self,
        folder: &str,
        end: &str,
    ) -> Result<Vec<(String, String)>, RootfsError> {
        let entries = self.list(folder)?.into_iter().filter(|entry| entry.name.ends_with(end));
        let paths = entries.map(|entry| format!("{folder}/{}", entry.name));
        paths.map(|path| Ok((path.clone(), self.text(&path)?))).collect()
    }
}
