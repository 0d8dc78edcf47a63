//! The clock by which leases are counted.

use crate::clock::Now;
use model::Lease;
use std::sync::atomic::{AtomicI64, Ordering};

/// What NTP changes bit by bit is no setting.
const CLOCK_SET_MS: u64 = 5_000;

/// How the wall clock, which stands in the database, relates to the one that leases are counted by: that goes on
/// from where the wall clock was at the start, whatever becomes of the wall clock.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    /// What both clocks said at the start.
    start: Now,
    /// By how much the wall clock was set since the start, as far as the database knows, in whole seconds.
    set_seconds: AtomicI64,
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// By how much since the database was last told.
    pub(crate) by_seconds: i64,
    /// By how much since the start.
    set_seconds: i64,
}

impl LeaseClock {
    pub(crate) fn new(now: Now) -> Self {
        Self { start: now, set_seconds: AtomicI64::new(0) }
    }

    /// What it tells, seconds since 1970.
    pub(crate) const fn unix(&self, now: Now) -> u64 {
        now.moment.as_millis().saturating_add_signed(ahead_ms(self.start)) / 1000
    }

    /// By how much the wall clock was set of which the database does not know.
    pub(crate) fn setting(&self, now: Now) -> Option<Setting> {
        let set_ms = ahead_ms(now).saturating_sub(ahead_ms(self.start));
        let known_seconds = self.set_seconds.load(Ordering::Relaxed);
        if set_ms.abs_diff(known_seconds.saturating_mul(1000)) < CLOCK_SET_MS {
            return None;
        }
        let set_seconds = set_ms / 1000;
        Some(Setting { by_seconds: set_seconds - known_seconds, set_seconds })
    }

    /// When this process started, milliseconds since 1970, by the wall clock as the database knows it.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        let set_ms = self.set_seconds.load(Ordering::Relaxed).saturating_mul(1000);
        self.start.unix_ms.saturating_add_signed(set_ms)
    }

    /// The database knows of this setting.
    pub(crate) fn note(&self, setting: Setting) {
        self.set_seconds.store(setting.set_seconds, Ordering::Relaxed);
    }

    /// The database does not know of this setting after all.
    pub(crate) fn forget(&self, setting: Setting) {
        self.set_seconds.store(setting.set_seconds - setting.by_seconds, Ordering::Relaxed);
    }

    /// A lease that is counted by this clock, as it stands in the database.
    pub(crate) fn stored(&self, lease: Lease) -> Lease {
        let seconds = self.set_seconds.load(Ordering::Relaxed);
        let expires_unix = lease.expires_unix.saturating_add_signed(seconds);
        // Numbers of the database have a sign.
        Lease { expires_unix: expires_unix.min(i64::MAX.unsigned_abs()), ..lease }
    }

    /// A lease as it stands in the database, counted by this clock.
    pub(crate) fn counted(&self, lease: &Lease) -> Lease {
        let seconds = self.set_seconds.load(Ordering::Relaxed);
        let expires_unix = lease.expires_unix.saturating_add_signed(seconds.saturating_neg());
        Lease { expires_unix, ..lease.clone() }
    }
}

/// How far the wall clock is ahead of the other, in ms.
const fn ahead_ms(now: Now) -> i64 {
    now.unix_ms.cast_signed().saturating_sub(now.moment.as_millis().cast_signed())
}
