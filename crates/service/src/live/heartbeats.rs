//! Signs of life of running machines. They are stale when the server has been away.

use crate::clock::Now;
use model::BootId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::{Mac, Moment};

/// They come each 20 s: who has missed three is not there any more.
const SILENT_AFTER: Duration = Duration::from_secs(70);

/// A system that shuts down still gives signs of life for a while; its services may take 90 s each.
const SHUTDOWN_MAX: Duration = Duration::from_secs(120);

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
    listening_since: Moment,
    by_mac: Mutex<HashMap<Mac, Heartbeat>>,
}

/// A sign of life of one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) boot: BootId,
    pub(crate) at: Moment,
    /// The machine is being shut down.
    pub(crate) is_last: bool,
    /// How full its memory for changes is, if it has one.
    pub(crate) ram_used_percent: Option<u8>,
}

impl Heartbeats {
    /// Nobody was heard yet.
    pub(crate) fn new(now: Moment) -> Self {
        Self { listening_since: now, by_mac: Mutex::default() }
    }

    /// A machine was heard.
    pub(crate) fn note(&self, mac: Mac, heard: Heartbeat) {
        let mut by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shutting_down = by_mac.get(&mac).is_some_and(|last| {
            let is_same_boot = last.boot == heard.boot;
            is_same_boot && last.is_last && heard.at.since(last.at) < SHUTDOWN_MAX
        });
        if is_shutting_down {
            return;
        }
        if by_mac.len() >= MACHINES_MAX && !by_mac.contains_key(&mac) {
            by_mac.retain(|_, last| heard.at.since(last.at) < SILENT_AFTER);
        }
        if by_mac.len() < MACHINES_MAX || by_mac.contains_key(&mac) {
            by_mac.insert(mac, heard);
        }
    }

    /// Whether a machine gave signs of life in this boot.
    pub(crate) fn was_heard(&self, mac: Mac, boot: BootId) -> bool {
        self.last(mac, boot).is_some()
    }

    /// What is heard of a machine in this boot.
    pub(crate) fn life(&self, mac: Mac, boot: BootId, now: Now) -> Life {
        let is_long = |since: Moment| now.moment.since(since) > SILENT_AFTER;
        match self.last(mac, boot) {
            Some(last) if last.is_last => Life::SaidOff(now.unix_ms_at(last.at)),
            Some(last) if is_long(last.at) => Life::Silent(Some(now.unix_ms_at(last.at))),
            Some(_) => Life::Alive,
            None if is_long(self.listening_since) => Life::Silent(None),
            None => Life::Unknown,
        }
    }

    /// How full the machine's memory for changes is in this boot, in percent.
    pub(crate) fn ram_used_percent(&self, mac: Mac, boot: BootId) -> Option<u8> {
        self.last(mac, boot).filter(|last| !last.is_last)?.ram_used_percent
    }

    fn last(&self, mac: Mac, boot: BootId) -> Option<Heartbeat> {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        by_mac.get(&mac).filter(|last| last.boot == boot).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn heard(at_ms: u64, is_last: bool) -> Heartbeat {
        let at = Moment::from_millis(at_ms);
        Heartbeat { boot: 7, at, is_last, ram_used_percent: Some(83) }
    }

    /// The wall clock is an hour ahead of the other.
    fn life(heartbeats: &Heartbeats, boot: BootId, at_ms: u64) -> Life {
        let now = Now { unix_ms: at_ms + 3_600_000, moment: Moment::from_millis(at_ms) };
        heartbeats.life(MAC, boot, now)
    }

    #[test]
    fn who_is_silent_for_a_minute_is_gone() {
        let heartbeats = Heartbeats::new(Moment::from_millis(0));
        assert_eq!(life(&heartbeats, 7, 70_000), Life::Unknown);
        assert_eq!(life(&heartbeats, 7, 70_001), Life::Silent(None));
        heartbeats.note(MAC, heard(80_000, false));
        assert_eq!(heartbeats.ram_used_percent(MAC, 7), Some(83));
        assert_eq!(heartbeats.ram_used_percent(MAC, 8), None, "another boot");
        assert_eq!(life(&heartbeats, 7, 150_000), Life::Alive);
        assert_eq!(life(&heartbeats, 7, 150_001), Life::Silent(Some(3_680_000)));
        assert_eq!(life(&heartbeats, 8, 140_000), Life::Silent(None), "another boot");
        heartbeats.note(MAC, heard(160_000, true));
        heartbeats.note(MAC, heard(279_999, false));
        assert_eq!(life(&heartbeats, 7, 500_000), Life::SaidOff(3_760_000));
        heartbeats.note(MAC, heard(280_000, false));
        assert_eq!(life(&heartbeats, 7, 280_000), Life::Alive, "it was not shut down after all");
    }

    #[test]
    fn the_wall_clock_may_be_set_without_anybody_falling_silent() {
        let heartbeats = Heartbeats::new(Moment::from_millis(0));
        heartbeats.note(MAC, heard(80_000, false));
        for unix_ms in [0, 4_000_000_000_000] {
            let now = Now { unix_ms, moment: Moment::from_millis(100_000) };
            assert_eq!(heartbeats.life(MAC, 7, now), Life::Alive);
        }
    }
}
