//! One exported disk: its data, its counters, and the connections that use it.

use crate::counters::{Counters, InFlight, Reads};
use crate::dirty::Dirty;
use crate::stall::{Stalled, Stalls, is_passing};
use images::{Block, Extent, WriteLayer, Zeroes};
use model::{ExportSpec, ExportStatus, StallVerb};
use socket2::Socket;
use std::collections::HashMap;
use std::fs::File;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long connections may finish what they have received before they are cut.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// How long a reset waits for connections of the former boot to leave.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// How long a client's new connection waits for its former one; then it is refused, and comes again.
const FENCE_TIME: Duration = Duration::from_secs(2);

/// What is behind an export.
pub(crate) enum Disk {
    /// An image version itself, or the file that is shared.
    Plain(Arc<dyn Block>),
    /// Such a disk below what is written.
    Layer(Arc<WriteLayer>),
}

impl Disk {
    fn block(&self) -> &dyn Block {
        match self {
            Self::Plain(block) => block.as_ref(),
            Self::Layer(layer) => layer.as_ref(),
        }
    }
}

/// What clients and logs call an export.
pub(crate) struct Label {
    pub(crate) name: String,
    /// A line for people.
    pub(crate) description: String,
}

/// A disk that one machine sees in one boot, or that is shared.
pub(crate) struct Export {
    pub(crate) label: Label,
    me: Weak<Self>,
    disk: Disk,
    pub(crate) counters: Arc<Counters>,
    stalls: Stalls,
    dirty: Dirty,
    started: Instant,
    /// Milliseconds from `started` to the last request, plus one; 0 is "none yet".
    last_request: AtomicU64,
    closed: AtomicBool,
    has_failed: AtomicBool,
    sessions: Mutex<Sessions>,
    session_left: Condvar,
}

#[derive(Default)]
struct Sessions {
    next: u64,
    /// Connections of a smaller generation are ended, and not let in any more.
    generation: u32,
    open: HashMap<u64, Open>,
}

/// A connection, or a batch of AoE frames.
struct Open {
    /// `None` for AoE.
    stream: Option<Socket>,
    generation: u32,
    cut: Arc<AtomicBool>,
}

