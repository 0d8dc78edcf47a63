//! Signs of life of running machines. Kept in memory: they are stale when the server has been away.

use crate::service::{Service, now_unix_ms};
use model::BootId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use wire::Mac;

/// They come each 20 s: who has missed three is not there any more.
const SILENT_MS: u64 = 70_000;

/// A system that shuts down still gives signs of life for a while; its services may take 90 s each.
const SHUTDOWN_MS: u64 = 120_000;

/// Machines of which it is remembered when they were heard.
const MACHINES_MAX: usize = 4096;

/// What is heard of a machine that has been up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It gives signs of life.
    Alive,
    /// It has said that it is being shut down; milliseconds since 1970.
    SaidOff(u64),
    /// It gave none for a minute; when it gave the last, milliseconds since 1970, if that is known.
    Silent(Option<u64>),
    /// Nobody has listened for long enough.
    Unknown,
}

/// The last sign of life of each machine.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    listening_since_ms: u64,
    by_mac: Mutex<HashMap<Mac, Heard>>,
}

/// The last sign of life of one machine.
#[derive(Clone, Copy, Debug)]
struct Heard {
    boot: BootId,
    at_ms: u64,
    is_last: bool,
    ram_used_percent: Option<u8>,
}

impl Heartbeats {
    pub(crate) fn new() -> Self {
        Self { listening_since_ms: now_unix_ms(), by_mac: Mutex::default() }
    }

    fn note(&self, mac: Mac, heard: Heard) {
        let now_ms = heard.at_ms;
        let mut by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shutting_down = by_mac.get(&mac).is_some_and(|last| {
            let is_same_boot = last.boot == heard.boot;
            is_same_boot && last.is_last && now_ms.saturating_sub(last.at_ms) < SHUTDOWN_MS
        });
        if is_shutting_down {
            return;
        }
        if by_mac.len() >= MACHINES_MAX {
            by_mac.retain(|_, last| now_ms.saturating_sub(last.at_ms) < SILENT_MS);
        }
        if by_mac.len() < MACHINES_MAX {
            by_mac.insert(mac, heard);
        }
    }

    /// Whether a machine gave signs of life in this boot.
    pub(crate) fn was_heard(&self, mac: Mac, boot: BootId) -> bool {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        by_mac.get(&mac).is_some_and(|heard| heard.boot == boot)
    }

    /// What is heard of a machine in this boot.
    pub(crate) fn life(&self, mac: Mac, boot: BootId, now_ms: u64) -> Life {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = |since_ms: u64| now_ms.saturating_sub(since_ms) > SILENT_MS;
        match by_mac.get(&mac).filter(|last| last.boot == boot) {
            Some(last) if last.is_last => Life::SaidOff(last.at_ms),
            Some(last) if is_long(last.at_ms) => Life::Silent(Some(last.at_ms)),
            Some(_) => Life::Alive,
            None if is_long(self.listening_since_ms) => Life::Silent(None),
            None => Life::Unknown,
        }
    }

    /// How full the machine's memory for changes is in this boot, in percent.
    pub(crate) fn ram_used_percent(&self, mac: Mac, boot: BootId) -> Option<u8> {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        by_mac.get(&mac).filter(|last| last.boot == boot && !last.is_last)?.ram_used_percent
    }
}

impl Service {
    /// A machine gives a sign of life, or its last one because it shuts down; and says how full its
    /// memory for changes is, if it has one.
    pub fn heartbeat(&self, mac: Mac, boot: BootId, is_last: bool, ram_used_percent: Option<u8>) {
        if is_last {
            tracing::info!(machine = self.name_or_mac(mac), boot, "shuts down");
        }
        self.heartbeats()
            .note(mac, Heard { boot, at_ms: now_unix_ms(), is_last, ram_used_percent });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_a_minute_is_gone() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let heard = |at_ms, is_last| Heard { boot: 7, at_ms, is_last, ram_used_percent: Some(83) };
        let heartbeats = Heartbeats { listening_since_ms: 0, by_mac: Mutex::default() };
        assert_eq!(heartbeats.life(mac, 7, 60_000), Life::Unknown);
        assert_eq!(heartbeats.life(mac, 7, 80_000), Life::Silent(None));
        heartbeats.note(mac, heard(80_000, false));
        assert_eq!(heartbeats.ram_used_percent(mac, 7), Some(83));
        assert_eq!(heartbeats.ram_used_percent(mac, 8), None, "another boot");
        assert_eq!(heartbeats.life(mac, 7, 140_000), Life::Alive);
        assert_eq!(heartbeats.life(mac, 7, 160_000), Life::Silent(Some(80_000)));
        assert_eq!(heartbeats.life(mac, 8, 140_000), Life::Silent(None), "another boot");
        heartbeats.note(mac, heard(160_000, true));
        heartbeats.note(mac, heard(161_000, false));
        assert_eq!(heartbeats.life(mac, 7, 500_000), Life::SaidOff(160_000));
    }
}
