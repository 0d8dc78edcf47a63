//! Reading a file or block device as a disk.

use crate::block::{Extent, check_range};
use crate::cached::CachedReads;
use crate::sparse;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct FileBytes {
    pub(crate) file: File,
    size_bytes: AtomicU64,
    cached: CachedReads,
}

impl FileBytes {
    pub(crate) fn new(file: File, size_bytes: u64) -> Self {
        let size_bytes = AtomicU64::new(size_bytes);
        Self { file, size_bytes, cached: CachedReads::default() }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Takes over what the file has grown by. It never shrinks: clients were told what there is.
    pub(crate) fn grow(&self) -> io::Result<u64> {
        let size_bytes = (&self.file).seek(SeekFrom::End(0))?;
        let before = self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(before.max(size_bytes))
    }

    pub(crate) fn check_range(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(offset, length, self.size_bytes())
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        self.file.read_exact_at(buffer, offset)
    }

    pub(crate) fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.check_range(offset, buffer.len() as u64)?;
        self.cached.read(&self.file, buffer, offset)
    }

    pub(crate) fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        self.check_range(offset, length)?;
        sparse::extent(&self.file, offset, length)
    }

    pub(crate) fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        self.check_range(offset, length)?;
        sparse::hole_at(&self.file, offset, length)
    }

    pub(crate) fn prefetch(&self, offset: u64, length: u64) {
        sparse::prefetch(&self.file, offset, length);
    }
}
