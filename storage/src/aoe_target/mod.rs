//! AoE on named interfaces: one thread receives, one thread per export works.
//!
//! The work of one export is done in the order in which its frames arrived, so that a late write
//! never overtakes a newer one. Dropping a frame is always safe (the initiator sends it again), so
//! every queue here drops when it is full.

mod lane;
mod raw;
mod socket;

pub use socket::SocketError;

use crate::catalogue::{AoeDisk, Catalogue};
use crate::export::Export;
use aoe::{ConfigReply, ErrorCode, Request, RequestBody, emit_error, sectors_per_frame};
use lane::Lane;
use raw::{Batch, Frame};
use socket::PacketSocket;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames in flight that we tell an initiator to keep to; Linux takes at most 64 of them.
const BUFFER_COUNT: u16 = 64;

/// Vendors' commands (AoEr11 §2.6).
const VENDOR_COMMANDS: u8 = 0xf0;

/// How often the interface's address and MTU are read.
const LINK_POLL: Duration = Duration::from_secs(1);

/// How often the thread looks whether it shall stop.
const STOP_POLL: Duration = Duration::from_millis(200);

/// AoE on one interface; dropping it stops it.
pub(crate) struct AoeTarget {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AoeTarget {
    pub(crate) fn start(interface: &str, exports: Arc<dyn Catalogue>) -> Result<Self, SocketError> {
        let socket = Arc::new(PacketSocket::open(interface, STOP_POLL)?);
        let stopping = Arc::new(AtomicBool::new(false));
        for disk in exports.all_aoe(interface) {
            announce(&socket, &disk);
        }
        exports.on_new_aoe({
            let socket = Arc::clone(&socket);
            Box::new(move |disk| announce(&socket, disk))
        });
        let mut receiver = Receiver { socket, exports, lanes: HashMap::new() };
        let thread = std::thread::Builder::new().name("aoe-receive".into()).spawn({
            let stopping = Arc::clone(&stopping);
            move || receiver.run(&stopping)
        });
        let thread = thread.map_err(|source| SocketError::new(interface, "start", source))?;
        Ok(Self { stopping, thread: Some(thread) })
    }
}

impl Drop for AoeTarget {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config_reply<'a>(socket: &PacketSocket, export: &'a Export) -> ConfigReply<'a> {
    ConfigReply {
        buffer_count: BUFFER_COUNT,
        sector_count: sectors_per_frame(socket.link().mtu),
        text: export.label.name.as_bytes(),
    }
}

/// Tells an export's machines that their disk is there. A machine that waits for it need not ask.
fn announce(socket: &PacketSocket, disk: &AoeDisk) {
    let (address, mac) = (disk.place.address, socket.link().mac);
    let reply = config_reply(socket, &disk.export);
    let to = disk.place.told.iter();
    let frames: Vec<_> =
        to.map(|&client| reply.announce(client, mac, address.shelf, address.slot)).collect();
    socket.send(&frames);
}

struct Receiver {
    socket: Arc<PacketSocket>,
    exports: Arc<dyn Catalogue>,
    /// By address. A lane ends with its export.
    lanes: HashMap<model::ShelfSlot, Lane>,
}

impl Receiver {
    fn run(&mut self, stopping: &AtomicBool) {
        let mut batch = Batch::new();
        let mut link_read = Instant::now();
        while !stopping.load(Ordering::Acquire) {
            if link_read.elapsed() > LINK_POLL {
                self.refresh_link();
                link_read = Instant::now();
            }
            match self.socket.receive(&mut batch) {
                Ok(()) => batch.frames().for_each(|frame| self.on_frame(&frame)),
                Err(error) => {
                    // The interface is down or gone; machines go on when it is back.
                    tracing::warn!(interface = self.socket.interface(), %error, "AoE can't receive");
                    std::thread::sleep(LINK_POLL);
                }
            }
        }
    }

    fn refresh_link(&self) {
        match self.socket.refresh() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(interface = self.socket.interface(), "interface has changed");
                for disk in self.exports.all_aoe(self.socket.interface()) {
                    announce(&self.socket, &disk);
                }
            }
            Err(error) => {
                tracing::debug!(interface = self.socket.interface(), %error, "interface is gone");
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame<'_>) {
        let request = match Request::parse(frame.bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::trace!(%error, "AoE frame ignored");
                return;
            }
        };
        // Only the machine itself learns that its disk exists.
        for disk in self.exports.for_aoe(self.socket.interface(), &request.header) {
            self.on_request(&request, frame, &disk);
        }
    }

    fn on_request(&mut self, request: &Request<'_>, frame: &Frame<'_>, disk: &AoeDisk) {
        let (mac, address) = (self.socket.link().mac, disk.place.address);
        match &request.body {
            RequestBody::Ata(_) => self.queue(frame, disk),
            RequestBody::Config(query) => {
                let reply = config_reply(&self.socket, &disk.export);
                if query.is_answered_by(reply.text) {
                    let frame = reply.emit(&request.header, mac, address.shelf, address.slot);
                    self.socket.send(&[frame]);
                }
            }
            RequestBody::Other(command) => {
                // Masks and reservations are the boot server's to make, not the network's.
                if *command < VENDOR_COMMANDS {
                    let export = &disk.export.label.name;
                    tracing::debug!(export, command, "AoE command refused");
                }
                let code = ErrorCode::UnrecognizedCommand;
                self.socket.send(&[emit_error(request, mac, address.shelf, address.slot, code)]);
            }
        }
    }

    fn queue(&mut self, frame: &Frame<'_>, disk: &AoeDisk) {
        let lanes = &mut self.lanes;
        let is_current = |lane: &Lane| Arc::ptr_eq(lane.export(), &disk.export);
        if !lanes.get(&disk.place.address).is_some_and(is_current) {
            lanes
                .extract_if(|_, lane| lane.export().is_closed())
                .for_each(|(_, lane)| lane.abandon());
            match Lane::start(disk.clone(), Arc::clone(&self.socket)) {
                Ok(lane) => {
                    lanes.insert(disk.place.address, lane);
                }
                Err(error) => {
                    let export = &disk.export.label.name;
                    tracing::warn!(export, %error, "no thread for an AoE disk");
                    return;
                }
            }
        }
        if let Some(lane) = lanes.get(&disk.place.address) {
            lane.push(frame);
        }
    }
}
