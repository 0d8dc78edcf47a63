//! How much of what a machine wrote may wait in the server's memory.
//!
//! Without a bound, one machine that copies a disk fills the page cache with what must be written, and
//! each flush of all others waits behind it.

use super::connections::Connections;
use images::{Block, Filter};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// From here on it is written to the disk in the background.
const START_BYTES: u64 = 32 << 20;

/// From here on the machine's writes wait for that: three seconds of a slow disk.
const DIRTY_BYTES_MAX: u64 = 256 << 20;

/// A disk whose writes may fill the server's memory up to a budget; beyond, they wait for what is written
/// back in the background.
pub(crate) struct Budgeted<B> {
    below: Arc<B>,
    dirty: Arc<Dirty>,
    connections: Arc<Connections>,
}

impl<B: Block + 'static> Budgeted<B> {
    pub(crate) fn new(below: B, connections: Arc<Connections>) -> Self {
        Self { below: Arc::new(below), dirty: Arc::default(), connections }
    }

    /// Has what was written go to the disk, while more comes.
    fn begin_write_back(&self) {
        // It takes part as a connection does, so that a new boot waits for it.
        let Some(connection) = self.connections.join_work() else { return self.dirty.give_up() };
        let (below, dirty) = (Arc::clone(&self.below), Arc::clone(&self.dirty));
        let spawned = std::thread::Builder::new().name("write-back".into()).spawn(move || {
            dirty.write_back(&*below);
            drop(connection);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for writing to the disk");
            self.dirty.give_up();
        }
    }
}

impl<B: Block + 'static> Filter for Budgeted<B> {
    type Below = B;

    fn below(&self) -> &B {
        &self.below
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.below().write_at(data, offset)?;
        if self.dirty.add(data.len() as u64) {
            self.begin_write_back();
        }
        Ok(())
    }

    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        let is_done = self.below().write_at_once(data, offset)?;
        if is_done && self.dirty.add(data.len() as u64) {
            self.begin_write_back();
        }
        Ok(is_done)
    }

    fn flush(&self) -> io::Result<()> {
        self.dirty.clean(|| self.below().flush())
    }
}

/// What one export has not written to the disk yet.
///
/// [`add`](Self::add) says when somebody must call either [`write_back`](Self::write_back) or
/// [`give_up`](Self::give_up); it does not say so again before.
#[derive(Default)]
struct Dirty {
    bytes: AtomicU64,
    is_written_back: Mutex<bool>,
    changed: Condvar,
}

impl Dirty {
    /// Counts bytes that were written, and waits while too many are not on the disk. Whether the caller has to see to it that [`write_back`](Self::write_back) is
    /// called, and by another thread.
    fn add(&self, bytes: u64) -> bool {
        let dirty = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if dirty < START_BYTES {
            return false;
        }
        let mut is_written_back = self.lock();
        while *is_written_back && self.bytes.load(Ordering::Relaxed) >= DIRTY_BYTES_MAX {
            let waited = self.changed.wait(is_written_back);
            is_written_back = waited.unwrap_or_else(PoisonError::into_inner);
        }
        !std::mem::replace(&mut *is_written_back, true)
    }

    /// Writes to the disk what [`add`](Self::add) has told of.
    fn write_back(&self, block: &impl Block) {
        // A disk that fails refuses the next write, and its log has said why.
        if self.clean(|| block.write_back()).is_err() {
            self.bytes.store(0, Ordering::Relaxed);
        }
        self.give_up();
    }

    /// Ends a write-back: it is done, or there is nobody who could do it.
    fn give_up(&self) {
        *self.lock() = false;
        self.changed.notify_all();
    }

    /// Runs something that writes all to the disk that was written before.
    fn clean<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let before = self.bytes.load(Ordering::Relaxed);
        flush()?;
        let subtract = |bytes: u64| Some(bytes.saturating_sub(before));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_written_back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::Zeroes;
    use std::time::Duration;

    /// Keeps nothing, and counts what waits in memory.
    #[derive(Default)]
    struct Sink {
        dirty: AtomicU64,
        most: AtomicU64,
        n_written_back: AtomicU64,
    }

    impl Block for Sink {
        fn size_bytes(&self) -> u64 {
            1 << 40
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_at(&self, data: &[u8], _: u64) -> io::Result<()> {
            let dirty = self.dirty.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.most.fetch_max(dirty + data.len() as u64, Ordering::Relaxed);
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            let dirty = self.dirty.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            self.dirty.fetch_sub(dirty, Ordering::Relaxed);
            self.n_written_back.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn trim(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn write_zeroes(&self, _: u64, _: u64, _: Zeroes) -> io::Result<()> {
            Ok(())
        }
        fn is_read_only(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_a_machine_writes_waits_in_memory_only_up_to_its_budget() {
        let sink = Arc::new(Sink::default());
        let connections = Arc::<Connections>::default();
        let disk = Budgeted::new(Arc::clone(&sink), Arc::clone(&connections));
        let data = vec![0; 1 << 20];
        for _ in 0..4096 {
            Filter::write_at(&disk, &data, 0).unwrap();
        }
        let most = sink.most.load(Ordering::Relaxed);
        assert!((START_BYTES..=DIRTY_BYTES_MAX + START_BYTES).contains(&most), "{most}");
        assert!(sink.n_written_back.load(Ordering::Relaxed) > 5);
        assert!(connections.close(), "what is written back does not stay for ever");
    }
}
