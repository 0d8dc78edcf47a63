//! A machine's writes over a shared parent.

use super::file::{LayerFile, Recent};
use super::header::GRANULE_BYTES;
use super::map::{Map, STRIPE_GRANULES, State};
use super::room::Room;
use crate::block::{Block, Extent, Zeroes, check_range};
use crate::cached::CachedReads;
use crate::flush::Flushes;
use crate::sparse;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Locks for first writes. Two stripes may share one: that costs a little waiting, nothing else.
const LOCKS_MAX: usize = 64;
const STRIPE_BYTES: u64 = STRIPE_GRANULES * GRANULE_BYTES;

/// A writable disk: what the machine wrote, over a parent that never changes.
///
/// Own data lies at the same offsets in a sparse file; a map says for each 4 KiB granule whether it
/// is the parent's, ours, or zeroes. Order of a first write: data, then the map file that survives
/// this process, then the map in memory, then the answer. So no acknowledged write is lost by SIGKILL.
///
/// Flush order of a persistent layer: copy changed map pages, sync data, write pages, sync map. So a
/// durable bit never precedes its data.
pub struct WriteLayer {
    parent: Arc<dyn Block>,
    size_bytes: u64,
    data: LayerFile,
    /// The same once it was needed. It stays open: to close it before it is flushed could lose an error.
    open_data: OnceLock<Arc<File>>,
    cached: CachedReads,
    map: Map,
    /// The map file that survives a power cut; only in layers that are to last. Open during flushes only.
    durable: Option<LayerFile>,
    flushes: Flushes,
    /// How much it may take; `None` is as much as there is.
    room: Option<Arc<Room>>,
    locks: [Mutex<()>; LOCKS_MAX],
    is_retired: AtomicBool,
}

impl WriteLayer {
    pub(super) fn new(
        parent: Arc<dyn Block>,
        data: LayerFile,
        map: Map,
        durable: Option<LayerFile>,
        room: Option<Arc<Room>>,
    ) -> Self {
        Self {
            size_bytes: parent.size_bytes(),
            parent,
            data,
            open_data: OnceLock::new(),
            cached: CachedReads::default(),
            map,
            durable,
            flushes: Flushes::default(),
            room,
            locks: [const { Mutex::new(()) }; LOCKS_MAX],
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
        let map = Map::new(size_bytes, volatile, Arc::<Recent>::default());
        Ok(Self::new(parent, LayerFile::nameless(data), map, None, None))
    }

    /// From now on every access is refused: the layer was thrown away, whoever still holds it.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.data.retire();
        self.map.retire();
        if let Some(durable) = &self.durable {
            durable.retire();
        }
    }

