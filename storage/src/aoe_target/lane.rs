//! The thread that does the work of one export, in order of arrival.

use super::order::{Done, Order, Origin, Step};
use super::own_mac;
use super::raw::Frame;
use super::socket::PacketSocket;
use crate::catalogue::{AoeDisk, AoePlace};
use crate::export::{Dropped, Export};
use aoe::{
    AtaCommand, AtaReply, AtaRequest, HEALTH_BAD, HEALTH_GOOD, Header, Identity, Request,
    RequestBody, SECTOR_BYTES, Status,
};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Moment;

/// Frames that wait for one disk: what 32 initiators that share it may have in flight.
const QUEUE_MAX: usize = 2048;

/// Writes that one flush makes durable together.
const BATCH_MAX: usize = super::raw::BATCH_MAX;

/// A write that has waited longer is dropped, not done: its initiator has sent it again since, and
/// may have written something newer there.
const WRITE_AGE_MAX: Duration = Duration::from_millis(800);

pub(super) struct Lane {
    export: Arc<Export>,
    queue: Option<SyncSender<Arrived>>,
    thread: Option<JoinHandle<()>>,
}

struct Arrived {
    at: Instant,
    frame: Vec<u8>,
}

impl Lane {
    pub(super) fn start(disk: AoeDisk, socket: Arc<PacketSocket>) -> io::Result<Self> {
        let (queue, arrived) = sync_channel(QUEUE_MAX);
        let export = Arc::clone(&disk.export);
        let thread = std::thread::Builder::new()
            .name("aoe-disk".into())
            .spawn(move || run(&disk, &socket, &arrived))?;
        tracing::info!(export = export.label.name, "disk in use over AoE");
        Ok(Self { export, queue: Some(queue), thread: Some(thread) })
    }

    pub(super) fn export(&self) -> &Arc<Export> {
        &self.export
    }

