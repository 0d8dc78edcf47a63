//! A machine's writes over a shared parent.

use super::chain::{Chain, Current};
use super::file::{LayerFile, Recent};
use super::header::GRANULE_BYTES;
use super::map::{Map, STRIPE_GRANULES};
use super::media;
use super::part::{Part, STRIPE_BYTES};
use super::room::Room;
use crate::block::{Block, Extent, Zeroes, check_range};
use crate::flush::Flushes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A writable disk: what the machine wrote, over a parent that never changes.
///
/// Own data lies at the same offsets in a sparse file; a map says for each 4 KiB granule whether it
/// is the parent's, ours, or zeroes. Order of a first write: data, then the map file that survives
/// this process, then the map in memory, then the answer. So no acknowledged write is lost by SIGKILL.
///
/// Flush order of a persistent layer: copy changed map pages, sync data, write pages, sync map. So a
/// durable bit never precedes its data.
///
/// Snapshots are such pairs of files below, to which nothing is written any more. Making one exchanges the pair on top while
/// no write runs; who reads meanwhile goes on with what he found.
pub struct WriteLayer {
    size_bytes: u64,
    is_durable: bool,
    /// What is read.
    chain: Current,
    /// The same, for who writes, and holds it for as long as that takes.
    gate: RwLock<Arc<Chain>>,
    flushes: Flushes,
    /// How often the folder's description was exchanged, and how often of that is durable.
    exchanged: AtomicU64,
    durably: AtomicU64,
    folder: Option<PathBuf>,
    /// How much it may take; `None` is as much as there is.
    room: Option<Arc<Room>>,
    /// What the files take that are not on top.
    others_bytes: AtomicU64,
    is_retired: AtomicBool,
}

impl WriteLayer {
    /// Of these parts, the one to which is written first.
    pub(super) fn new(
        parent: Arc<dyn Block>,
        parts: Vec<Arc<Part>>,
        folder: Option<PathBuf>,
        room: Option<Arc<Room>>,
    ) -> Self {
        let size_bytes = parent.size_bytes();
        let is_durable = parts.first().is_some_and(|top| top.is_durable());
        let chain = Arc::new(Chain { parts: parts.into(), parent });
        Self {
            size_bytes,
            is_durable,
            chain: Current::new(&chain),
            gate: RwLock::new(chain),
            flushes: Flushes::default(),
            exchanged: AtomicU64::new(0),
            durably: AtomicU64::new(0),
            folder,
            room,
            others_bytes: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
        }
    }

    /// A layer that is gone when it is dropped, whatever happens: its files in `folder` have no name.
    ///
    /// # Errors
    /// The files can't be made.
    pub fn temporary(parent: Arc<dyn Block>, folder: &Path) -> io::Result<Self> {
        let size_bytes = parent.size_bytes();
        let data = tempfile::tempfile_in(folder)?;
        data.set_len(size_bytes)?;
        let volatile = LayerFile::nameless(tempfile::tempfile_in(folder)?);
        let map = Map::new(size_bytes, Some(volatile), Arc::<Recent>::default());
        let part = Part::new(0, size_bytes, LayerFile::nameless(data), map, None);
        Ok(Self::new(parent, vec![Arc::new(part)], None, None))
    }

    /// From now on every access is refused: the layer was thrown away, whoever still holds it.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.chain().parts.iter().for_each(|part| part.retire());
    }

    /// What is read now.
    pub(super) fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read())
    }

    /// What the files take that are not on top: with them the layer must do with its room.
    pub(super) fn set_others_bytes(&self, bytes: u64) {
        self.others_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Puts other parts in the place of those that are there, after `commit` has said so in the description: no write runs
    /// meanwhile. The description is durable before the next flush is.
    ///
    /// # Errors
    /// Those of `commit`, which has changed nothing then; or the layer was thrown away.
    pub(super) fn exchange(
        &self,
        parts: impl FnOnce(&Chain) -> Vec<Arc<Part>>,
        commit: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.check_usable()?;
        let chain = Arc::new(gate.with(parts(&gate)));
        commit()?;
        self.exchanged.fetch_add(1, Ordering::AcqRel);
        self.chain.exchange(&chain);
        *gate = chain;
        drop(gate);
        self.chain.forget_former();
        Ok(())
    }

    /// Makes a part durable, also one to which the machine writes no more. A failure is one of the disk.
    pub(super) fn flush_part(&self, part: &Part) -> io::Result<()> {
        self.check_usable()?;
        self.flushes.attempt(|| part.flush())
    }

    fn check_usable(&self) -> io::Result<()> {
        if self.is_retired.load(Ordering::Acquire) {
            return Err(io::Error::other("the write layer was discarded by a new boot"));
        }
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        self.check_usable()?;
        self.flushes.check()
    }

    fn room(&self) -> Option<(&Room, u64)> {
        self.room.as_deref().map(|room| (room, self.others_bytes.load(Ordering::Relaxed)))
    }

    /// From below: what the machine wrote before is durable before what it wrote after.
    fn flush_all(&self) -> io::Result<()> {
        let exchanged = self.exchanged.load(Ordering::Acquire);
        let chain = self.chain();
        let (top, below) = (chain.top(), &chain.parts[1..]);
        for part in below.iter().rev().filter(|part| !part.map.is_settled()) {
            part.flush()?;
        }
        if let Some(folder) = &self.folder
            && self.durably.load(Ordering::Acquire) < exchanged
        {
            media::sync_folder(folder)?;
            self.durably.fetch_max(exchanged, Ordering::AcqRel);
        }
        top.flush()
    }
}