    fn data(&self) -> io::Result<&File> {
        if let Some(file) = self.open_data.get() {
            return Ok(file);
        }
        let (file, _) = self.data.get()?;
        Ok(self.open_data.get_or_init(|| file))
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

    fn lock_stripe(&self, offset: u64) -> MutexGuard<'_, ()> {
        let index = (offset / STRIPE_BYTES) as usize % LOCKS_MAX;
        // The lock guards files, not values in memory, so a panic elsewhere spoils nothing.
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes inside one stripe.
    fn write_piece(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let granules = touched(offset, data.len() as u64);
        // Granules never go back to the parent, so a rewrite needs no lock.
        if self.map.all_are(granules.clone(), State::Mine) {
            return self.data()?.write_all_at(data, offset);
        }
        let _lock = self.lock_stripe(offset);
        self.take_room(granules.clone())?;
        let end = offset + data.len() as u64;
        let start_filled = self.fill_start(offset, granules.start);
        let end_filled = self.fill_end(end, granules.end - 1);
        if start_filled == offset && end_filled == end {
            self.data()?.write_all_at(data, offset)?;
        } else {
            let mut whole = vec![0; (end_filled - start_filled) as usize];
            let data_start = (offset - start_filled) as usize;
            let data_end = data_start + data.len();
            self.fill(&mut whole[..data_start], start_filled)?;
            whole[data_start..data_end].copy_from_slice(data);
            self.fill(&mut whole[data_end..], end)?;
            self.data()?.write_all_at(&whole, start_filled)?;
        }
        self.map.set(granules, State::Mine)
    }

    /// Asks for room for those that have no place here yet. Others may ask at once, so that a layer grows a few MiB too far
    /// at most.
    fn take_room(&self, granules: Range<u64>) -> io::Result<()> {
        let Some(room) = &self.room else { return Ok(()) };
        let more = self.map.n_not(granules, State::Mine) * GRANULE_BYTES;
        room.take(self.map.n_mine() * GRANULE_BYTES, more)
    }

    /// Where the write must begin, so that the first granule is whole.
    fn fill_start(&self, offset: u64, granule: u64) -> u64 {
        if self.map.state(granule) == State::Mine { offset } else { granule * GRANULE_BYTES }
    }

    /// Where the write must end, so that the last granule is whole.
    fn fill_end(&self, end: u64, granule: u64) -> u64 {
        if self.map.state(granule) == State::Mine {
            end
        } else {
            ((granule + 1) * GRANULE_BYTES).min(self.size_bytes)
        }
    }

    /// Reads a part of one granule that is not ours yet. The stripe's lock is held.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.is_empty() || self.map.state(offset / GRANULE_BYTES) != State::Parent {
            return Ok(());
        }
        self.parent.read_at(buffer, offset)
    }

    /// Makes whole granules of one stripe read as zeroes and gives their space back.
    fn zero_granules(&self, granules: Range<u64>) -> io::Result<()> {
        let offset = granules.start * GRANULE_BYTES;
        let length = (granules.end * GRANULE_BYTES).min(self.size_bytes) - offset;
        let _lock = self.lock_stripe(offset);
        if self.map.all_are(granules.clone(), State::Zero) {
            return Ok(());
        }
        let any_mine = granules.clone().any(|granule| self.map.state(granule) == State::Mine);
        self.map.set(granules, State::Zero)?;
        if any_mine {
            // After the map: what is punched is never looked at. A file system that can't punch
            // just keeps the space.
            sparse::punch(self.data()?, offset, length)?;
        }
        Ok(())
    }

    fn flush_to(&self, durable: &LayerFile) -> io::Result<()> {
        let pages = self.map.take_dirty();
        if pages.is_empty() && self.open_data.get().is_none() {
            // Nobody has written anything: an idle layer is not opened for the end of its server.
            return Ok(());
        }
        self.data()?.sync_data()?;
        if pages.is_empty() {
            return Ok(());
        }
        let (file, _) = durable.get()?;
        durable.close();
        for (offset, page) in pages {
            file.write_all_at(&page, offset)?;
        }
        file.sync_data()
    }

    /// Bytes from `position` to at most `end` that come from the same place.
    fn run(&self, position: u64, end: u64) -> (State, u64) {
        let mut granule = position / GRANULE_BYTES;
        let state = self.map.state(granule);
        let mut run_end = position;
        while run_end < end && self.map.state(granule) == state {
            granule += 1;
            run_end = (granule * GRANULE_BYTES).min(end);
        }
        (state, run_end - position)
    }

    /// Zeroes a part of one granule.
    fn zero_part(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 || self.map.state(offset / GRANULE_BYTES) == State::Zero {
            return Ok(());
        }
        self.write_piece(&[0; GRANULE_BYTES as usize][..length as usize], offset)
    }
}

impl Block for WriteLayer {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn open(&self) -> io::Result<()> {
        self.check_usable()?;
        self.data().map(drop)
    }

    fn layer_bytes(&self) -> io::Result<u64> {
        Ok(self.data.metadata()?.blocks() * 512)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        self.check_usable()?;
        let end = offset + buffer.len() as u64;
        let mut position = offset;
        while position < end {
            let (state, length) = self.run(position, end);
            let start = (position - offset) as usize;
            let run = &mut buffer[start..start + length as usize];
            match state {
                State::Parent => self.parent.read_at(run, position)?,
                State::Mine => self.data()?.read_exact_at(run, position)?,
                State::Zero => run.fill(0),
            }
            position += length;
        }
        Ok(())
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        check_range(offset, buffer.len() as u64, self.size_bytes)?;
        self.check_usable()?;
        let end = offset + buffer.len() as u64;
        let mut position = offset;
        while position < end {
            let (state, length) = self.run(position, end);
            let start = (position - offset) as usize;
            let run = &mut buffer[start..start + length as usize];
            let is_there = match state {
                State::Parent => self.parent.read_cached(run, position)?,
                State::Mine => self.cached.read(self.data()?, run, position)?,
                State::Zero => {
                    run.fill(0);
                    true
                }
            };
            if !is_there {
                return Ok(false);
            }
            position += length;
        }
        Ok(true)
    }

