//! The thread that does the work of one export, in order of arrival.

use super::raw::Frame;
use super::socket::PacketSocket;
use crate::catalogue::{AoeDisk, AoePlace};
use crate::export::Export;
use aoe::{AtaCommand, AtaReply, AtaRequest, Identity, Request, RequestBody, SECTOR_BYTES, Status};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that wait for one disk: four times what an initiator may have in flight.
const QUEUE_MAX: usize = 256;

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
                self.export.counters.count(&self.export.counters.dropped);
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
    // Of what changes nothing, and of what must be durable before it is acknowledged.
    let (mut replies, mut acknowledgements) = (Vec::new(), Vec::new());
    while let Ok(first) = arrived.recv() {
        // While the batch is worked on, a reset waits.
        let Some(_session) = export.join(None, u32::MAX) else { return };
        let batch = std::iter::once(first).chain(arrived.try_iter()).take(BATCH_MAX);
        for frame in batch {
            let Ok(request) = Request::parse(&frame.frame) else { continue };
            let RequestBody::Ata(ata) = &request.body else { continue };
            let Some(answer) = answer(export, place, socket, ata, frame.at) else { continue };
            let address = place.address;
            let reply =
                AtaReply { status: answer.status, sectors: answer.sectors, data: &answer.data };
            let reply = reply.emit(&request.header, socket.link().mac, address.shelf, address.slot);
            if answer.must_flush { &mut acknowledgements } else { &mut replies }.push(reply);
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

struct Answer {
    status: Status,
    sectors: u8,
    data: Vec<u8>,
    must_flush: bool,
}

impl Answer {
    fn of(status: Status) -> Self {
        Self { status, sectors: 0, data: Vec::new(), must_flush: false }
    }
}

/// Does what is asked; `None` is silence, after which the initiator asks again.
fn answer(
    export: &Export,
    place: &AoePlace,
    socket: &PacketSocket,
    ata: &AtaRequest<'_>,
    at: Instant,
) -> Option<Answer> {
    if export.is_closed() {
        return None;
    }
    let sectors_max = aoe::sectors_per_frame(socket.link().mtu);
    let range = |lba| ata.range(lba, export.size_bytes(), sectors_max);
    match ata.command {
        AtaCommand::Read { lba } | AtaCommand::Verify { lba } => {
            let Some((offset, length)) = range(lba) else {
                return Some(Answer::of(Status::OutOfRange));
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
            if at.elapsed() > WRITE_AGE_MAX {
                export.counters.count(&export.counters.dropped);
                return None;
            }
            let Some((offset, length)) = range(lba) else {
                return Some(Answer::of(Status::OutOfRange));
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
        AtaCommand::PowerNoOp => Some(Answer::of(Status::Good)),
        AtaCommand::Unknown(command) => {
            tracing::debug!(export = export.label.name, command, "ATA command not known");
            Some(Answer::of(Status::Aborted))
        }
    }
}
