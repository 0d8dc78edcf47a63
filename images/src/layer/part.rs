//! One pair of files of a disk: data at the offsets of the disk, and the map that says which of it counts.

use super::file::LayerFile;
use super::header::GRANULE_BYTES;
use super::map::{Map, STRIPE_GRANULES, State};
use super::media;
use super::room::Room;
use crate::cached::CachedReads;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Locks for first writes. Two stripes may share one: that costs a little waiting, nothing else.
const LOCKS_MAX: usize = 64;
pub(super) const STRIPE_BYTES: u64 = STRIPE_GRANULES * GRANULE_BYTES;

/// What lies below a part: it fills the buffer from an offset of the disk.
pub(super) type Below<'a> = dyn Fn(&mut [u8], u64) -> io::Result<()> + 'a;

pub(super) struct Part {
    /// Number of the files; 0 in a disk without snapshots.
    pub(super) files: u32,
    size_bytes: u64,
    data: LayerFile,
    /// The same once it was needed. It stays open: to close it before it is flushed could lose an error.
    open_data: OnceLock<Arc<File>>,
    pub(super) cached: CachedReads,
    pub(super) map: Map,
    /// The map file that survives a power cut; only in layers that are to last. Open during flushes only.
    durable: Option<LayerFile>,
    locks: [Mutex<()>; LOCKS_MAX],
    /// One flush at a time: who comes later must not miss what the former has taken and not written yet. Whether one has
    /// failed, after which none can be believed.
    flush: Mutex<bool>,
}

impl Part {
    pub(super) fn new(
        files: u32,
        size_bytes: u64,
        data: LayerFile,
        map: Map,
        durable: Option<LayerFile>,
    ) -> Self {
        let locks = [const { Mutex::new(()) }; LOCKS_MAX];
        let (open_data, cached) = (OnceLock::new(), CachedReads::default());
        let flush = Mutex::new(false);
        Self { files, size_bytes, data, open_data, cached, map, durable, locks, flush }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// From now on nothing more is opened: the files are thrown away.
    pub(super) fn retire(&self) {
        self.data.retire();
        self.map.retire();
        if let Some(durable) = &self.durable {
            durable.retire();
        }
    }

    pub(super) fn data(&self) -> io::Result<&Arc<File>> {
        if let Some(file) = self.open_data.get() {
            return Ok(file);
        }
        let (file, _) = self.data.get()?;
        Ok(self.open_data.get_or_init(|| file))
    }

    /// What the files take on the server's disk.
    pub(super) fn held_bytes(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.data.metadata()?.blocks() * 512)
    }

    fn lock_stripe(&self, offset: u64) -> MutexGuard<'_, ()> {
        let index = (offset / STRIPE_BYTES) as usize % LOCKS_MAX;
        // The lock guards files, not values in memory, so a panic elsewhere spoils nothing.
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes inside one stripe.
    pub(super) fn write_piece(
        &self,
        data: &[u8],
        offset: u64,
        below: &Below<'_>,
        room: Option<(&Room, u64)>,
    ) -> io::Result<()> {
        let granules = touched(offset, data.len() as u64);
        // Granules never go back to the parent, so a rewrite needs no lock.
        if self.map.all_are(granules.clone(), State::Mine) {
            return media::write_all_at(self.data()?, data, offset);
        }
        let _lock = self.lock_stripe(offset);
        self.take_room(granules.clone(), room)?;
        let end = offset + data.len() as u64;
        let start_filled = self.fill_start(offset, granules.start);
        let end_filled = self.fill_end(end, granules.end - 1);
        if start_filled == offset && end_filled == end {
            media::write_all_at(self.data()?, data, offset)?;
        } else {
            let mut whole = vec![0; (end_filled - start_filled) as usize];
            let data_start = (offset - start_filled) as usize;
            let data_end = data_start + data.len();
            self.fill(&mut whole[..data_start], start_filled, below)?;
            whole[data_start..data_end].copy_from_slice(data);
            self.fill(&mut whole[data_end..], end, below)?;
            media::write_all_at(self.data()?, &whole, start_filled)?;
        }
        self.map.set(granules, State::Mine)
    }

