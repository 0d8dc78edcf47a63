//! Files with holes: where they are, and how they are made.

use crate::block::{Extent, Zeroes};
use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// Zeroes that are written at once where there is no better way.
const ZEROES_BYTES: usize = 256 << 10;

/// What is at `offset`, for at most `length` bytes. Files that can't tell are all data.
pub(crate) fn extent(file: &File, offset: u64, length: u64) -> io::Result<Extent> {
    let hole = hole_at(file, offset, length)?;
    if hole > 0 {
        return Ok(Extent { length: hole, is_hole: true });
    }
    let end = offset + length;
    let data_end = match seek(file, SeekFrom::Hole(offset)) {
        Ok(hole) => hole.clamp(offset + 1, end),
        Err(Errno::INVAL) => end,
        Err(error) => return Err(error.into()),
    };
    Ok(Extent { length: data_end - offset, is_hole: false })
}

/// How much from `offset` is a hole, for at most `length` bytes.
pub(crate) fn hole_at(file: &File, offset: u64, length: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data.min(offset + length) - offset),
        // No data from here to the end.
        Err(Errno::NXIO) => Ok(length),
        // A block device.
        Err(Errno::INVAL) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Gives the space back. `false` if the file system can't, or not at these offsets.
pub(crate) fn punch(file: &File, offset: u64, length: u64) -> io::Result<bool> {
    allocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
}

/// Makes the range read as zeroes.
pub(crate) fn write_zeroes(file: &File, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
    let is_done = if how.keep_space {
        allocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, length)?
    } else {
        punch(file, offset, length)?
    };
    if is_done {
        return Ok(());
    }
    if how.only_fast {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let zeroes = vec![0; ZEROES_BYTES.min(length as usize)];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..step as usize], offset + done)?;
        done += step;
    }
    Ok(())
}

/// Starts reading the range into memory.
pub(crate) fn prefetch(file: &File, offset: u64, length: u64) {
    if let Some(length) = NonZeroU64::new(length) {
        // Only advice: whoever reads finds out what is wrong.
        let _ = fadvise(file, offset, Some(length), Advice::WillNeed);
    }
}

fn allocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(true);
    }
    match fallocate(file, flags, offset, length) {
        Ok(()) => Ok(true),
        // Block devices want whole sectors.
        Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