    /// Queues a frame; a full queue drops it.
    pub(super) fn push(&self, frame: &Frame<'_>) {
        if let Some(queue) = &self.queue {
            let now = Instant::now();
            let at = now.checked_sub(frame.age).unwrap_or(now);
            if queue.try_send(Arrived { at, frame: frame.bytes.to_vec() }).is_err() {
                self.export.counters.count_dropped(Dropped::Full);
            }
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

fn run(disk: &AoeDisk, socket: &PacketSocket, arrived: &Receiver<Arrived>) {
    let AoeDisk { export, place } = disk;
    let began = Instant::now();
    let mut order = Order::default();
    // Of what changes nothing, and of what must be durable before it is acknowledged.
    let (mut replies, mut acknowledgements) = (Vec::new(), Vec::new());
    while let Ok(first) = arrived.recv() {
        // While the batch is worked on, a reset waits.
        let Some(_session) = export.join(None, u32::MAX) else { return };
        let frames: Vec<Arrived> =
            std::iter::once(first).chain(arrived.try_iter()).take(BATCH_MAX).collect();
        let now = Moment::from_millis(began.elapsed().as_millis() as u64);
        let (mut done, mut answers) = (Done::default(), Vec::new());
        let own = own_mac(socket, place);
        for frame in &frames {
            let Ok(request) = Request::parse(&frame.frame) else { continue };
            let RequestBody::Ata(ata) = request.body else { continue };
            let Header { source, tag, .. } = request.header;
            let origin = Origin { source, tag };
            if is_too_old(&ata, frame.at) {
                export.counters.count_dropped(Dropped::Old);
                continue;
            }
            let mut other = None;
            let answer = match order.next(&done, origin, &ata, now) {
                Step::Stale => {
                    export.counters.count_dropped(Dropped::Stale);
                    continue;
                }
                Step::Same(index) => {
                    export.counters.count(&export.counters.coalesced);
                    &answers[index]
                }
                Step::Work => {
                    let Some(answer) = answer(export, place, socket, &ata) else { continue };
                    if answer.status == Status::Good && ata.command.is_transfer() {
                        order.done(&mut done, origin, ata, now);
                        answers.push(answer);
                        &answers[answers.len() - 1]
                    } else {
                        other.insert(answer)
                    }
                }
            };
            let &Answer { status, sectors, lba, ref data, must_flush } = answer;
            let reply = AtaReply { status, sectors, lba, data };
            let (shelf, slot) = (place.address.shelf, place.address.slot);
            let reply = reply.emit(&request.header, own, shelf, slot);
            if must_flush { &mut acknowledgements } else { &mut replies }.push(reply);
        }
        socket.send(&replies);
        // An acknowledged write must be durable: Linux never sends a flush over AoE. Without the
        // flush nobody is told, and the initiator tries again.
        if !acknowledgements.is_empty() && export.flush().is_ok() {
            socket.send(&acknowledgements);
        }
        replies.clear();
        acknowledgements.clear();
    }
}

/// Whether a write has waited so long that its initiator has sent it again since.
fn is_too_old(ata: &AtaRequest<'_>, at: Instant) -> bool {
    matches!(ata.command, AtaCommand::Write { .. }) && at.elapsed() > WRITE_AGE_MAX
}

struct Answer {
    status: Status,
    sectors: u8,
    lba: u64,
    data: Vec<u8>,
    must_flush: bool,
}

impl Answer {
    fn of(status: Status) -> Self {
        Self { status, sectors: 0, lba: 0, data: Vec::new(), must_flush: false }
    }
}

/// Does what is asked; `None` is silence, after which the initiator asks again.
fn answer(
    export: &Export,
    place: &AoePlace,
    socket: &PacketSocket,
    ata: &AtaRequest<'_>,
) -> Option<Answer> {
    if export.is_closed() {
        return None;
    }
    let sectors_max = aoe::sectors_per_frame(socket.link().mtu);
    let range = |lba| ata.range(lba, export.size_bytes(), sectors_max);
    match ata.command {
        AtaCommand::Read { lba } | AtaCommand::Verify { lba } => {
            let (offset, length) = match range(lba) {
                Ok(range) => range,
                Err(status) => return Some(Answer::of(status)),
            };
            let mut data = vec![0; length];
            if export.read(&mut data, offset).is_err() {
                return Some(Answer::of(Status::Unreadable));
            }
            if matches!(ata.command, AtaCommand::Verify { .. }) {
                data.clear();
            }
            Some(Answer { data, ..Answer::of(Status::Good) })
        }
        AtaCommand::Write { lba, fua } => {
            let (offset, length) = match range(lba) {
                Ok(range) => range,
                Err(status) => return Some(Answer::of(status)),
            };
            let Some(data) = ata.data.get(..length) else {
                return Some(Answer::of(Status::Aborted));
            };
            if export.write(data, offset).is_err() {
                return Some(Answer::of(Status::Aborted));
            }
            Some(Answer { must_flush: fua || export.is_durable(), ..Answer::of(Status::Good) })
        }
        AtaCommand::Flush => Some(Answer { must_flush: true, ..Answer::of(Status::Good) }),
        AtaCommand::Identify => {
            let identity = Identity {
                sectors: export.size_bytes() / SECTOR_BYTES as u64,
                serial: &place.serial,
                model: &format!("Bootlace {}", export.label.name),
                firmware: "1",
            };
            let data = aoe::identify(&identity).to_vec();
            Some(Answer { data, ..Answer::of(Status::Good) })
        }
        AtaCommand::CheckPowerMode => Some(Answer { sectors: 0xff, ..Answer::of(Status::Good) }),
        AtaCommand::SmartStatus => {
            let lba = if export.has_failed() { HEALTH_BAD } else { HEALTH_GOOD };
            Some(Answer { lba, ..Answer::of(Status::Good) })
        }
        AtaCommand::SmartData => {
            Some(Answer { data: aoe::smart_data().to_vec(), ..Answer::of(Status::Good) })
        }
        AtaCommand::PowerNoOp | AtaCommand::SmartEnable | AtaCommand::SetFeature(_) => {
            Some(Answer::of(Status::Good))
        }
        AtaCommand::Unknown(command) => {
            tracing::debug!(export = export.label.name, command, "ATA command not known");
            Some(Answer::of(Status::Aborted))
        }
    }
}
