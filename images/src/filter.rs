//! Blocks that lie over another block and change some of what it does.

use crate::block::{Block, Extent, Zeroes};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A [`Block`] over another one, as QEMU and nbdkit have filters: it does some calls itself and passes the
/// others on.
///
/// A filter writes down [`below`](Self::below) and the calls that it changes. Each call takes, promises and
/// fails as the one of the same name in [`Block`]. What is a filter is a block, so filters stack, and the
/// compiler makes one piece of them. Import either this trait or [`Block`] where such a type is used: both
/// have the same calls.
#[expect(missing_docs, reason = "each call is that of the same name in `Block`")]
pub trait Filter: Send + Sync {
    /// What it lies over.
    type Below: Block + ?Sized;

    /// The block that does what this one does not do itself.
    fn below(&self) -> &Self::Below;

    fn size_bytes(&self) -> u64 {
        self.below().size_bytes()
    }
    fn grow(&self) -> io::Result<u64> {
        self.below().grow()
    }
    fn open(&self) -> io::Result<()> {
        self.below().open()
    }
    fn layer_bytes(&self) -> io::Result<u64> {
        self.below().layer_bytes()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.below().read_at(buffer, offset)
    }
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.below().read_cached(buffer, offset)
    }
    fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        self.below().file_of(offset, length)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.below().write_at(data, offset)
    }
    /// Not the one below: who changes writes changes these, too.
    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        self.write_at(data, offset).map(|()| true)
    }
    fn flush(&self) -> io::Result<()> {
        self.below().flush()
    }
    fn write_back(&self) -> io::Result<()> {
        self.below().write_back()
    }
    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below().trim(offset, length)
    }
    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        self.below().write_zeroes(offset, length, how)
    }
    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        self.below().extent(offset, length)
    }
    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        self.below().hole_at(offset, length)
    }
    fn prefetch(&self, offset: u64, length: u64) {
        self.below().prefetch(offset, length);
    }
    fn is_read_only(&self) -> bool {
        self.below().is_read_only()
    }
    fn is_durable(&self) -> bool {
        self.below().is_durable()
    }
}

impl<F: Filter + ?Sized> Block for F {
    fn size_bytes(&self) -> u64 {
        Filter::size_bytes(self)
    }
    fn grow(&self) -> io::Result<u64> {
        Filter::grow(self)
    }
    fn open(&self) -> io::Result<()> {
        Filter::open(self)
    }
    fn layer_bytes(&self) -> io::Result<u64> {
        Filter::layer_bytes(self)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        Filter::read_at(self, buffer, offset)
    }
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        Filter::read_cached(self, buffer, offset)
    }
    fn file_of(&self, offset: u64, length: u64) -> Option<Arc<File>> {
        Filter::file_of(self, offset, length)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        Filter::write_at(self, data, offset)
    }
    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        Filter::write_at_once(self, data, offset)
    }
    fn flush(&self) -> io::Result<()> {
        Filter::flush(self)
    }
    fn write_back(&self) -> io::Result<()> {
        Filter::write_back(self)
    }
    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        Filter::trim(self, offset, length)
    }
    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        Filter::write_zeroes(self, offset, length, how)
    }
    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        Filter::extent(self, offset, length)
    }
    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        Filter::hole_at(self, offset, length)
    }
    fn prefetch(&self, offset: u64, length: u64) {
        Filter::prefetch(self, offset, length);
    }
    fn is_read_only(&self) -> bool {
        Filter::is_read_only(self)
    }
    fn is_durable(&self) -> bool {
        Filter::is_durable(self)
    }
}

/// A block that several hold.
impl<B: Block + ?Sized> Filter for Arc<B> {
    type Below = B;

    fn below(&self) -> &B {
        self
    }
}
