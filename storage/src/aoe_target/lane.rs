//! The thread that does the work of one export, in order of arrival.

use super::commands::{Answer, answer};
use super::order::{Done, Order, Origin, Step};
use super::own_mac;
use super::raw::Frame;
use super::read_run::ReadRun;
use super::replies::Replies;
use super::socket::PacketSocket;
use crate::catalogue::{AoeDisk, AoePlace};
use crate::counters::Dropped;
use crate::export::Export;
use aoe::{AtaCommand, AtaReply, AtaRequest, Header, Request, RequestBody, Status};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Moment;

/// Frames that wait for one disk: what 32 initiators that share it may have in flight.
const QUEUE_MAX: usize = 2048;

/// Frames that are enough for one round, after which writes are made durable together.
const BATCH_MAX: usize = super::raw::BATCH_MAX;

/// A write that has waited longer is dropped, not done: its initiator has sent it again since, and
/// may have written something newer there.
const WRITE_AGE_MAX: Duration = Duration::from_millis(800);

pub(super) struct Lane {
    export: Arc<Export>,
    queue: Option<SyncSender<Arrived>>,
    /// Frames in the queue.
    waiting: Arc<AtomicUsize>,
    /// What came together and is not in the queue yet.
    arriving: Arrived,
    thread: Option<JoinHandle<()>>,
}

/// Frames that came together, one behind the other.
#[derive(Default)]
struct Arrived {
    bytes: Vec<u8>,
    frames: Vec<(Instant, Range<usize>)>,
}

impl Lane {
    pub(super) fn start(disk: AoeDisk, socket: Arc<PacketSocket>) -> io::Result<Self> {
        let (queue, arrived) = sync_channel(QUEUE_MAX);
        let export = Arc::clone(&disk.export);
        let waiting = Arc::new(AtomicUsize::new(0));
        let thread_waiting = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("aoe-disk".into())
            .spawn(move || run(&disk, &socket, &arrived, &thread_waiting))?;
        tracing::info!(export = export.label.name, "disk in use over AoE");
        let arriving = Arrived::default();
        Ok(Self { export, queue: Some(queue), waiting, arriving, thread: Some(thread) })
    }

    pub(super) fn export(&self) -> &Arc<Export> {
        &self.export
    }

    /// Takes a frame; too many that wait drop it.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        let Arrived { bytes, frames } = &mut self.arriving;
        if self.waiting.load(Ordering::Relaxed) + frames.len() >= QUEUE_MAX {
            self.export.counters.count_dropped(Dropped::Full);
            return;
        }
        let now = Instant::now();
        let at = now.checked_sub(frame.age).unwrap_or(now);
        let start = bytes.len();
        bytes.extend_from_slice(frame.bytes);
        frames.push((at, start..bytes.len()));
    }

    /// Queues what was taken, so that the thread is woken once for all of it.
    pub(super) fn deliver(&mut self) {
        let count = self.arriving.frames.len();
        if count == 0 {
            return;
        }
        let arrived = std::mem::take(&mut self.arriving);
        self.waiting.fetch_add(count, Ordering::Relaxed);
        let is_taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(arrived).is_ok());
        if !is_taken {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            (0..count).for_each(|_| self.export.counters.count_dropped(Dropped::Full));
        }
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

fn run(disk: &AoeDisk, socket: &PacketSocket, arrived: &Receiver<Arrived>, waiting: &AtomicUsize) {
    let began = Instant::now();
    let mut lane = Work {
        export: &disk.export,
        place: &disk.place,
        socket,
        order: Order::default(),
        replies: Replies::default(),
        acknowledgements: Replies::default(),
        reads: ReadRun::default(),
    };
    let mut batch = Vec::new();
    while let Ok(first) = arrived.recv() {
        // While the batch is worked on, a reset waits.
        let Some(_session) = disk.export.join(None, u32::MAX) else { return };
        let mut count = first.frames.len();
        batch.clear();
        batch.push(first);
        while count < BATCH_MAX
            && let Ok(more) = arrived.try_recv()
        {
            count += more.frames.len();
            batch.push(more);
        }
        waiting.fetch_sub(count, Ordering::Relaxed);
        lane.on_batch(&batch, Moment::from_millis(began.elapsed().as_millis() as u64));
    }
}

