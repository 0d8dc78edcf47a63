//! What a machine has changed of the version below its disk: the records alone, neither compressed nor with a digest, between processes
//! of one server.

use super::error::StreamError;
use super::parse::{Records as _, read_changes};
use super::sink::{Base, Sink, Target};
use super::{BLOCK_BYTES, DIFF};
use crate::block::Block as _;
use crate::error::io_error;
use crate::layer::{Change, SnapshotDisk};
use crate::progress::Progress;
use crate::stop::Stop;
use crate::store::Store;
use model::ImageVersion;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Of what a machine has written, so much is read at a time.
const PIECE_BYTES: u64 = 256 * BLOCK_BYTES as u64;

/// Tells `out` what was changed, piece by piece, as records of "rbd diff v1".
///
/// # Errors
/// The disk can't be read, or those of `out`.
pub fn write_changes(
    disk: &SnapshotDisk,
    mut out: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let size_bytes = disk.size_bytes();
    let mut start = DIFF.to_vec();
    start.push(b's');
    start.extend(size_bytes.to_le_bytes());
    out(start)?;
    let mut position = 0;
    while position < size_bytes {
        let (change, length) = disk.change_at(position, size_bytes - position);
        let end = position + length;
        while position < end {
            let part = (end - position).min(PIECE_BYTES);
            let (tag, length) = match change {
                None => break,
                Some(Change::Empty) => (b'z', end - position),
                Some(Change::Written) => (b'w', part),
            };
            let mut record = vec![tag];
            record.extend(position.to_le_bytes());
            record.extend(length.to_le_bytes());
            if tag == b'w' {
                let at = record.len();
                record.resize(at + part as usize, 0);
                disk.read_at(&mut record[at..], position)?;
            }
            out(record)?;
            position += length;
        }
        position = end;
    }
    out(vec![b'e'])
}

impl Store {
    /// Makes the disk at `path`, which is not there yet, of a version and what `changes` says, if it says anything.
    pub(crate) fn apply_changes(
        &self,
        base: &ImageVersion,
        changes: Option<impl Read>,
        path: &Path,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StreamError> {
        let below = self.disk_path(&base.image, base.version);
        let file = File::open(&below).map_err(io_error("open", &below))?;
        let below = Base { file, size_bytes: base.size_bytes, path: below };
        let file = File::create_new(path).map_err(io_error("make", path))?;
        let target = Target { file, path: path.to_owned(), store: self.dir().to_owned() };
        let mut sink = Sink::new(Some(target), Some(below), base.size_bytes, stop, progress);
        match changes {
            Some(changes) => read_changes(changes, base.size_bytes, &mut sink),
            None => sink.keep(base.size_bytes),
        }
    }
}
