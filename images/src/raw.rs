//! A raw disk image in a file, read-only: the base that all machines share.

use crate::block::{Block, Extent, check_range};
use crate::cached::CachedReads;
use crate::sparse;
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What disks consist of.
const SECTOR_BYTES: u64 = 512;

/// A file or block device as a disk, read-only.
///
/// Share one per image version: all readers of one inode share its page cache, so a hundred machines
/// booting the same image read the server's disk once.
#[derive(Debug)]
pub struct RawFile {
    file: Arc<File>,
    size_bytes: AtomicU64,
    /// Where the file ended when it was looked at last; up to the end of the disk there are zeroes.
    file_bytes: AtomicU64,
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
        let (size_bytes, file_bytes) = (AtomicU64::new(size_bytes), AtomicU64::new(size_bytes));
        Self { file: Arc::new(file), size_bytes, file_bytes, cached: CachedReads::default() }
    }

    /// An open file or device of so many bytes as a disk of whole sectors: the last one is filled up with zeroes, which
    /// the file does not have before somebody writes there.
    pub fn in_sectors(file: File, file_bytes: u64) -> Self {
        let size_bytes = AtomicU64::new(file_bytes.next_multiple_of(SECTOR_BYTES));
        Self { size_bytes, ..Self::of_size(file, file_bytes) }
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

    /// Whether the file has all of this range, as far as is known.
    fn is_within_file(&self, offset: u64, length: u64) -> bool {
        offset + length <= self.file_bytes.load(Ordering::Acquire)
    }

    /// Reads what reaches beyond the end of the file.
    fn read_end(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (had_bytes, has_bytes) =
            (self.file_bytes.load(Ordering::Acquire), self.file.as_ref().seek(SeekFrom::End(0))?);
        if has_bytes < had_bytes {
            let text =
                format!("the file has become shorter: from {had_bytes} to {has_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let there = has_bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.file.read_exact_at(&mut buffer[..there], offset)?;
        buffer[there..].fill(0);
        Ok(())
    }
}

impl Block for RawFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// It never shrinks: clients were told what there is.
    fn grow(&self) -> io::Result<u64> {
        let file_bytes = self.file.as_ref().seek(SeekFrom::End(0))?;
        self.file_bytes.fetch_max(file_bytes, Ordering::AcqRel);
        let size_bytes = file_bytes.next_multiple_of(SECTOR_BYTES);
        let before = self.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        Ok(before.max(size_bytes))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.read_end(buffer, offset)
            }
            done => done,
        }
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.check_range(offset, buffer.len() as u64)?;
        match self.cached.read(&self.file, buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.read_end(buffer, offset).map(|()| true)
            }
            read => read,
        }
    }

    fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        self.is_within_file(offset, length).then(|| Arc::clone(&self.file))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskFile, Durability};

    /// In memory, where reads of the page cache fail otherwise than elsewhere, and not.
    fn files() -> impl Iterator<Item = File> {
        let folders = ["/dev/shm", "/var/tmp"].into_iter();
        folders.map(|folder| {
            let file = tempfile::tempfile_in(folder).unwrap();
            file.write_all_at(&[7; 1000], 0).unwrap();
            file
        })
    }

    #[test]
    fn the_last_sector_is_filled_up_with_zeroes() {
        for file in files() {
            let disk = RawFile::in_sectors(file, 1000);
            assert_eq!((disk.size_bytes(), disk.grow().unwrap()), (1024, 1024));
            let mut sector = [9; 512];
            disk.read_at(&mut sector, 512).unwrap();
            assert!(sector[..488] == [7; 488] && sector[488..] == [0; 24]);
            let mut cached = [9; 512];
            assert!(!disk.read_cached(&mut cached, 512).unwrap() || cached == sector);
            let mut beyond = [9; 4];
            disk.read_at(&mut beyond, 1010).unwrap();
            assert_eq!(beyond, [0; 4]);
            assert!(disk.extent(1000, 24).unwrap().is_hole);
            assert!(disk.file_of(0, 1000).is_some() && disk.file_of(512, 512).is_none());
            assert!(disk.read_at(&mut beyond, 1024).is_err());
        }
    }

    #[test]
    fn what_is_written_to_the_last_sector_is_kept() {
        for file in files() {
            let copy = file.try_clone().unwrap();
            let disk = DiskFile::new(file, 1000, Durability::Durable);
            disk.write_at(&[5; 2], 1020).unwrap();
            let mut end = [9; 24];
            Block::read_at(&disk, &mut end, 1000).unwrap();
            assert!(end[..20] == [0; 20] && end[20..] == [5, 5, 0, 0], "{end:?}");
            assert_eq!(copy.metadata().unwrap().len(), 1022);
            assert_eq!(Block::size_bytes(&disk), 1024);
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_called_so() {
        for file in files() {
            file.set_len(4096).unwrap();
            let disk = RawFile::in_sectors(file, 4096);
            disk.file().set_len(4000).unwrap();
            let expected = "the file has become shorter: from 4096 to 4000 bytes";
            let error = disk.read_at(&mut [0; 512], 3584).unwrap_err();
            assert_eq!(error.to_string(), expected);
            if let Err(error) = disk.read_cached(&mut [0; 512], 3584) {
                assert_eq!(error.to_string(), expected);
            }
            disk.read_at(&mut [0; 512], 0).unwrap();
        }
    }
}
