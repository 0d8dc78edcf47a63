//! Which granule of a disk comes from where: two bits each, in memory and in map files.

use super::file::{LayerFile, Recent};
use super::header::{GRANULE_BYTES, HEADER_BYTES, Header};
use super::media;
use crate::sparse;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Granules whose states change under one lock: a MiB of disk, 64 bytes of map. Never crosses a page.
pub(super) const STRIPE_GRANULES: u64 = 256;

pub(super) const GRANULES_PER_WORD: u64 = 32;
const WORDS_PER_PAGE: usize = 512;
const GRANULES_PER_PAGE: u64 = GRANULES_PER_WORD * WORDS_PER_PAGE as u64;
const PAGE_BYTES: usize = WORDS_PER_PAGE * 8;
/// The lower bit of each granule's pair.
pub(super) const LOWER_BITS: u64 = 0x5555_5555_5555_5555;

/// Where a granule's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In the parent: never written here.
    Parent = 0,
    /// In this layer's data file.
    Mine = 1,
    /// Nowhere: it reads as zeroes.
    Zero = 2,
}

struct Page([AtomicU64; WORDS_PER_PAGE]);

/// The states of all granules of one layer.
///
/// The truth is kept twice: in memory, and in the *volatile map file*, which is written before a write
/// is acknowledged, so that it outlives this process (but not the host: see [`Header::host_boot`]).
/// Pages of memory are made when they are first touched, so an idle layer costs next to nothing.
pub(super) struct Map {
    pages: Box<[OnceLock<Box<Page>>]>,
    /// Pages that differ from the durable map.
    dirty: Box<[AtomicBool]>,
    n_granules: u64,
    /// How many of them are [`State::Mine`].
    n_mine: AtomicU64,
    /// `None` for files to which no machine writes: what is set there can be set again.
    volatile: Option<Arc<LayerFile>>,
    /// The durable map holds all, and nobody but a merge sets more.
    is_settled: AtomicBool,
    /// Volatile files of all layers that are open.
    recent: Arc<Recent>,
}

impl Map {
    /// A map of granules that are all in the parent, with its volatile file (header already written), if it has one.
    pub(super) fn new(size_bytes: u64, volatile: Option<LayerFile>, recent: Arc<Recent>) -> Self {
        let n_granules = size_bytes.div_ceil(GRANULE_BYTES);
        let n_pages = n_granules.div_ceil(GRANULES_PER_PAGE);
        Self {
            pages: (0..n_pages).map(|_| OnceLock::new()).collect(),
            dirty: (0..n_pages).map(|_| AtomicBool::new(false)).collect(),
            n_granules,
            n_mine: AtomicU64::new(0),
            is_settled: AtomicBool::new(volatile.is_none()),
            volatile: volatile.map(Arc::new),
            recent,
        }
    }

    /// From now on nothing can be set, unless that has begun.
    pub(super) fn retire(&self) {
        self.volatile.iter().for_each(|volatile| volatile.retire());
    }

