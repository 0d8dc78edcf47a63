//! A raw disk image in a file, read-only: the base that all machines share.

use crate::block::{Block, Extent, Zeroes, read_only_error};
use crate::file_bytes::FileBytes;
use std::fs::File;
use std::io;
use std::path::Path;

/// A read-only file as a disk.
///
/// Share one per image version: all readers of one inode share its page cache, so a hundred machines
/// booting the same image read the server's disk once.
#[derive(Debug)]
pub struct RawFile {
    bytes: FileBytes,
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
        Self { bytes: FileBytes::new(file, size_bytes) }
    }
}

impl Block for RawFile {
    fn size_bytes(&self) -> u64 {
        self.bytes.size_bytes()
    }

    fn grow(&self) -> io::Result<u64> {
        self.bytes.grow()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.read_at(buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.bytes.read_cached(buffer, offset)
    }

    fn file_of(&self, _offset: u64, _length: u64) -> Option<&File> {
        Some(&self.bytes.file)
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _how: Zeroes) -> io::Result<()> {
        Err(read_only_error())
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        self.bytes.extent(offset, length)
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        self.bytes.hole_at(offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        self.bytes.prefetch(offset, length);
    }

    fn is_read_only(&self) -> bool {
        true
    }
}
