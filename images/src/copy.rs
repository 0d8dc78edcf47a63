//! Reading a whole disk once: sparse copy and digest.

use crate::digest::{Digest, PIECE_BYTES};
use crate::progress::{Progress, Step};
use crate::stop::Stop;
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeroes of this size, aligned, become holes.
const HOLE_BYTES: usize = 4096;

/// A whole disk could not be copied.
pub(crate) enum CopyError {
    /// It was told to.
    Stopped,
    Read(io::Error),
    Write(io::Error),
}

/// What is read once.
pub(crate) struct Read<'a> {
    pub(crate) source: &'a File,
    /// All of it.
    pub(crate) size_bytes: u64,
    /// Zeroes fill it up to this.
    pub(crate) padded_bytes: u64,
}

impl Read<'_> {
    /// Returns the BLAKE3 of all bytes.
    ///
    /// With a `target`, which must be a new file, the data is copied there; zeroes stay holes.
    pub(crate) fn run(
        &self,
        target: Option<&File>,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<String, CopyError> {
        let &Self { source, size_bytes, padded_bytes } = self;
        let step = if target.is_some() { Step::Copy } else { Step::Digest };
        if let Some(target) = target {
            target.set_len(padded_bytes).map_err(CopyError::Write)?;
        }
        // Only advice: read ahead more.
        let _ = fadvise(source, 0, None, Advice::Sequential);
        let zeroes = vec![0; PIECE_BYTES];
        let mut piece = vec![0; PIECE_BYTES];
        let mut digest = Digest::new();
        let mut position = 0;
        let mut data = 0..0;
        while position < padded_bytes {
            let done_bytes = position.min(size_bytes);
            progress(Progress { step, done_bytes, total_bytes: size_bytes });
            if stop.is_stopping() {
                return Err(CopyError::Stopped);
            }
            if position >= data.end && position < size_bytes {
                data = next_data(source, position, size_bytes).map_err(CopyError::Read)?;
            }
            let empty_until = if data.start > position { data.start } else { position };
            let n_empty = (empty_until - position) / PIECE_BYTES as u64;
            if n_empty > 0 {
                let count = n_empty.min(digest.zeroes_max());
                digest.zeroes(count);
                position += count * PIECE_BYTES as u64;
                continue;
            }
            let bytes = &mut piece[..(padded_bytes - position).min(PIECE_BYTES as u64) as usize];
            // Where it has holes, and behind its end, this is as good.
            let there = size_bytes.saturating_sub(position).min(bytes.len() as u64) as usize;
            bytes[there..].fill(0);
            source.read_exact_at(&mut bytes[..there], position).map_err(CopyError::Read)?;
            digest.piece(bytes);
            if let Some(target) = target {
                write_sparse(target, bytes, position, &zeroes).map_err(CopyError::Write)?;
            }
            position += bytes.len() as u64;
        }
        progress(Progress { step, done_bytes: size_bytes, total_bytes: size_bytes });
        Ok(digest.finish().to_hex().to_string())
    }
}

/// The next range of `source` from `position` on that is no hole; empty at the end if only holes follow.
fn next_data(source: &File, position: u64, size_bytes: u64) -> io::Result<std::ops::Range<u64>> {
    let start = match seek(source, SeekFrom::Data(position)) {
        Ok(start) => start,
        // Only a hole is left.
        Err(rustix::io::Errno::NXIO) => return Ok(size_bytes..size_bytes),
        // A block device, or a file system without holes: all of it is data.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
            return Ok(position..size_bytes);
        }
        Err(error) => return Err(error.into()),
    };
    let end = seek(source, SeekFrom::Hole(start))?;
    Ok(start.min(size_bytes)..end.clamp(start, size_bytes.max(start)))
}

/// Writes the blocks that are not all zero, in runs.
pub(crate) fn write_sparse(
    target: &File,
    bytes: &[u8],
    offset: u64,
    zeroes: &[u8],
) -> io::Result<()> {
    let mut position = 0;
    while position < bytes.len() {
        let start = position;
        let is_zero = |at: usize| {
            let block = &bytes[at..bytes.len().min(at + HOLE_BYTES)];
            block == &zeroes[..block.len()]
        };
        let run_is_zero = is_zero(position);
        while position < bytes.len() && is_zero(position) == run_is_zero {
            position = bytes.len().min(position + HOLE_BYTES);
        }
        if !run_is_zero {
            target.write_all_at(&bytes[start..position], offset + start as u64)?;
        }
    }
    Ok(())
}
