//! A file or block device that clients write to.

use crate::block::{Zeroes, check_range};
use crate::filter::Filter;
use crate::flush::Flushes;
use crate::raw::RawFile;
use crate::sparse;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What an acknowledged write outlives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: over AoE each write, over NBD after a flush.
    #[default]
    Durable,
    /// The end of this process; a power cut only after a flush, over AoE too.
    Buffered,
    /// The end of this process; flushes do nothing.
    Ephemeral,
}

/// A raw disk, writable: it is read as a [`RawFile`].
#[derive(Debug)]
pub struct DiskFile {
    raw: RawFile,
    durability: Durability,
    flushes: Flushes,
}

impl DiskFile {
    /// An open file or device of so many bytes, see [`RawFile::in_sectors`].
    pub fn new(file: File, file_bytes: u64, durability: Durability) -> Self {
        Self { raw: RawFile::in_sectors(file, file_bytes), durability, flushes: Flushes::default() }
    }

    fn check_writable(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(offset, length, self.size_bytes())?;
        self.flushes.check()
    }
}

impl Filter for DiskFile {
    type Below = RawFile;

    fn below(&self) -> &RawFile {
        &self.raw
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable(offset, data.len() as u64)?;
        self.raw.file().write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        if self.durability == Durability::Ephemeral {
            return Ok(());
        }
        self.write_back()
    }

    fn write_back(&self) -> io::Result<()> {
        self.flushes.run(|| self.raw.file().sync_data())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_writable(offset, length)?;
        sparse::punch(self.raw.file(), offset, length).map(drop)
    }

    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        self.check_writable(offset, length)?;
        sparse::write_zeroes(self.raw.file(), offset, length, how)
    }

    fn is_read_only(&self) -> bool {
        self.flushes.has_failed()
    }

    fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Extent;
    use std::os::fd::OwnedFd;

    const SIZE: u64 = 1 << 20;

    fn disk() -> DiskFile {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        DiskFile::new(file, SIZE, Durability::Durable)
    }

    #[test]
    fn what_is_written_is_data_and_the_rest_is_a_hole() {
        let disk = disk();
        disk.write_at(&[7; 4096], 8192).unwrap();
        disk.flush().unwrap();
        assert_eq!(disk.extent(0, SIZE).unwrap(), Extent { length: 8192, is_hole: true });
        assert_eq!(disk.extent(8192, 100).unwrap(), Extent { length: 100, is_hole: false });
        assert_eq!(disk.extent(8192, SIZE - 8192).unwrap().length, 4096);
        assert!(disk.extent(SIZE - 5, 5).unwrap().is_hole);
    }

    #[test]
    fn zeroed_and_trimmed_bytes_read_as_zeroes() {
        let ways = [
            Zeroes::default(),
            Zeroes { keep_space: true, ..Zeroes::default() },
            Zeroes { only_fast: true, ..Zeroes::default() },
        ];
        for how in ways {
            let disk = disk();
            disk.write_at(&[7; 12288], 0).unwrap();
            disk.write_zeroes(100, 5000, how).unwrap();
            let mut buffer = [9; 12288];
            disk.read_at(&mut buffer, 0).unwrap();
            assert!(buffer[..100] == [7; 100] && buffer[100..5100] == [0; 5000], "{how:?}");
            assert!(buffer[5100..] == [7; 12288 - 5100], "{how:?}");
        }
        let disk = disk();
        disk.write_at(&[7; 8192], 0).unwrap();
        disk.trim(0, 4096).unwrap();
        assert!(disk.extent(0, 4096).unwrap().is_hole);
    }

    #[test]
    fn an_ephemeral_disk_is_written_back_though_its_flushes_do_nothing() {
        // Who tries to sync a pipe gets an error.
        let (pipe, _other_end) = io::pipe().unwrap();
        let disk = DiskFile::new(OwnedFd::from(pipe).into(), SIZE, Durability::Ephemeral);
        disk.flush().unwrap();
        assert!(!disk.is_read_only());
        assert!(disk.write_back().is_err() && disk.is_read_only());
    }

    #[test]
    fn nothing_is_done_beyond_the_end() {
        let disk = disk();
        for done in [
            disk.write_at(&[1; 2], SIZE - 1),
            disk.trim(SIZE, 1),
            disk.write_zeroes(u64::MAX, 1, Zeroes::default()),
            disk.extent(SIZE, 1).map(drop),
        ] {
            assert_eq!(done.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
