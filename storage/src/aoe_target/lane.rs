//! The way of frames to the work of one export: reads that need not wait are done where they arrive,
//! all else by a thread of the export; if there is no other disk to hold up, all is done where it arrives.

use super::raw::Frame;
use super::socket::PacketSocket;
use super::work::{Arrived, Patience, Work};
use crate::admission::AoeDisk;
use crate::export::{Dropped, Export};
use images::Block;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Frames that wait for one disk: what 32 initiators that share it may have in flight.
const QUEUE_MAX: usize = 2048;

/// Frames that are enough for one round, after which writes are made durable together.
const BATCH_MAX: usize = super::raw::BATCH_MAX;

/// Pieces of memory that are kept for frames to come: fresh memory costs more than what is copied to it.
const SPARE_MAX: usize = 8;

/// Memory without frames in it.
type Spare = Arc<Mutex<Vec<Arrived>>>;

/// The way of frames to one export.
///
/// [`push`](Self::push) each frame of a batch, then [`deliver`](Self::deliver) them together. When the export is
/// closed call [`abandon`](Self::abandon), or drop the lane, which waits for its thread.
pub(super) struct Lane {
    export: Arc<Export>,
    /// Held by the thread while frames wait for it, otherwise free.
    work: Arc<Mutex<Work>>,
    queue: Option<SyncSender<Arrived>>,
    /// Frames that the thread has not done yet.
    waiting: Arc<AtomicUsize>,
    /// What came together and is not in the queue yet.
    arriving: Arrived,
    spare: Spare,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn start(disk: AoeDisk, socket: Arc<PacketSocket>) -> io::Result<Self> {
        disk.export.disk.open()?;
        let (queue, arrived) = sync_channel(QUEUE_MAX);
        let export = Arc::clone(&disk.export);
        let waiting = Arc::new(AtomicUsize::new(0));
        let work = Arc::new(Mutex::new(Work::new(disk, socket)));
        let spare = Spare::default();
        let thread = std::thread::Builder::new().name("aoe-disk".into()).spawn({
            let (export, work) = (Arc::clone(&export), Arc::clone(&work));
            let (waiting, spare) = (Arc::clone(&waiting), Arc::clone(&spare));
            move || run(&export, &work, &arrived, &waiting, &spare)
        })?;
        tracing::info!(export = export.label.name, "disk in use over AoE");
        let arriving = Arrived::default();
        Ok(Self {
            export,
            work,
            queue: Some(queue),
            waiting,
            arriving,
            spare,
            thread: Some(thread),
        })
    }

    pub(super) fn export(&self) -> &Arc<Export> {
        &self.export
    }

    /// Takes a frame with an ATA request; too many that wait drop it.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        if self.waiting.load(Ordering::Relaxed) + self.arriving.len() >= QUEUE_MAX {
            self.export.counters.count_dropped(Dropped::Full);
            return;
        }
        let now = Instant::now();
        self.arriving.push(frame.bytes, now.checked_sub(frame.age).unwrap_or(now));
    }

    /// Has what was taken done: what `here` says at once, the rest by the thread, which is woken once for
    /// all of it.
    pub(super) fn deliver(&mut self, here: Option<Patience>) {
        if let Some(patience) = here
            && self.arriving.len() > 0
            && self.waiting.load(Ordering::Acquire) == 0
        {
            self.work_here(patience);
        }
        let count = self.arriving.len();
        if count == 0 {
            return;
        }
        let empty = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let arrived = std::mem::replace(&mut self.arriving, empty.unwrap_or_default());
        self.waiting.fetch_add(count, Ordering::Relaxed);
        self.export.counters.queued(count);
        let is_taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(arrived).is_ok());
        if !is_taken {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            self.export.counters.unqueued(count);
            (0..count).for_each(|_| self.export.counters.count_dropped(Dropped::Full));
        }
    }

    /// Nothing waits for the thread, so nothing is overtaken.
    fn work_here(&mut self, patience: Patience) {
        // While the batch is worked on, a reset waits.
        let Some(_connection) = self.export.connections.join_work() else { return };
        let Ok(mut work) = self.work.try_lock() else { return };
        let done = work.on_batch(std::slice::from_ref(&self.arriving), patience);
        self.arriving.forget(done);
    }

    /// Lets go of the thread of an export that is closed. It ends by itself, but must not be waited
    /// for: its disk may be stuck.
    pub(super) fn abandon(mut self) {
        drop(self.thread.take());
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    export: &Arc<Export>,
    work: &Mutex<Work>,
    arrived: &Receiver<Arrived>,
    waiting: &AtomicUsize,
    spare: &Spare,
) {
    let mut batch = Vec::new();
    while let Ok(first) = arrived.recv() {
        let mut count = first.len();
        batch.clear();
        batch.push(first);
        while count < BATCH_MAX
            && let Ok(more) = arrived.try_recv()
        {
            count += more.len();
            batch.push(more);
        }
        // While the batch is worked on, a reset waits.
        let Some(_connection) = export.connections.join_work() else { return };
        work.lock().unwrap_or_else(PoisonError::into_inner).on_batch(&batch, Patience::All);
        waiting.fetch_sub(count, Ordering::Release);
        export.counters.unqueued(count);
        batch.iter_mut().for_each(Arrived::clear);
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        batch.truncate(SPARE_MAX - spare.len());
        spare.append(&mut batch);
    }
}
