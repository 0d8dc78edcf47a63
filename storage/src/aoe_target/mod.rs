//! AoE on named interfaces: one thread receives and does what need not wait, one thread per export the rest.
//!
//! The work of one export is done in the order in which its frames arrived, so that a late write
//! never overtakes a newer one. Dropping a frame is always safe (the initiator sends it again), so
//! every queue here drops when it is full.

mod access;
mod announcer;
mod awaited;
mod commands;
mod guard;
mod lane;
mod order;
mod raw;
mod read_run;
mod replies;
mod socket;
mod work;

pub(crate) use awaited::AwaitedTarget;
pub use socket::SocketError;
pub(crate) use socket::is_there;

use crate::admission::{Admission, AoeDisk};
use crate::export::Dropped;
use announcer::Announcer;
use aoe::{ErrorCode, Header, Request, RequestBody, Verdict, emit_error};
use lane::Lane;
use raw::Frame;
use socket::{Addressee, Inbox, PacketSocket};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::Mac;
use work::Patience;

/// How often the interface's address, MTU and carrier are read.
const LINK_POLL: Duration = Duration::from_millis(500);

/// How often the thread looks whether it shall stop, and whether an announcement is due.
const STOP_POLL: Duration = Duration::from_millis(100);

/// AoE on one interface; dropping it stops it.
pub(crate) struct AoeTarget {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AoeTarget {
    pub(crate) fn start(interface: &str, exports: Arc<dyn Admission>) -> Result<Self, SocketError> {
        let (socket, mut inbox) = PacketSocket::open(interface, STOP_POLL)?;
        let socket = Arc::new(socket);
        let stopping = Arc::new(AtomicBool::new(false));
        let announcer = Arc::new(Announcer::new(Arc::clone(&socket)));
        for disk in exports.all_aoe(interface) {
            announcer.announce(&disk);
        }
        exports.on_new_aoe(interface, {
            let announcer = Arc::downgrade(&announcer);
            Box::new(move |disk| match announcer.upgrade() {
                Some(announcer) => {
                    announcer.announce(disk);
                    true
                }
                None => false,
            })
        });
        let mut receiver = Receiver {
            socket,
            announcer,
            exports,
            lanes: HashMap::new(),
            is_alone: false,
            busy: Vec::new(),
            visible: None,
        };
        let thread = std::thread::Builder::new().name("aoe-receive".into()).spawn({
            let stopping = Arc::clone(&stopping);
            move || receiver.run(&mut inbox, &stopping)
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

struct Receiver {
    socket: Arc<PacketSocket>,
    announcer: Arc<Announcer>,
    exports: Arc<dyn Admission>,
    /// By address. A lane ends with its export.
    lanes: HashMap<model::ShelfSlot, Lane>,
    /// There is but one disk on this interface: nobody else's frames wait while it does.
    is_alone: bool,
    /// Lanes with frames of this batch.
    busy: Vec<model::ShelfSlot>,
    /// What the sender of the last frame of this batch may see.
    visible: Option<Visible>,
}

struct Visible {
    source: Mac,
    shelf: u16,
    slot: u8,
    disks: Vec<AoeDisk>,
}

impl Visible {
    fn is_for(&self, header: &Header) -> bool {
        (self.source, self.shelf, self.slot) == (header.source, header.shelf, header.slot)
    }
}

impl Receiver {
    fn run(&mut self, inbox: &mut Inbox, stopping: &AtomicBool) {
        let mut link_read = Instant::now();
        while !stopping.load(Ordering::Acquire) {
            if link_read.elapsed() > LINK_POLL {
                self.refresh_link();
                self.count_disks();
                link_read = Instant::now();
            }
            self.announcer.send_due(Instant::now());
            let socket = Arc::clone(&self.socket);
            match socket.receive(inbox, |frame| self.on_frame(frame)) {
                Ok(has_more) => self.deliver(has_more),
                Err(error) => {
                    // The interface is down or gone; machines go on when it is back.
                    tracing::warn!(interface = self.socket.interface(), %error, "AoE can't receive");
                    std::thread::sleep(LINK_POLL);
                }
            }
        }
    }

    fn count_disks(&mut self) {
        self.is_alone = self.exports.all_aoe(self.socket.interface()).len() == 1;
    }

    fn deliver(&mut self, has_more: bool) {
        // One thread is cheapest, until it is too slow for several disks, or one of them has to wait.
        let here = match (self.is_alone, has_more && self.busy.len() > 1) {
            (true, _) => Some(Patience::All),
            (false, false) => Some(Patience::None),
            (false, true) => None,
        };
        // An export may be another one's, or gone, at any time.
        self.visible = None;
        for address in self.busy.drain(..) {
            if let Some(lane) = self.lanes.get_mut(&address) {
                lane.deliver(here);
            }
        }
    }

    fn refresh_link(&self) {
        match self.socket.refresh() {
            Ok(false) => {}
            Ok(true) => {
                let is_running = self.socket.link().is_running;
                let interface = self.socket.interface();
                tracing::info!(interface, is_running, "interface has changed");
                if is_running {
                    let disks = self.exports.all_aoe(interface);
                    disks.iter().for_each(|disk| self.announcer.announce(disk));
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
        let destination = request.header.destination;
        let Some(to) = self.socket.addressee(destination, frame) else { return };
        // Only the machine itself learns that its disk exists.
        let header = &request.header;
        let visible = self.visible.take().filter(|visible| visible.is_for(header));
        let visible = visible.unwrap_or_else(|| Visible {
            source: header.source,
            shelf: header.shelf,
            slot: header.slot,
            disks: self.exports.for_aoe(self.socket.interface(), header),
        });
        for disk in &visible.disks {
            let own = self.socket.mac_of(&disk.place);
            if to == Addressee::Vlan {
                disk.export.counters.count_dropped(Dropped::Vlan);
            } else if to.includes(own) && request.header.source != own {
                self.on_request(&request, frame, disk, own);
            }
        }
        // Each frame to another's disk is counted, so it is looked for each time.
        self.visible = Some(visible).filter(|visible| !visible.disks.is_empty());
    }

    fn on_request(&mut self, request: &Request<'_>, frame: &Frame<'_>, disk: &AoeDisk, own: Mac) {
        let AoeDisk { export, place } = disk;
        let (header, address) = (&request.header, place.address);
        let answer = match &request.body {
            RequestBody::Ata(_) => return self.queue(frame, disk),
            RequestBody::Config(query) => {
                let reply = announcer::config_reply(&self.socket, export);
                match query.verdict(reply.text) {
                    Verdict::Answer => Ok(reply.emit(header, own, address.shelf, address.slot)),
                    Verdict::Silence => return,
                    Verdict::Refuse(code) => Err(code),
                }
            }
            RequestBody::Mask(mask) => access::mask(mask, header, own, place),
            RequestBody::Reserve(reserve) => access::reserve(reserve, header, own, place),
            RequestBody::Other(_) => Err(ErrorCode::UnrecognizedCommand),
        };
        let reply = answer.unwrap_or_else(|code| {
            tracing::debug!(export = export.label.name, ?code, "AoE command refused");
            emit_error(request, own, address.shelf, address.slot, code)
        });
        self.socket.send(&[reply.into()]);
    }

    fn queue(&mut self, frame: &Frame<'_>, disk: &AoeDisk) {
        let lanes = &mut self.lanes;
        let is_current = |lane: &Lane| Arc::ptr_eq(lane.export(), &disk.export);
        let is_new = !lanes.get(&disk.place.address).is_some_and(is_current);
        if is_new {
            lanes
                .extract_if(|_, lane| lane.export().connections.is_closed())
                .for_each(|(_, lane)| lane.abandon());
            match Lane::start(disk.clone(), Arc::clone(&self.socket)) {
                Ok(lane) => {
                    lanes.insert(disk.place.address, lane);
                }
                Err(error) => {
                    let export = &disk.export.label.name;
                    tracing::warn!(export, %error, "an AoE disk can't be used");
                    return;
                }
            }
        }
        if is_new {
            self.count_disks();
        }
        if let Some(lane) = self.lanes.get_mut(&disk.place.address) {
            lane.push(frame);
            if !self.busy.contains(&disk.place.address) {
                self.busy.push(disk.place.address);
            }
        }
    }
}
