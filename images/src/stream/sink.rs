//! The disk that comes out of a stream: written from its start to its end, and digested on the way.

use super::error::StreamError;
use super::parse::Records;
use crate::copy::write_sparse;
use crate::digest::{Digest, PIECE_BYTES};
use crate::error::io_error;
use crate::folder::{is_full, space};
use crate::progress::{Progress, Step};
use crate::sparse::hole_at;
use crate::stop::Stop;
use crate::store::whole_pieces;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// So often it is looked whether there is room, in pieces.
const ROOM_INTERVAL: u64 = 64;

const PIECE: u64 = PIECE_BYTES as u64;

/// A disk that is being written.
pub(super) struct Sink<'a> {
    /// Nowhere, if the stream is only checked.
    target: Option<Target>,
    /// What the records change.
    base: Option<Base>,
    size_bytes: u64,
    /// Where the next bytes go.
    position: u64,
    /// The piece at `position`, as far as it is known.
    piece: Vec<u8>,
    zeroes: Vec<u8>,
    digest: Digest,
    n_written: u64,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(Progress),
}

/// Where it is written.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) store: PathBuf,
}

/// The disk of a version that is here.
pub(super) struct Base {
    pub(super) file: File,
    pub(super) size_bytes: u64,
    pub(super) path: PathBuf,
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        target: Option<Target>,
        base: Option<Base>,
        size_bytes: u64,
        stop: &'a Stop,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        Self {
            target,
            base,
            size_bytes,
            position: 0,
            piece: Vec::with_capacity(PIECE_BYTES),
            zeroes: vec![0; PIECE_BYTES],
            digest: Digest::new(),
            n_written: 0,
            stop,
            progress,
        }
    }

    /// Reads what is there already of the target, up to the last whole piece. Returns how much that is.
    pub(super) fn go_on(&mut self) -> Result<u64, StreamError> {
        let Some(target) = &self.target else { return Ok(0) };
        let path = target.path.clone();
        let failed = |error| StreamError::from(io_error("read", &path)(error));
        let file = target.file.try_clone().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let length = whole_pieces(length, self.size_bytes);
        file.set_len(length).map_err(failed)?;
        let mut bytes = vec![0; PIECE_BYTES];
        while self.position < length {
            self.tell(Step::Digest)?;
            let hole = hole_at(&file, self.position, length - self.position).map_err(failed)?;
            let count = (hole / PIECE).min(self.digest.zeroes_max());
            if count > 0 {
                self.digest.zeroes(count);
                self.position += count * PIECE;
                continue;
            }
            file.read_exact_at(&mut bytes, self.position).map_err(failed)?;
            self.digest.piece(&bytes);
            self.position += PIECE;
        }
        Ok(length)
    }

    /// The digest of the whole disk, which is written.
    pub(super) fn finish(self) -> String {
        self.digest.finish().to_hex().to_string()
    }

    fn tell(&mut self, step: Step) -> Result<(), StreamError> {
        (self.progress)(Progress { step, done_bytes: self.position, total_bytes: self.size_bytes });
        match self.stop.is_stopping() {
            true => Err(StreamError::Stopped),
            false => Ok(()),
        }
    }

    /// Where the next byte goes.
    fn end(&self) -> u64 {
        self.position + self.piece.len() as u64
    }

    /// The piece is written when it is complete.
    fn after_bytes(&mut self) -> Result<(), StreamError> {
        let is_end = self.end() == self.size_bytes && !self.piece.is_empty();
        if self.piece.len() < PIECE_BYTES && !is_end {
            return Ok(());
        }
        self.tell(Step::Copy)?;
        self.digest.piece(&self.piece);
        let end = self.end();
        if let Some(target) = &self.target {
            let Self { piece, zeroes, position, .. } = self;
            let written = write_sparse(&target.file, piece, *position, zeroes);
            // How long it is says how far it is.
            let written = written.and_then(|()| target.file.set_len(end));
            written.map_err(|error| target.failed(error))?;
            self.n_written += 1;
            if self.n_written.is_multiple_of(ROOM_INTERVAL) {
                let room = space(&target.store).map_err(|error| target.failed(error))?;
                if room.free_bytes < room.reserve_bytes {
                    return Err(StreamError::DiskFull { path: target.store.clone() });
                }
            }
        }
        self.position = end;
        self.piece.clear();
        Ok(())
    }

    /// The next bytes are empty: as many as were empty pieces are passed at once.
    fn put_zeroes(&mut self, mut length: u64) -> Result<(), StreamError> {
        while length > 0 {
            let count = (length / PIECE).min(self.digest.zeroes_max());
            if self.piece.is_empty() && count > 0 {
                self.tell(Step::Copy)?;
                self.digest.zeroes(count);
                self.position += count * PIECE;
                length -= count * PIECE;
                if let Some(target) = &self.target {
                    let set = target.file.set_len(self.position);
                    set.map_err(|error| target.failed(error))?;
                }
                continue;
            }
            let part = length.min((PIECE_BYTES - self.piece.len()) as u64);
            self.piece.resize(self.piece.len() + part as usize, 0);
            length -= part;
            self.after_bytes()?;
        }
        Ok(())
    }
}

impl Records for Sink<'_> {
    fn keep(&mut self, until: u64) -> Result<(), StreamError> {
        while self.end() < until {
            let (at, left) = (self.end(), until - self.end());
            let Some(base) = &self.base else { return self.put_zeroes(left) };
            if at >= base.size_bytes {
                return self.put_zeroes(left);
            }
            let failed = |error| StreamError::from(io_error("read", &base.path)(error));
            let there = left.min(base.size_bytes - at);
            let hole = hole_at(&base.file, at, there).map_err(failed)?;
            if hole > 0 {
                self.put_zeroes(hole)?;
                continue;
            }
            let part = there.min((PIECE_BYTES - self.piece.len()) as u64) as usize;
            let start = self.piece.len();
            self.piece.resize(start + part, 0);
            base.file.read_exact_at(&mut self.piece[start..], at).map_err(failed)?;
            self.after_bytes()?;
        }
        Ok(())
    }

    fn zero(&mut self, length: u64) -> Result<(), StreamError> {
        self.put_zeroes(length)
    }

    fn data(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let part = bytes.len().min(PIECE_BYTES - self.piece.len());
            let (now, then) = bytes.split_at(part);
            self.piece.extend_from_slice(now);
            self.after_bytes()?;
            bytes = then;
        }
        Ok(())
    }
}

impl Target {
    fn failed(&self, error: io::Error) -> StreamError {
        match is_full(&error) {
            true => StreamError::DiskFull { path: self.store.clone() },
            false => io_error("write", &self.path)(error).into(),
        }
    }
}
