//! Tells machines that their disk is there, so that one that waits need not ask.

use super::socket::PacketSocket;
use super::{config_reply, own_mac};
use crate::admission::AoeDisk;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When an announcement is repeated: a switch may just have begun to forward to the machine.
const REPEATS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Repeats that wait: of 500 disks at once. Beyond, disks are announced once only.
const WAITING_MAX: usize = 1000;

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
        let (address, mac) = (disk.place.address, own_mac(&self.socket, &disk.place));
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