    fn file_of(&self, offset: u64, length: u64) -> Option<&File> {
        self.check_usable().ok()?;
        match self.run(offset, offset + length) {
            (State::Parent, run) if run == length => self.parent.file_of(offset, length),
            (State::Mine, run) if run == length => self.data().ok(),
            _ => None,
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        check_range(offset, data.len() as u64, self.size_bytes)?;
        self.check_writable()?;
        let mut rest = data;
        let mut position = offset;
        while !rest.is_empty() {
            let room = STRIPE_BYTES - position % STRIPE_BYTES;
            let (piece, after) = rest.split_at(rest.len().min(room as usize));
            self.write_piece(piece, position)?;
            position += piece.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check_usable()?;
        let Some(durable) = &self.durable else { return Ok(()) };
        self.flushes.run(|| {
            self.check_usable()?;
            self.flush_to(durable)
        })
    }

    fn write_back(&self) -> io::Result<()> {
        if self.is_durable() {
            return self.flush();
        }
        self.check_writable()?;
        let data = self.data()?;
        self.flushes.attempt(|| data.sync_data())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_zeroes(offset, length, Zeroes::default())
    }

    /// A layer keeps no space for what reads as zeroes: there is none of it in its parent either.
    fn write_zeroes(&self, offset: u64, length: u64, _how: Zeroes) -> io::Result<()> {
        check_range(offset, length, self.size_bytes)?;
        self.check_writable()?;
        let end = offset + length;
        let mut position = offset;
        while position < end {
            let granule = position / GRANULE_BYTES;
            let granule_end = ((granule + 1) * GRANULE_BYTES).min(self.size_bytes);
            if position > granule * GRANULE_BYTES || end < granule_end {
                let part_end = granule_end.min(end);
                self.zero_part(position, part_end - position)?;
                position = part_end;
                continue;
            }
            // Whole granules, up to the end of the stripe.
            let stripe_end = (granule / STRIPE_GRANULES + 1) * STRIPE_GRANULES;
            let whole_end =
                if end == self.size_bytes { self.map.n_granules() } else { end / GRANULE_BYTES };
            let granules = granule..stripe_end.min(whole_end);
            position = (granules.end * GRANULE_BYTES).min(end);
            self.zero_granules(granules)?;
        }
        Ok(())
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        check_range(offset, length, self.size_bytes)?;
        self.check_usable()?;
        let (state, length) = self.run(offset, offset + length);
        match state {
            State::Parent => self.parent.extent(offset, length),
            State::Mine => Ok(Extent { length, is_hole: false }),
            State::Zero => Ok(Extent { length, is_hole: true }),
        }
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        check_range(offset, length, self.size_bytes)?;
        self.check_usable()?;
        match self.run(offset, offset + length) {
            (State::Parent, length) => self.parent.hole_at(offset, length),
            (State::Mine, _) => Ok(0),
            (State::Zero, length) => Ok(length),
        }
    }

    fn prefetch(&self, offset: u64, length: u64) {
        let end = offset + length;
        let mut position = offset;
        while position < end {
            let (state, length) = self.run(position, end);
            match state {
                State::Parent => self.parent.prefetch(position, length),
                State::Mine => {
                    if let Ok(data) = self.data() {
                        sparse::prefetch(data, position, length);
                    }
                }
                State::Zero => {}
            }
            position += length;
        }
    }

    fn is_read_only(&self) -> bool {
        self.is_retired.load(Ordering::Acquire) || self.flushes.has_failed()
    }

    fn is_durable(&self) -> bool {
        self.durable.is_some()
    }
}

/// The granules that a non-empty range touches.
fn touched(offset: u64, length: u64) -> Range<u64> {
    offset / GRANULE_BYTES..(offset + length).div_ceil(GRANULE_BYTES)
}
