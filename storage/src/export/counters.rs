//! What was done on an export, and how long it took.

use model::{ExportCounters, Times};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts since the server started.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) refused: AtomicU64,
    dropped_full: AtomicU64,
    dropped_old: AtomicU64,
    dropped_stale: AtomicU64,
    dropped_vlan: AtomicU64,
    pub(crate) coalesced: AtomicU64,
    in_flight: AtomicU64,
    last_request: LastRequest,
    pub(crate) read_times: Timer,
    pub(crate) write_times: Timer,
    pub(crate) flush_times: Timer,
}

/// Why a frame was dropped, which is always safe: its sender sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Too many frames wait.
    Full,
    /// The frame has waited too long.
    Old,
    /// The sender has written something newer there.
    Stale,
    /// The frame belongs to a VLAN.
    Vlan,
}

impl Counters {
    pub(crate) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self, why: Dropped) {
        self.count(match why {
            Dropped::Full => &self.dropped_full,
            Dropped::Old => &self.dropped_old,
            Dropped::Stale => &self.dropped_stale,
            Dropped::Vlan => &self.dropped_vlan,
        });
    }

    /// Something was asked.
    pub(crate) fn touch(&self) {
        self.last_request.set();
    }

    /// Time since something was asked; `None` if nothing ever was.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.last_request.elapsed()
    }

    /// Reads that came at `began`, and are answered now.
    pub(crate) fn count_reads(&self, reads: Reads, began: Instant) {
        if reads.count > 0 {
            self.touch();
            self.read_times.add(began.elapsed(), reads.count);
            self.reads.fetch_add(reads.count, Ordering::Relaxed);
            self.read_bytes.fetch_add(reads.bytes, Ordering::Relaxed);
        }
    }

    /// Writes that came at `began`, and are answered now. How many there were is counted where they are
    /// done.
    pub(crate) fn count_write_times(&self, count: u64, began: Instant) {
        if count > 0 {
            self.write_times.add(began.elapsed(), count);
        }
    }

    /// Counts requests that begin to wait.
    pub(crate) fn queued(&self, count: usize) {
        self.in_flight.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts requests that no longer wait.
    pub(crate) fn unqueued(&self, count: usize) {
        self.in_flight.fetch_sub(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> ExportCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dropped =
            [&self.dropped_full, &self.dropped_old, &self.dropped_stale, &self.dropped_vlan]
                .map(load);
        ExportCounters {
            reads: load(&self.reads),
            read_bytes: load(&self.read_bytes),
            writes: load(&self.writes),
            written_bytes: load(&self.written_bytes),
            flushes: load(&self.flushes),
            errors: load(&self.errors),
            refused: load(&self.refused),
            dropped: dropped.iter().sum(),
            dropped_full: dropped[0],
            dropped_old: dropped[1],
            dropped_stale: dropped[2],
            dropped_vlan: dropped[3],
            coalesced: load(&self.coalesced),
            in_flight: load(&self.in_flight),
            read_times: self.read_times.snapshot(),
            write_times: self.write_times.snapshot(),
            flush_times: self.flush_times.snapshot(),
        }
    }
}

/// When something was asked last.
struct LastRequest {
    began: Instant,
    /// Milliseconds from `began`, plus one; 0 is "never".
    at_ms: AtomicU64,
}

impl Default for LastRequest {
    fn default() -> Self {
        Self { began: Instant::now(), at_ms: AtomicU64::new(0) }
    }
}

impl LastRequest {
    fn set(&self) {
        self.at_ms.store(self.now_ms() + 1, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Option<Duration> {
        let last_ms = self.at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(last_ms)))
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Reads that were answered and are not counted yet: counters are shared, and dear.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reads {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Reads {
    pub(crate) fn one(bytes: usize) -> Self {
        Self { count: 1, bytes: bytes as u64 }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

/// How many requests took how long, by classes of microseconds ([`Times`]).
#[derive(Default)]
pub(crate) struct Timer {
    counts: [AtomicU64; Times::N],
    sum_us: AtomicU64,
}

impl Timer {
    /// Counts requests that took that long each.
    pub(crate) fn add(&self, took: Duration, count: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[Times::index(us)].fetch_add(count, Ordering::Relaxed);
        self.sum_us.fetch_add(us.saturating_mul(count), Ordering::Relaxed);
    }

    fn snapshot(&self) -> Times {
        let counts = std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed));
        Times { counts, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// A request that waits for a disk; it does not any more when this is dropped.
pub(crate) struct InFlight {
    counters: Arc<Counters>,
    pub(crate) began: Instant,
}

impl InFlight {
    pub(crate) fn begin(counters: &Arc<Counters>, began: Instant) -> Self {
        counters.queued(1);
        Self { counters: Arc::clone(counters), began }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counters.unqueued(1);
    }
}
