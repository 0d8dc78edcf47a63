//! Notes what is read of a disk.

use super::BootTrace;
use images::{Block, Filter};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A version's disk whose reads are noted while machines boot.
pub(crate) struct Traced {
    block: Arc<dyn Block>,
    trace: Arc<BootTrace>,
}

impl Traced {
    pub(crate) fn new(block: Arc<dyn Block>, trace: Arc<BootTrace>) -> Self {
        Self { block, trace }
    }
}

impl Filter for Traced {
    type Below = dyn Block;

    fn below(&self) -> &Self::Below {
        &*self.block
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.trace.note(offset, buffer.len() as u64);
        self.below().read_at(buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.trace.note(offset, buffer.len() as u64);
        self.below().read_cached(buffer, offset)
    }

    fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        self.trace.note(offset, length);
        self.below().file_of(offset, length)
    }
}
