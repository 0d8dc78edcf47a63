//! A raw disk image in a file, read-only: the base that all machines share.

use crate::block::{Block, Extent, check_range};
use crate::cached::CachedReads;
use crate::sparse;
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file or block device as a disk, read-only.
///
/// Share one per image version: all readers of one inode share its page cache, so a hundred machines
/// booting the same image read the server's disk once.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    size_bytes: AtomicU64,
    cached: CachedReads,
}

impl RawFile {
    /// Opens an existing raw image.
    ///
    /// # Errors
    /// What the operating system says about the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self::of_size(file, size_bytes))
    }

    /// An open file or device whose size is known.
    pub fn of_size(file: File, size_bytes: u64) -> Self {
        let size_bytes = AtomicU64::new(size_bytes);
        Self { file, size_bytes, cached: CachedReads::default() }
    }

    /// The file, for who writes to it, too.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether this file is the one that has this name now.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let id = |file: Metadata| (file.dev(), file.ino());
        let named = std::fs::metadata(path).map(id);
        self.file.metadata().map(id).ok().is_some_and(|open| named.is_ok_and(|named| named == open))
    }

    fn check_range(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(offset, length, self.size_bytes())
    }
}

impl Block for RawFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// It never shrinks: clients were told what there is.
    fn grow(&self) -> io::Result<u64> {
        let size_bytes = (&self.file).seek(SeekFrom::End(0))?;
        let before = self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(before.max(size_bytes))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.check_range(offset, buffer.len() as u64)?;
        self.cached.read(&self.file, buffer, offset)
    }

    fn file_of(&self, _offset: u64, _length: u64) -> Option<&File> {
        Some(&self.file)
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        self.check_range(offset, length)?;
        sparse::extent(&self.file, offset, length)
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        self.check_range(offset, length)?;
        sparse::hole_at(&self.file, offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        sparse::prefetch(&self.file, offset, length);
    }
}