    /// Asks for room for those that have no place here yet; the other files of the disk hold so many bytes. Others may ask at
    /// once, so that a layer grows a few MiB too far at most.
    fn take_room(&self, granules: Range<u64>, room: Option<(&Room, u64)>) -> io::Result<()> {
        let Some((room, others_bytes)) = room else { return Ok(()) };
        let more = self.map.n_not(granules, State::Mine) * GRANULE_BYTES;
        room.take(self.map.n_mine() * GRANULE_BYTES + others_bytes, more)
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
    fn fill(&self, buffer: &mut [u8], offset: u64, below: &Below<'_>) -> io::Result<()> {
        if buffer.is_empty() || self.map.state(offset / GRANULE_BYTES) != State::Parent {
            return Ok(());
        }
        below(buffer, offset)
    }

    /// Makes whole granules of one stripe read as zeroes and gives their space back.
    pub(super) fn zero_granules(&self, granules: Range<u64>) -> io::Result<()> {
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
            media::punch(self.data()?, offset, length)?;
        }
        Ok(())
    }

    /// Zeroes a part of one granule.
    pub(super) fn zero_part(
        &self,
        offset: u64,
        length: u64,
        below: &Below<'_>,
        room: Option<(&Room, u64)>,
    ) -> io::Result<()> {
        if length == 0 || self.map.state(offset / GRANULE_BYTES) == State::Zero {
            return Ok(());
        }
        self.write_piece(&[0; GRANULE_BYTES as usize][..length as usize], offset, below, room)
    }

    /// Makes durable what is in the files, data before the map.
    pub(super) fn flush(&self) -> io::Result<()> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut has_failed = self.flush.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_failed {
            return Err(io::Error::other("a former flush has failed"));
        }
        *has_failed = true;
        self.flush_to(durable)?;
        *has_failed = false;
        Ok(())
    }

    fn flush_to(&self, durable: &LayerFile) -> io::Result<()> {
        let pages = self.map.take_dirty();
        if pages.is_empty() && self.open_data.get().is_none() {
            // Nobody has written anything: an idle layer is not opened for the end of its server.
            return Ok(());
        }
        media::sync_data(self.data()?)?;
        if pages.is_empty() {
            return Ok(());
        }
        let (file, _) = durable.get()?;
        durable.close();
        for (offset, page) in pages {
            media::write_all_at(&file, &page, offset)?;
        }
        media::sync_data(&file)
    }

    /// How many granules a merge would copy: of `from`, those that this part does not have.
    pub(super) fn n_lacking(&self, from: &Self) -> u64 {
        let lacks = |granule: &u64| {
            from.map.state(*granule) == State::Mine && self.map.state(*granule) == State::Parent
        };
        (0..self.map.n_granules()).filter(lacks).count() as u64
    }

    /// Takes from `from` what counts in one stripe: all of it, or what is not here. Returns how many bytes were copied.
    ///
    /// What is there is read by nobody else, or reads the same before and after: see [`Merge`](super::merge).
    pub(super) fn take_stripe(
        &self,
        from: &Self,
        stripe: u64,
        only_lacking: bool,
    ) -> io::Result<u64> {
        let all =
            stripe * STRIPE_GRANULES..((stripe + 1) * STRIPE_GRANULES).min(self.map.n_granules());
        if all.clone().all(|granule| from.map.state(granule) == State::Parent) {
            return Ok(0);
        }
        let _lock = self.lock_stripe(all.start * GRANULE_BYTES);
        let wanted = |granule: u64| match from.map.state(granule) {
            State::Parent => None,
            _ if only_lacking && self.map.state(granule) != State::Parent => None,
            state => Some(state),
        };
        let (mut copied, mut granule) = (0, all.start);
        while granule < all.end {
            let Some(state) = wanted(granule) else {
                granule += 1;
                continue;
            };
            let mut run_end = granule + 1;
            while run_end < all.end && wanted(run_end) == Some(state) {
                run_end += 1;
            }
            let offset = granule * GRANULE_BYTES;
            let length = (run_end * GRANULE_BYTES).min(self.size_bytes) - offset;
            match state {
                State::Mine => {
                    let mut bytes = vec![0; length as usize];
                    from.data()?.read_exact_at(&mut bytes, offset)?;
                    media::write_all_at(self.data()?, &bytes, offset)?;
                    self.map.set(granule..run_end, State::Mine)?;
                    copied += length;
                }
                State::Zero => {
                    let any_mine = (granule..run_end).any(|one| self.map.state(one) == State::Mine);
                    self.map.set(granule..run_end, State::Zero)?;
                    if any_mine {
                        media::punch(self.data()?, offset, length)?;
                    }
                }
                State::Parent => {}
            }
            granule = run_end;
        }
        Ok(copied)
    }

    pub(super) fn n_stripes(&self) -> u64 {
        self.map.n_granules().div_ceil(STRIPE_GRANULES)
    }
}

/// The granules that a non-empty range touches.
fn touched(offset: u64, length: u64) -> Range<u64> {
    offset / GRANULE_BYTES..(offset + length).div_ceil(GRANULE_BYTES)
}
