//! Tells machines that their disk is there, so that one that waits need not ask.

use super::socket::PacketSocket;
use crate::admission::AoeDisk;
use crate::export::Export;
use aoe::{ConfigReply, sectors_per_frame};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Frames in flight that we tell an initiator to keep to; Linux takes at most 64 of them.
const BUFFER_COUNT: u16 = 64;

/// When an announcement is repeated: a switch may just have begun to forward to the machine.
const REPEATS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Repeats that wait: of 500 disks at once. Beyond, disks are announced once only.
const WAITING_MAX: usize = 1000;

/// What a disk says of itself, asked or not.
pub(super) fn config_reply<'a>(socket: &PacketSocket, export: &'a Export) -> ConfigReply<'a> {
    ConfigReply {
        buffer_count: BUFFER_COUNT,
        sector_count: sectors_per_frame(socket.link().mtu),
        text: export.label.name.as_bytes(),
    }
}

/// [`announce`](Self::announce) a disk when it is new, and call [`send_due`](Self::send_due) about ten times a
/// second.
pub(super) struct Announcer {
    socket: Arc<PacketSocket>,
    waiting: Mutex<Vec<(Instant, AoeDisk)>>,
}

impl Announcer {
    pub(super) fn new(socket: Arc<PacketSocket>) -> Self {
        Self { socket, waiting: Mutex::default() }
    }

    /// Announces a disk now; [`send_due`](Self::send_due) repeats it.
    pub(super) fn announce(&self, disk: &AoeDisk) {
        if let Some(mac) = disk.place.mac {
            self.socket.join(mac);
        }
        self.send(disk);
        let now = Instant::now();
        let mut waiting = self.waiting();
        waiting.retain(|(_, other)| !Arc::ptr_eq(&other.place, &disk.place));
        if waiting.len() + REPEATS.len() <= WAITING_MAX {
            waiting.extend(REPEATS.map(|after| (now + after, disk.clone())));
        }
    }

    pub(super) fn send_due(&self, now: Instant) {
        let due: Vec<_> = self.waiting().extract_if(.., |(at, _)| *at <= now).collect();
        for (_, disk) in due {
            if !disk.export.connections.is_closed() {
                self.send(&disk);
            }
        }
    }

    fn send(&self, disk: &AoeDisk) {
        let (address, mac) = (disk.place.address, self.socket.mac_of(&disk.place));
        let reply = config_reply(&self.socket, &disk.export);
        let to = disk.place.told.iter();
        let frame = |&client| reply.announce(client, mac, address.shelf, address.slot).into();
        let frames: Vec<_> = to.map(frame).collect();
        self.socket.send(&frames);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(Instant, AoeDisk)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
