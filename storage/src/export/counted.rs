//! Counts what is done on a disk, and says what fails.

use super::connections::Connections;
use super::counters::Counters;
use images::{Block, Extent, Filter, Zeroes};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A disk whose operations are counted. Only reads that succeed are not: who answers them counts many at
/// once, by [`Counters::count_reads`].
pub(crate) struct Counted<B> {
    below: B,
    /// The export's name.
    export: String,
    counters: Arc<Counters>,
    connections: Arc<Connections>,
    has_failed: AtomicBool,
}

impl<B: Block> Counted<B> {
    pub(crate) fn new(
        below: B,
        export: String,
        counters: Arc<Counters>,
        connections: Arc<Connections>,
    ) -> Self {
        Self { below, export, counters, connections, has_failed: AtomicBool::new(false) }
    }

    /// Whether the disk has failed since the server started.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn count_write(&self, n_bytes: usize) {
        self.counters.count(&self.counters.writes);
        self.counters.written_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    fn failed(&self, action: &'static str, error: &io::Error) {
        self.counters.count(&self.counters.errors);
        // A write to a disk that is read-only is the client's mistake.
        if !self.below.is_read_only() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        if !self.connections.is_closed() {
            tracing::warn!(export = self.export, action, %error, "disk operation failed");
        }
    }
}

impl<B: Block> Filter for Counted<B> {
    type Below = B;

    fn below(&self) -> &B {
        &self.below
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let done = self.below.read_at(buffer, offset);
        done.inspect_err(|error| self.failed("read", error))
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let is_there = self.below.read_cached(buffer, offset);
        is_there.inspect_err(|error| self.failed("read", error))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.counters.touch();
        let done = self.below.write_at(data, offset);
        done.inspect_err(|error| self.failed("write", error))?;
        self.count_write(data.len());
        Ok(())
    }

    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        self.counters.touch();
        let done = self.below.write_at_once(data, offset);
        let is_done = done.inspect_err(|error| self.failed("write", error))?;
        if is_done {
            self.count_write(data.len());
        }
        Ok(is_done)
    }

    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        self.counters.touch();
        let done = self.below.write_zeroes(offset, length, how);
        done.inspect_err(|error| {
            // Asked for only if it is fast: no failure.
            if error.kind() != ErrorKind::Unsupported {
                self.failed("write zeroes", error);
            }
        })?;
        self.counters.count(&self.counters.writes);
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.counters.touch();
        self.below.trim(offset, length).inspect_err(|error| self.failed("trim", error))
    }

    fn flush(&self) -> io::Result<()> {
        self.counters.touch();
        self.below.flush().inspect_err(|error| self.failed("flush", error))?;
        self.counters.count(&self.counters.flushes);
        Ok(())
    }

    fn extent(&self, offset: u64, length: u64) -> io::Result<Extent> {
        self.counters.touch();
        let extent = self.below.extent(offset, length);
        extent.inspect_err(|error| self.failed("find holes", error))
    }

    fn hole_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        let hole = self.below.hole_at(offset, length);
        hole.inspect_err(|error| self.failed("find holes", error))
    }
}