impl Block for WriteLayer {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn open(&self) -> io::Result<()> {
        self.check_usable()?;
        self.chain().top().data().map(drop)
    }

    /// With all of its snapshots.
    fn layer_bytes(&self) -> io::Result<u64> {
        Ok(self.chain().top().held_bytes()? + self.others_bytes.load(Ordering::Relaxed))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        self.check_usable()?;
        self.chain.read().read_from(0, buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        self.check_usable()?;
        self.chain.read().read_cached(buffer, offset)
    }

    fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        self.check_usable().ok()?;
        self.chain.read().file_of(offset, length)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        check_range(offset, data.len() as u64, self.size_bytes)?;
        self.check_writable()?;
        let chain = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let below = |buffer: &mut [u8], offset| chain.read_from(1, buffer, offset);
        let mut rest = data;
        let mut position = offset;
        while !rest.is_empty() {
            let room = STRIPE_BYTES - position % STRIPE_BYTES;
            let (piece, after) = rest.split_at(rest.len().min(room as usize));
            chain.top().write_piece(piece, position, &below, self.room())?;
            position += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check_usable()?;
        if !self.is_durable {
            return Ok(());
        }
        self.flushes.run(|| {
            self.check_usable()?;
            self.flush_all()
        })
    }

    fn write_back(&self) -> io::Result<()> {
        if self.is_durable() {
            return self.flush();
        }
        self.check_writable()?;
        let chain = self.chain();
        let data = chain.top().data()?;
        self.flushes.attempt(|| data.sync_data())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, Zeroes::default())
    }

    /// A layer keeps no space for what reads as zeroes: there is none of it in its parent either.
    fn write_zeroes(&self, offset: u64, length: u64, _how: Zeroes) -> io::Result<()> {
        check_range(offset, length, self.size_bytes)?;
        self.check_writable()?;
        let chain = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let below = |buffer: &mut [u8], offset| chain.read_from(1, buffer, offset);
        let top = chain.top();
        let end = offset + length;
        let mut position = offset;
        while position < end {
            let granule = position / GRANULE_BYTES;
            let granule_end = ((granule + 1) * GRANULE_BYTES).min(self.size_bytes);
            if position > granule * GRANULE_BYTES || end < granule_end {
                let part_end = granule_end.min(end);
                top.zero_part(position, part_end - position, &below, self.room())?;
                position = part_end;
                continue;
            }
            // Whole granules, up to the end of the stripe.
            let stripe_end = (granule / STRIPE_GRANULES + 1) * STRIPE_GRANULES;
            let whole_end =
                if end == self.size_bytes { top.map.n_granules() } else { end / GRANULE_BYTES };
            let granules = granule..stripe_end.min(whole_end);
            position = (granules.end * GRANULE_BYTES).min(end);
            top.zero_granules(granules)?;
        }
        Ok(())
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        check_range(offset, length, self.size_bytes)?;
        self.check_usable()?;
        self.chain.read().extent(offset, length)
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        check_range(offset, length, self.size_bytes)?;
        self.check_usable()?;
        self.chain.read().hole_at(offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) {
        self.chain.read().prefetch(offset, length);
    }

    fn is_read_only(&self) -> bool {
        self.is_retired.load(Ordering::Acquire) || self.flushes.has_failed()
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }
}
