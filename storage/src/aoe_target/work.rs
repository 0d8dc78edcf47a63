//! What one export does for a batch of frames, in order of arrival.

use super::commands::{Answer, answer, failed};
use super::order::{Done, Order, Origin, Step};
use super::read_run::ReadRun;
use super::replies::Replies;
use super::socket::PacketSocket;
use crate::admission::{AoeDisk, AoePlace};
use crate::export::{Dropped, Export};
use aoe::{AtaCommand, AtaReply, AtaRequest, Header, Request, RequestBody, Status};
use images::Block;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Moment;

/// A write that has waited longer is dropped, not done: its initiator has sent it again since, and
/// may have written something newer there.
const WRITE_AGE_MAX: Duration = Duration::from_millis(800);

/// Replies to reads that are collected before they are sent, so that 64 of 8 KiB need not leave the
/// processor's cache first.
const REPLY_BYTES_MAX: usize = 48 << 10;

/// The largest MTU of any interface: its length has 16 bits.
const MTU_MAX: u32 = 65_535;

/// Data from which on it is sent from where it was read to.
const BODY_BYTES_MIN: usize = 2048;

/// Frames that came together, one behind the other.
#[derive(Default)]
pub(super) struct Arrived {
    bytes: Vec<u8>,
    frames: Vec<(Instant, Range<usize>)>,
}

impl Arrived {
    pub(super) fn push(&mut self, frame: &[u8], at: Instant) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push((at, start..self.bytes.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Forgets the first frames.
    pub(super) fn forget(&mut self, count: usize) {
        self.frames.drain(..count);
        if self.frames.is_empty() {
            self.clear();
        }
    }

    /// Forgets all; the memory is kept.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes.clear();
    }
}

/// Which requests are to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// The requests before the first that may have to wait for a disk.
    None,
    All,
}

/// What works for one export.
pub(super) struct Work {
    export: Arc<Export>,
    place: Arc<AoePlace>,
    socket: Arc<PacketSocket>,
    began: Instant,
    order: Order,
    /// Replies to requests that change nothing.
    replies: Replies,
    /// Replies to requests that must be durable first.
    acknowledgements: Replies,
    reads: ReadRun,
    has_warned_of_mtu: bool,
}

impl Work {
    pub(super) fn new(disk: AoeDisk, socket: Arc<PacketSocket>) -> Self {
        Self {
            export: disk.export,
            place: disk.place,
            socket,
            began: Instant::now(),
            order: Order::default(),
            replies: Replies::default(),
            acknowledgements: Replies::default(),
            reads: ReadRun::default(),
            has_warned_of_mtu: false,
        }
    }

    /// Does what is asked, in this order, and answers it; how many frames are done.
    pub(super) fn on_batch(&mut self, batch: &[Arrived], patience: Patience) -> usize {
        let now = Moment::from_millis(self.began.elapsed().as_millis() as u64);
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
        let mut count = requests.len();
        let mut n_writes = 0;
        for (index, &(ref header, ata, at)) in requests.iter().enumerate() {
            let origin = Origin { source: header.source, tag: header.tag };
            let following = requests[index + 1..].iter().map(|(_, ata, _)| ata);
            if patience == Patience::None && !self.is_ready(&ata, following.clone()) {
                count = index;
                break;
            }
            if is_too_old(&ata, at) {
                self.export.counters.count_dropped(Dropped::Old);
                continue;
            }
            match self.order.next(&done, origin, &ata, now) {
                Step::Stale => self.export.counters.count_dropped(Dropped::Stale),
                Step::Same(number) => {
                    self.export.counters.count(&self.export.counters.coalesced);
                    let (must_flush, reply) = places[number];
                    let copy = self.replies(must_flush).add_copy(reply);
                    aoe::retag(&mut copy.head, header.tag);
                }
                Step::Work => {
                    let Some((status, place)) = self.work(header, &ata, following) else {
                        continue;
                    };
                    n_writes += u64::from(matches!(ata.command, AtaCommand::Write { .. }));
                    if status == Status::Good && ata.command.is_transfer() {
                        self.order.done(&mut done, origin, ata, now);
                        places.push(place);
                    }
                }
            }
            if self.replies.bytes() >= REPLY_BYTES_MAX {
                self.socket.send(self.replies.frames());
                self.replies.clear();
                // What is sent can't be copied any more.
                (done, places) = (Done::default(), Vec::new());
            }
        }
        self.socket.send(self.replies.frames());
        // An acknowledged write must be durable: Linux never sends a flush over AoE. Without the
        // flush nobody is told, and the initiator tries again.
        if !self.acknowledgements.frames().is_empty() && self.export.disk.flush().is_ok() {
            self.socket.send(self.acknowledgements.frames());
        }
        self.replies.clear();
        self.acknowledgements.clear();
        // As if all had come with the first: to count for each frame would take longer than to answer it.
        if let Some(&(_, _, began)) = requests.first() {
            self.export.counters.count_reads(self.reads.begin(), began);
            self.export.counters.count_write_times(n_writes, began);
        }
        count
    }