    /// The durable map holds all that the machine wrote, and it writes no more here: the volatile file is not needed.
    pub(super) fn settle(&self) {
        self.is_settled.store(true, Ordering::Release);
        self.retire();
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// Whether nothing was ever set.
    pub(super) fn is_untouched(&self) -> bool {
        self.pages.iter().all(|page| page.get().is_none())
    }

    fn volatile_file(&self) -> io::Result<Option<Arc<File>>> {
        match &self.volatile {
            Some(volatile) if !self.is_settled() => match self.recent.get(volatile) {
                Ok(file) => Ok(Some(file)),
                // It was settled meanwhile.
                Err(_) if self.is_settled() => Ok(None),
                Err(error) => Err(error),
            },
            _ => Ok(None),
        }
    }

    pub(super) fn n_granules(&self) -> u64 {
        self.n_granules
    }

    /// How many granules have a place of their own in the layer.
    pub(super) fn n_mine(&self) -> u64 {
        self.n_mine.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self, granule: u64) -> State {
        let word = self.word(granule / GRANULES_PER_WORD);
        match word >> (granule % GRANULES_PER_WORD * 2) & 3 {
            0 => State::Parent,
            1 => State::Mine,
            _ => State::Zero,
        }
    }

    pub(super) fn all_are(&self, granules: Range<u64>, state: State) -> bool {
        granules.into_iter().all(|granule| self.state(granule) == state)
    }

    /// How many of them are not in this state.
    pub(super) fn n_not(&self, granules: Range<u64>, state: State) -> u64 {
        granules.into_iter().filter(|granule| self.state(*granule) != state).count() as u64
    }

    /// Sets the state of granules of one stripe. The caller holds the stripe's lock.
    ///
    /// The volatile file comes first: if it can't be written nothing has changed.
    pub(super) fn set(&self, granules: Range<u64>, state: State) -> io::Result<()> {
        if granules.is_empty() {
            return Ok(());
        }
        debug_assert_eq!(granules.start / STRIPE_GRANULES, (granules.end - 1) / STRIPE_GRANULES);
        let first = granules.start / GRANULES_PER_WORD;
        let last = (granules.end - 1) / GRANULES_PER_WORD;
        let mut words = [0; (STRIPE_GRANULES / GRANULES_PER_WORD) as usize];
        let words = &mut words[..(last - first + 1) as usize];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(first + index as u64);
        }
        for granule in granules {
            let shift = granule % GRANULES_PER_WORD * 2;
            let word = &mut words[(granule / GRANULES_PER_WORD - first) as usize];
            *word = *word & !(3 << shift) | (state as u64) << shift;
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Some(volatile) = self.volatile_file()? {
            volatile.write_all_at(&bytes, HEADER_BYTES as u64 + first * 8)?;
        }
        for (index, word) in words.iter().enumerate() {
            self.store(first + index as u64, *word);
        }
        let page = (first / WORDS_PER_PAGE as u64) as usize;
        self.dirty[page].store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the pages that changed since the last call, as (offset in a map file, content).
    pub(super) fn take_dirty(&self) -> Vec<(u64, Vec<u8>)> {
        let mut taken = Vec::new();
        for (index, dirty) in self.dirty.iter().enumerate() {
            // Cleared before the copy: a change during the copy makes the page dirty again.
            if dirty.swap(false, Ordering::AcqRel) {
                taken.push((page_offset(index), self.page_bytes(index)));
            }
        }
        taken
    }

    /// Reads states from a map file whose header was checked. Pages are dirty unless told otherwise.
    pub(super) fn load(&self, file: &File, is_durable: bool) -> io::Result<()> {
        for index in 0..self.pages.len() {
            let mut bytes = [0; PAGE_BYTES];
            file.read_exact_at(&mut bytes, page_offset(index))?;
            let mut is_empty = true;
            for (position, chunk) in bytes.as_chunks::<8>().0.iter().enumerate() {
                let word = u64::from_le_bytes(*chunk);
                if word & (word >> 1) & LOWER_BITS != 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("page {index} of the map holds a state that does not exist"),
                    ));
                }
                if word != 0 {
                    is_empty = false;
                    self.store((index * WORDS_PER_PAGE + position) as u64, word);
                }
            }
            if !is_empty && !is_durable {
                self.dirty[index].store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Writes all states to the volatile file, which is new.
    pub(super) fn fill_volatile(&self) -> io::Result<()> {
        let Some(volatile) = self.volatile_file()? else { return Ok(()) };
        for (index, page) in self.pages.iter().enumerate() {
            if page.get().is_some() {
                volatile.write_all_at(&self.page_bytes(index), page_offset(index))?;
            }
        }
        Ok(())
    }

    /// The states of so many granules at once. Beyond the last they are all in the parent.
    pub(super) fn word(&self, index: u64) -> u64 {
        let index = index as usize;
        match self.pages[index / WORDS_PER_PAGE].get() {
            Some(page) => page.0[index % WORDS_PER_PAGE].load(Ordering::Acquire),
            None => 0,
        }
    }

    fn store(&self, index: u64, word: u64) {
        let index = index as usize;
        let page = self.pages[index / WORDS_PER_PAGE]
            .get_or_init(|| Box::new(Page([const { AtomicU64::new(0) }; WORDS_PER_PAGE])));
        let former = page.0[index % WORDS_PER_PAGE].swap(word, Ordering::AcqRel);
        self.n_mine.fetch_add(count_mine(word), Ordering::Relaxed);
        self.n_mine.fetch_sub(count_mine(former), Ordering::Relaxed);
    }

    fn page_bytes(&self, index: usize) -> Vec<u8> {
        let first = index * WORDS_PER_PAGE;
        (first..first + WORDS_PER_PAGE)
            .flat_map(|word| self.word(word as u64).to_le_bytes())
            .collect()
    }
}

/// How many of a word's granules are [`State::Mine`].
const fn count_mine(word: u64) -> u64 {
    (word & !(word >> 1) & LOWER_BITS).count_ones() as u64
}

/// Makes a map file: its header, and all granules in the parent (a hole).
pub(super) fn format(file: &File, header: &Header) -> io::Result<()> {
    let n_pages = header.size_bytes.div_ceil(GRANULE_BYTES).div_ceil(GRANULES_PER_PAGE);
    media::set_len(file, page_offset(n_pages as usize))?;
    media::write_all_at(file, &header.emit(), 0)
}

/// Whether a map file names any granule that is not in the parent, as far as its holes tell. Nothing is written into one before.
pub(super) fn has_any(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
    Ok(length > 0 && sparse::hole_at(file, HEADER_BYTES as u64, length)? < length)
}

fn page_offset(index: usize) -> u64 {
    (HEADER_BYTES + index * PAGE_BYTES) as u64
}
