//! Signs of life of running machines. They are stale when the server has been away.

use crate::clock::Now;
use model::BootId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::Moment;

/// They come each 20 s: who has missed three is not there any more.
const SILENT_AFTER: Duration = Duration::from_secs(70);

/// A system that shuts down still gives signs of life for a while; its services may take 90 s each.
const SHUTDOWN_MAX: Duration = Duration::from_secs(120);

/// Boots of which it is remembered when they were heard.
const BOOTS_MAX: usize = 4096;

/// What is heard of a machine that has been up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// It gives signs of life.
    Alive,
    /// It has said that it is being shut down; milliseconds since 1970.
    SaidOff(u64),
    /// It gave none for a minute; when it gave the last, milliseconds since 1970, if that is known.
    Silent(Option<u64>),
    /// Nobody has listened for long enough.
    #[default]
    Unknown,
}

/// The last sign of life in each boot.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    listening_since: Moment,
    by_boot: Mutex<HashMap<BootId, Heartbeat>>,
}

/// A sign of life in one boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) at: Moment,
    /// The machine is being shut down.
    pub(crate) is_last: bool,
    /// How full its memory for changes is, if it has one.
    pub(crate) ram_used_percent: Option<u8>,
}

impl Heartbeats {
    /// Nobody was heard yet.
    pub(crate) fn new(now: Moment) -> Self {
        Self { listening_since: now, by_boot: Mutex::default() }
    }

    /// A machine was heard in this boot.
    pub(crate) fn note(&self, boot: BootId, heard: Heartbeat) {
        let mut by_boot = self.by_boot.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shutting_down = by_boot
            .get(&boot)
            .is_some_and(|last| last.is_last && heard.at.since(last.at) < SHUTDOWN_MAX);
        if is_shutting_down {
            return;
        }
        if by_boot.len() >= BOOTS_MAX && !by_boot.contains_key(&boot) {
            by_boot.retain(|_, last| heard.at.since(last.at) < SILENT_AFTER);
        }
        if by_boot.len() < BOOTS_MAX || by_boot.contains_key(&boot) {
            by_boot.insert(boot, heard);
        }
    }

    /// Whether a machine gave signs of life in this boot.
    pub(crate) fn was_heard(&self, boot: BootId) -> bool {
        self.last(boot).is_some()
    }

    /// What is heard of a machine in this boot.
    pub(crate) fn life(&self, boot: BootId, now: Now) -> Life {
        let is_long = |since: Moment| now.moment.since(since) > SILENT_AFTER;
        match self.last(boot) {
            Some(last) if last.is_last => Life::SaidOff(now.unix_ms_at(last.at)),
            Some(last) if is_long(last.at) => Life::Silent(Some(now.unix_ms_at(last.at))),
            Some(_) => Life::Alive,
            None if is_long(self.listening_since) => Life::Silent(None),
            None => Life::Unknown,
        }
    }

    /// When the machine was heard last in this boot, in milliseconds since 1970.
    pub(crate) fn heard_unix_ms(&self, boot: BootId, now: Now) -> Option<u64> {
        Some(now.unix_ms_at(self.last(boot)?.at))
    }

    /// How full the machine's memory for changes is in this boot, in percent.
    pub(crate) fn ram_used_percent(&self, boot: BootId) -> Option<u8> {
        self.last(boot).filter(|last| !last.is_last)?.ram_used_percent
    }

    fn last(&self, boot: BootId) -> Option<Heartbeat> {
        self.by_boot.lock().unwrap_or_else(PoisonError::into_inner).get(&boot).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at_ms: u64, is_last: bool) -> Heartbeat {
        let at = Moment::from_millis(at_ms);
        Heartbeat { at, is_last, ram_used_percent: Some(83) }
    }

    /// The wall clock is an hour ahead of the other.
    fn life(heartbeats: &Heartbeats, boot: BootId, at_ms: u64) -> Life {
        let now = Now { unix_ms: at_ms + 3_600_000, moment: Moment::from_millis(at_ms) };
        heartbeats.life(boot, now)
    }

    #[test]
    fn who_is_silent_for_a_minute_is_gone() {
        let heartbeats = Heartbeats::new(Moment::from_millis(0));
        assert_eq!(life(&heartbeats, 7, 70_000), Life::Unknown);
        assert_eq!(life(&heartbeats, 7, 70_001), Life::Silent(None));
        heartbeats.note(7, heard(80_000, false));
        assert_eq!(heartbeats.ram_used_percent(7), Some(83));
        assert_eq!(heartbeats.ram_used_percent(8), None, "another boot");
        assert_eq!(life(&heartbeats, 7, 150_000), Life::Alive);
        assert_eq!(life(&heartbeats, 7, 150_001), Life::Silent(Some(3_680_000)));
        assert_eq!(life(&heartbeats, 8, 140_000), Life::Silent(None), "another boot");
        heartbeats.note(7, heard(160_000, true));
        heartbeats.note(7, heard(279_999, false));
        assert_eq!(life(&heartbeats, 7, 500_000), Life::SaidOff(3_760_000));
        heartbeats.note(7, heard(280_000, false));
        assert_eq!(life(&heartbeats, 7, 280_000), Life::Alive, "it was not shut down after all");
    }

    #[test]
    fn the_wall_clock_may_be_set_without_anybody_falling_silent() {
        let heartbeats = Heartbeats::new(Moment::from_millis(0));
        heartbeats.note(7, heard(80_000, false));
        for unix_ms in [0, 4_000_000_000_000] {
            let now = Now { unix_ms, moment: Moment::from_millis(100_000) };
            assert_eq!(heartbeats.life(7, now), Life::Alive);
        }
    }
}