    /// Whether it is a read that need not wait for a disk.
    fn is_ready<'a>(
        &mut self,
        ata: &AtaRequest<'_>,
        following: impl Iterator<Item = &'a AtaRequest<'a>>,
    ) -> bool {
        let AtaCommand::Read { lba } = ata.command else { return false };
        let sectors_max = aoe::sectors_per_frame(self.socket.link().mtu);
        let range = ata.range(lba, self.export.disk.size_bytes(), sectors_max);
        range.is_ok_and(|range| self.reads.is_ready(&self.export.disk, range, following))
    }

    /// Does the work and writes the reply; how it ended, and where the reply is.
    fn work<'a>(
        &mut self,
        header: &Header,
        ata: &AtaRequest<'_>,
        following: impl Iterator<Item = &'a AtaRequest<'a>> + Clone,
    ) -> Option<(Status, (bool, usize))> {
        let own = self.socket.mac_of(&self.place);
        let (shelf, slot) = (self.place.address.shelf, self.place.address.slot);
        let sectors_max = aoe::sectors_per_frame(self.socket.link().mtu);
        let fits_no_more =
            sectors_max < ata.sectors && ata.sectors <= aoe::sectors_per_frame(MTU_MAX);
        if matches!(ata.command, AtaCommand::Read { .. }) && fits_no_more {
            self.warn_of_mtu(ata.sectors);
            return None;
        }
        if let AtaCommand::Read { lba } = ata.command
            && !self.export.connections.is_closed()
            && let Ok((offset, length)) = ata.range(lba, self.export.disk.size_bytes(), sectors_max)
        {
            let read = self.reads.read(&self.export.disk, (offset, length), following);
            let (status, data) = match read {
                Ok(data) => (Status::Good, data),
                Err(error) => (failed(&self.export, &error, Status::Unreadable)?, &[][..]),
            };
            let (index, frame) = self.replies.add();
            let reply = AtaReply { status, sectors: 0, lba: 0, data };
            if data.len() < BODY_BYTES_MIN {
                reply.emit_in(header, own, shelf, slot, &mut frame.head);
            } else {
                reply.emit_head_in(header, own, shelf, slot, &mut frame.head);
                self.reads.give((offset, length), frame);
            }
            return Some((status, (false, index)));
        }
        self.reads.forget();
        let answer = answer(&self.export, &self.place, sectors_max, ata)?;
        let Answer { status, sectors, lba, ref data, must_flush } = answer;
        let (index, frame) = self.replies(must_flush).add();
        AtaReply { status, sectors, lba, data }.emit_in(header, own, shelf, slot, &mut frame.head);
        Some((status, (must_flush, index)))
    }

    /// A read whose reply fits into no frame: the interface had a larger MTU when its initiator asked how much
    /// fits, and as soon as it has that again (a bridge that is made anew begins with 1500) the read can be
    /// answered. Until then silence keeps it waiting.
    fn warn_of_mtu(&mut self, sectors: u8) {
        if !std::mem::replace(&mut self.has_warned_of_mtu, true) {
            let (interface, mtu) = (self.socket.interface(), self.socket.link().mtu);
            tracing::warn!(
                export = self.export.label.name,
                interface,
                mtu,
                sectors,
                "AoE reads wait: the interface's MTU has become too small for what was agreed; set it as it was"
            );
        }
    }

    fn replies(&mut self, must_flush: bool) -> &mut Replies {
        if must_flush { &mut self.acknowledgements } else { &mut self.replies }
    }
}

/// Whether a write has waited so long that its initiator has sent it again since.
fn is_too_old(ata: &AtaRequest<'_>, at: Instant) -> bool {
    matches!(ata.command, AtaCommand::Write { .. }) && at.elapsed() > WRITE_AGE_MAX
}