impl Export {
    pub(crate) fn new(label: Label, disk: Disk) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            label,
            me: Weak::clone(me),
            disk,
            counters: Arc::default(),
            stalls: Stalls::default(),
            dirty: Dirty::default(),
            started: Instant::now(),
            last_request: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            sessions: Mutex::default(),
            session_left: Condvar::new(),
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.disk.block().size_bytes()
    }

    /// Takes over what the disk has grown by; the size.
    pub(crate) fn grow(&self) -> std::io::Result<u64> {
        self.disk.block().grow()
    }

    /// Whether acknowledged writes must outlive this host's power.
    pub(crate) fn is_durable(&self) -> bool {
        self.disk.block().is_durable()
    }

    /// Whether all writes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.disk.block().is_read_only()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn status(&self, spec: &ExportSpec) -> ExportStatus {
        let last_ms = self.last_request.load(Ordering::Relaxed);
        let now_ms = self.started.elapsed().as_millis() as u64;
        ExportStatus {
            spec: spec.clone(),
            size_bytes: self.size_bytes(),
            connections: self.sessions().open.values().filter(|open| open.stream.is_some()).count()
                as u32,
            idle_seconds: (last_ms > 0).then(|| now_ms.saturating_sub(last_ms) / 1000),
            layer_bytes: match &self.disk {
                Disk::Plain(_) => 0,
                Disk::Layer(layer) => layer.used_bytes().unwrap_or(0),
            },
            counters: self.counters.snapshot(),
            stall: self.stalls.status(),
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.read_since(Instant::now(), buffer, offset)
    }

    /// The same for a request that came at `began`.
    pub(crate) fn read_since(
        &self,
        began: Instant,
        buffer: &mut [u8],
        offset: u64,
    ) -> std::io::Result<()> {
        self.read_uncounted(buffer, offset)?;
        self.count_reads(Reads { count: 1, bytes: buffer.len() as u64 }, began);
        Ok(())
    }

    /// For those that tell [`count_reads`](Self::count_reads) of many at once.
    pub(crate) fn read_uncounted(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let done = self.disk.block().read_at(buffer, offset);
        done.inspect_err(|error| self.failed("read", error))
    }

    /// The same if it need not wait for a disk; otherwise `false`.
    pub(crate) fn read_cached(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<bool> {
        let is_there = self.disk.block().read_cached(buffer, offset);
        is_there.inspect_err(|error| self.failed("read", error))
    }

    /// The file that holds all of this range at the same offset. Who reads from it counts that.
    pub(crate) fn file_of(&self, offset: u64, length: u64) -> Option<&File> {
        self.disk.block().file_of(offset, length)
    }

    /// Counts reads that arrived at `began`, and are answered now.
    pub(crate) fn count_reads(&self, reads: Reads, began: Instant) {
        if reads.count > 0 {
            self.touch();
            self.counters.read_times.add(began.elapsed(), reads.count);
            self.counters.reads.fetch_add(reads.count, Ordering::Relaxed);
            self.counters.read_bytes.fetch_add(reads.bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn hole_at(&self, offset: u64, length: u64) -> std::io::Result<u64> {
        let hole = self.disk.block().hole_at(offset, length);
        hole.inspect_err(|error| self.failed("find holes", error))
    }

    pub(crate) fn write(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        self.patiently("write", || self.disk.block().write_at(data, offset))?;
        self.counters.count(&self.counters.writes);
        self.counters.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if self.dirty.add(data.len() as u64) {
            self.write_back();
        }
        Ok(())
    }

    /// Has what was written go to the disk, while more comes.
    fn write_back(&self) {
        // It takes part as a connection does, so that a new boot waits for it.
        let session = self.me.upgrade().and_then(|me| me.join(None, u32::MAX));
        let Some(session) = session else { return self.dirty.give_up() };
        let spawned = std::thread::Builder::new().name("write-back".into()).spawn(move || {
            let export = &session.export;
            export.dirty.write_back(export.disk.block());
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for writing to the disk");
            self.dirty.give_up();
        }
    }

    pub(crate) fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        how: Zeroes,
    ) -> std::io::Result<()> {
        self.patiently("write zeroes", || self.disk.block().write_zeroes(offset, length, how))?;
        self.counters.count(&self.counters.writes);
        Ok(())
    }

    pub(crate) fn trim(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.patiently("trim", || self.disk.block().trim(offset, length))
    }

    pub(crate) fn extent(&self, offset: u64, length: u64) -> std::io::Result<Extent> {
        self.touch();
        let extent = self.disk.block().extent(offset, length);
        extent.inspect_err(|error| self.failed("find holes", error))
    }

    pub(crate) fn prefetch(&self, offset: u64, length: u64) {
        self.disk.block().prefetch(offset, length);
    }

    pub(crate) fn flush(&self) -> std::io::Result<()> {
        self.dirty.clean(|| self.patiently("flush", || self.disk.block().flush()))?;
        self.counters.count(&self.counters.flushes);
        Ok(())
    }

    /// Waits while there is trouble that passes.
    fn patiently(
        &self,
        action: &'static str,
        operation: impl Fn() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.touch();
        let mut stalled = None;
        loop {
            let error = match operation() {
                Ok(()) => return Ok(()),
                // Asked for only if it is fast: no failure.
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Err(error),
                Err(error) => error,
            };
            if is_passing(&error) && !self.is_closed() {
                let stalled = stalled.get_or_insert_with(|| self.begin_stall());
                if stalled.wait() {
                    continue;
                }
            }
            self.failed(action, &error);
            return Err(error);
        }
    }

    fn begin_stall(&self) -> Stalled<'_> {
        let stalled = self.stalls.begin();
        if stalled.is_first() {
            tracing::error!(
                export = self.label.name,
                "the server's disk is full: the client waits until there is room; delete images, layers \
                 or files that are not needed"
            );
        }
        stalled
    }

    /// What shall become of the writes that wait; how many there are.
    pub(crate) fn decide_stall(&self, verb: StallVerb) -> u32 {
        let n_requests = self.stalls.decide(verb);
        tracing::info!(export = self.label.name, n_requests, ?verb, "writes that wait for room");
        n_requests
    }

    /// The same of how long writes took, which are counted already.
    pub(crate) fn count_write_times(&self, count: u64, began: Instant) {
        if count > 0 {
            self.counters.write_times.add(began.elapsed(), count);
        }
    }

    /// Counts a request that waits for the disk until what is returned is dropped.
    pub(crate) fn in_flight(&self, began: Instant) -> InFlight {
        InFlight::begin(&self.counters, began)
    }

    /// Whether the disk behind it has failed since the server started.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn failed(&self, action: &'static str, error: &std::io::Error) {
        self.counters.count(&self.counters.errors);
        // A write to a disk that is read-only is the client's mistake.
        if !self.is_read_only() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        if !self.is_closed() {
            tracing::warn!(export = self.label.name, action, %error, "disk operation failed");
        }
    }

    fn touch(&self) {
        let ms = self.started.elapsed().as_millis() as u64 + 1;
        self.last_request.store(ms, Ordering::Relaxed);
    }

    /// Registers a connection, or a batch of frames; `None` if the export was closed meanwhile, or the
    /// client has a newer connection.
    pub(crate) fn join(
        self: &Arc<Self>,
        stream: Option<Socket>,
        generation: u32,
    ) -> Option<Session> {
        let mut sessions = self.sessions();
        if self.is_closed() || generation < sessions.generation {
            return None;
        }
        let id = sessions.next;
        sessions.next += 1;
        let cut = Arc::new(AtomicBool::new(false));
        sessions.open.insert(id, Open { stream, generation, cut: Arc::clone(&cut) });
        drop(sessions);
        Some(Session { export: Arc::clone(self), id, cut })
    }

    /// Ends the client's connections of smaller generations. Whether they have left, so that none of
    /// their writes can follow one of a newer connection.
    ///
    /// A kernel that lost its connection sends the same requests again, and the former connection may
    /// still hold a copy of them.
    pub(crate) fn fence(&self, generation: u32) -> bool {
        let mut sessions = self.sessions();
        sessions.generation = sessions.generation.max(generation);
        for open in sessions.open.values().filter(|open| open.generation < generation) {
            open.cut.store(true, Ordering::Release);
            if let Some(stream) = &open.stream {
                // It may be closed already, which is as good.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let deadline = Instant::now() + FENCE_TIME;
        self.await_leaving(sessions, deadline, |open| open.generation < generation)
    }

    /// Lets nobody in any more, and tells those inside to leave after what they have received.
    pub(crate) fn begin_close(&self) {
        let sessions = self.sessions();
        self.closed.store(true, Ordering::Release);
        shut_down(&sessions, Shutdown::Read);
    }

    /// Ends all connections. Whether the last request has left the disk, so that no late write can
    /// follow.
    pub(crate) fn close(&self) -> bool {
        self.begin_close();
        self.finish_close(Instant::now())
    }

    /// The rest of [`close`](Self::close), which began at `since`.
    pub(crate) fn finish_close(&self, since: Instant) -> bool {
        let is_empty = self.await_leaving(self.sessions(), since + FINISH_TIME, |_| true);
        if !is_empty {
            // A client that takes no replies: perhaps it lost its power.
            shut_down(&self.sessions(), Shutdown::Both);
        }
        is_empty || self.await_leaving(self.sessions(), since + LEAVE_TIME, |_| true)
    }

    /// The same when the server ends: what shall last is flushed, too.
    pub(crate) fn finish_last_close(&self, since: Instant) {
        let export = &self.label.name;
        if !self.finish_close(since) {
            tracing::error!(export, "requests still wait for the disk");
        } else if let Err(error) = self.disk.block().flush() {
            tracing::error!(export, %error, "last flush failed");
        }
    }

    /// Waits for those that must leave; whether they have.
    fn await_leaving(
        &self,
        mut sessions: MutexGuard<'_, Sessions>,
        deadline: Instant,
        must_leave: impl Fn(&Open) -> bool,
    ) -> bool {
        while sessions.open.values().any(&must_leave) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.session_left.wait_timeout(sessions, left);
            sessions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // The map stays right whatever panicked: it is changed by single calls.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shut_down(sessions: &Sessions, how: Shutdown) {
    for stream in sessions.open.values().filter_map(|open| open.stream.as_ref()) {
        // It may be closed already, which is as good.
        let _ = stream.shutdown(how);
    }
}

/// A connection's place at an export; leaving is dropping it.
pub(crate) struct Session {
    pub(crate) export: Arc<Export>,
    id: u64,
    cut: Arc<AtomicBool>,
}

impl Session {
    /// Whether the client has a newer connection: what it asked here is asked there again.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.export.sessions().open.remove(&self.id);
        self.export.session_left.notify_all();
    }
}