/// What the thread works with.
struct Work<'a> {
    export: &'a Export,
    place: &'a AoePlace,
    socket: &'a PacketSocket,
    order: Order,
    /// Of what changes nothing.
    replies: Replies,
    /// Of what must be durable first.
    acknowledgements: Replies,
    reads: ReadRun,
}

impl Work<'_> {
    fn on_batch(&mut self, batch: &[Arrived], now: Moment) {
        let frames = batch.iter().flat_map(|arrived| {
            arrived.frames.iter().map(|(at, range)| (*at, &arrived.bytes[range.clone()]))
        });
        let requests: Vec<(Header, AtaRequest<'_>, Instant)> = frames
            .filter_map(|(at, frame)| match Request::parse(frame).ok()? {
                Request { header, body: RequestBody::Ata(ata) } => Some((header, ata, at)),
                _ => None,
            })
            .collect();
        // Of what was done, where its reply is.
        let (mut done, mut places) = (Done::default(), Vec::new());
        self.reads.forget();
        for (index, &(ref header, ata, at)) in requests.iter().enumerate() {
            let origin = Origin { source: header.source, tag: header.tag };
            if is_too_old(&ata, at) {
                self.export.counters.count_dropped(Dropped::Old);
                continue;
            }
            match self.order.next(&done, origin, &ata, now) {
                Step::Stale => self.export.counters.count_dropped(Dropped::Stale),
                Step::Same(number) => {
                    self.export.counters.count(&self.export.counters.coalesced);
                    let (must_flush, reply) = places[number];
                    aoe::retag(self.replies(must_flush).add_copy(reply), header.tag);
                }
                Step::Work => {
                    let following = requests[index + 1..].iter().map(|(_, ata, _)| ata);
                    let Some((status, place)) = self.work(header, &ata, following) else {
                        continue;
                    };
                    if status == Status::Good && ata.command.is_transfer() {
                        self.order.done(&mut done, origin, ata, now);
                        places.push(place);
                    }
                }
            }
        }
        self.socket.send(self.replies.frames());
        // An acknowledged write must be durable: Linux never sends a flush over AoE. Without the
        // flush nobody is told, and the initiator tries again.
        if !self.acknowledgements.frames().is_empty() && self.export.flush().is_ok() {
            self.socket.send(self.acknowledgements.frames());
        }
        self.replies.clear();
        self.acknowledgements.clear();
    }

    /// Does the work and writes the reply; how it ended, and where the reply is.
    fn work<'a>(
        &mut self,
        header: &Header,
        ata: &AtaRequest<'_>,
        following: impl Iterator<Item = &'a AtaRequest<'a>>,
    ) -> Option<(Status, (bool, usize))> {
        let own = own_mac(self.socket, self.place);
        let (shelf, slot) = (self.place.address.shelf, self.place.address.slot);
        let sectors_max = aoe::sectors_per_frame(self.socket.link().mtu);
        if let AtaCommand::Read { lba } = ata.command
            && !self.export.is_closed()
            && let Ok((offset, length)) = ata.range(lba, self.export.size_bytes(), sectors_max)
        {
            let read = self.reads.read(self.export, (offset, length), following);
            let (status, data) = match read {
                Ok(data) => (Status::Good, data),
                Err(_) => (Status::Unreadable, &[][..]),
            };
            let (index, frame) = self.replies.add();
            let reply = AtaReply { status, sectors: 0, lba: 0, data };
            reply.emit_in(header, own, shelf, slot, frame);
            return Some((status, (false, index)));
        }
        self.reads.forget();
        let answer = answer(self.export, self.place, sectors_max, ata)?;
        let Answer { status, sectors, lba, ref data, must_flush } = answer;
        let (index, frame) = self.replies(must_flush).add();
        AtaReply { status, sectors, lba, data }.emit_in(header, own, shelf, slot, frame);
        Some((status, (must_flush, index)))
    }

    fn replies(&mut self, must_flush: bool) -> &mut Replies {
        if must_flush { &mut self.acknowledgements } else { &mut self.replies }
    }
}

/// Whether a write has waited so long that its initiator has sent it again since.
fn is_too_old(ata: &AtaRequest<'_>, at: Instant) -> bool {
    matches!(ata.command, AtaCommand::Write { .. }) && at.elapsed() > WRITE_AGE_MAX
}
