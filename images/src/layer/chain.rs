//! What a machine reads: its own files, those of snapshots below them, and the image version below all.

use super::header::GRANULE_BYTES;
use super::map::{GRANULES_PER_WORD, LOWER_BITS, State};
use super::part::Part;
use crate::block::{Block, Extent};
use crate::sparse;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Parts over a parent that never changes, the one that the machine writes to first. There is at least one.
pub(super) struct Chain {
    pub(super) parts: Box<[Arc<Part>]>,
    pub(super) parent: Arc<dyn Block>,
}

/// The chain that is read now. Who reads holds it; who exchanges it waits for none of them, for a read may wait for a disk.
pub(super) struct Current {
    /// One is read, the other is for the next chain, or is held by who began to read before it was exchanged.
    slots: [RwLock<Arc<Chain>>; 2],
    index: AtomicUsize,
}

impl Current {
    pub(super) fn new(chain: &Arc<Chain>) -> Self {
        let slots = [RwLock::new(Arc::clone(chain)), RwLock::new(Arc::clone(chain))];
        Self { slots, index: AtomicUsize::new(0) }
    }

    /// What is read now.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Arc<Chain>> {
        // Whoever comes late to the one finds there what was read, or what is.
        let slot = &self.slots[self.index.load(Ordering::Acquire)];
        // It is replaced as a whole.
        slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has another chain be read. One at a time does.
    pub(super) fn exchange(&self, chain: &Arc<Chain>) {
        let other = 1 - self.index.load(Ordering::Acquire);
        self.put(other, chain);
        self.index.store(other, Ordering::Release);
    }

    /// Lets go of the former chain when nobody reads it any more. One at a time does.
    pub(super) fn forget_former(&self) {
        let index = self.index.load(Ordering::Acquire);
        let chain = Arc::clone(&self.read());
        self.put(1 - index, &chain);
    }

    fn put(&self, index: usize, chain: &Arc<Chain>) {
        *self.slots[index].write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(chain);
    }
}

/// What became of a place of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something was written.
    Written,
    /// It was emptied.
    Empty,
}

/// Where bytes come from.
#[derive(Clone, Copy)]
enum From {
    Part(usize),
    Zero,
    Parent,
}

impl Chain {
    pub(super) fn top(&self) -> &Arc<Part> {
        &self.parts[0]
    }

    /// The same with these parts.
    pub(super) fn with(&self, parts: impl Into<Box<[Arc<Part>]>>) -> Self {
        Self { parts: parts.into(), parent: Arc::clone(&self.parent) }
    }

    /// Which part has the granule, and what it says of it; the number of parts and `Parent` if none has. Parts before
    /// `first` are passed over.
    fn find(&self, granule: u64, first: usize) -> (usize, State) {
        for (index, part) in self.parts.iter().enumerate().skip(first) {
            match part.map.state(granule) {
                State::Parent => {}
                state => return (index, state),
            }
        }
        (self.parts.len(), State::Parent)
    }

    /// Bytes from `position` to at most `end` that come from the same place.
    fn run(&self, position: u64, end: u64, first: usize) -> (From, u64) {
        let mut granule = position / GRANULE_BYTES;
        let (index, state) = self.find(granule, first);
        let from = match state {
            State::Mine => From::Part(index),
            State::Zero => From::Zero,
            State::Parent => From::Parent,
        };
        // Whatever its state becomes meanwhile.
        granule += 1;
        if granule * GRANULE_BYTES >= end {
            return (from, end - position);
        }
        loop {
            let (word, bit) = (granule / GRANULES_PER_WORD, granule % GRANULES_PER_WORD);
            let same = self.same_in_word(word, from, first) >> (bit * 2);
            let n_same = u64::from((same | !LOWER_BITS).trailing_ones()) / 2;
            granule += n_same;
            let run_end = (granule * GRANULE_BYTES).min(end);
            if run_end == end || n_same < GRANULES_PER_WORD - bit {
                return (from, run_end - position);
            }
        }
    }

    /// Which granules of a word of the maps come from there: the lower bit of each pair.
    fn same_in_word(&self, word: u64, from: From, first: usize) -> u64 {
        let (mut undecided, mut zero) = (LOWER_BITS, 0);
        for (index, part) in self.parts.iter().enumerate().skip(first) {
            let states = part.map.word(word);
            let mine = states & undecided;
            if matches!(from, From::Part(wanted) if wanted == index) {
                return mine;
            }
            let zero_here = (states >> 1) & undecided;
            zero |= zero_here;
            undecided &= !(mine | zero_here);
        }
        match from {
            From::Zero => zero,
            From::Parent => undecided,
            From::Part(_) => 0,
        }
    }

    /// Reads as if there were no parts before `first`.
    pub(super) fn read_from(&self, first: usize, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut position = offset;
        while position < end {
            let (from, length) = self.run(position, end, first);
            let start = (position - offset) as usize;
            let run = &mut buffer[start..start + length as usize];
            match from {
                From::Parent => self.parent.read_at(run, position)?,
                From::Part(index) => self.parts[index].data()?.read_exact_at(run, position)?,
                From::Zero => run.fill(0),
            }
            position += length;
        }
        Ok(())
    }

    pub(super) fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let end = offset + buffer.len() as u64;
        let mut position = offset;
        while position < end {
            let (from, length) = self.run(position, end, 0);
            let start = (position - offset) as usize;
            let run = &mut buffer[start..start + length as usize];
            let is_there = match from {
                From::Parent => self.parent.read_cached(run, position)?,
                From::Part(index) => {
                    let part = &self.parts[index];
                    part.cached.read(part.data()?, run, position)?
                }
                From::Zero => {
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

    pub(super) fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        match self.run(offset, offset + length, 0) {
            (From::Parent, run) if run == length => self.parent.file_of(offset, length),
            (From::Part(index), run) if run == length => {
                self.parts[index].data().ok().map(Arc::clone)
            }
            _ => None,
        }
    }

    pub(super) fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        let (from, length) = self.run(offset, offset + length, 0);
        match from {
            From::Parent => self.parent.extent(offset, length),
            From::Part(_) => Ok(Extent { length, is_hole: false }),
            From::Zero => Ok(Extent { length, is_hole: true }),
        }
    }

    /// What was written over the parent.
    pub(super) fn change_at(&self, offset: u64, length: u64) -> (Option<Change>, u64) {
        let (from, length) = self.run(offset, offset + length, 0);
        let change = match from {
            From::Parent => None,
            From::Part(_) => Some(Change::Written),
            From::Zero => Some(Change::Empty),
        };
        (change, length)
    }

    pub(super) fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        match self.run(offset, offset + length, 0) {
            (From::Parent, length) => self.parent.hole_at(offset, length),
            (From::Part(_), _) => Ok(0),
            (From::Zero, length) => Ok(length),
        }
    }

    pub(super) fn prefetch(&self, offset: u64, length: u64) {
        let end = offset + length;
        let mut position = offset;
        while position < end {
            let (from, length) = self.run(position, end, 0);
            match from {
                From::Parent => self.parent.prefetch(position, length),
                From::Part(index) => {
                    if let Ok(data) = self.parts[index].data() {
                        sparse::prefetch(data, position, length);
                    }
                }
                From::Zero => {}
            }
            position += length;
        }
    }
}
