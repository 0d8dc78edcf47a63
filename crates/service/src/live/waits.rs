//! Why PCs wait, as of their last question.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::{Mac, Moment};

/// PCs of which it is remembered why they wait.
const PCS_MAX: usize = 1024;

/// A PC that waits in the loader asks every ten seconds, one in its initrd says so every twenty; after
/// this time it is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Why PCs wait.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    by_mac: Mutex<HashMap<Mac, (Moment, String)>>,
}

impl Waits {
    /// A PC waits. Returns whether that is news.
    pub(crate) fn set(&self, mac: Mac, why: &str, now: Moment) -> bool {
        let mut by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        if by_mac.len() >= PCS_MAX && !by_mac.contains_key(&mac) {
            by_mac.retain(|_, (at, _)| now.since(*at) < FORGOTTEN_AFTER);
        }
        if by_mac.len() >= PCS_MAX && !by_mac.contains_key(&mac) {
            return false;
        }
        let former = by_mac.insert(mac, (now, why.to_owned()));
        former.is_none_or(|(_, former)| former != why)
    }

    /// A PC goes on.
    pub(crate) fn clear(&self, mac: Mac) {
        self.by_mac.lock().unwrap_or_else(PoisonError::into_inner).remove(&mac);
    }

    /// Why a PC waits, if it does.
    pub(crate) fn get(&self, mac: Mac, now: Moment) -> Option<String> {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, why) = by_mac.get(&mac)?;
        (now.since(*at) < FORGOTTEN_AFTER).then(|| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_no_more_does_not_wait() {
        let waits = Waits::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let at = Moment::from_millis;
        assert!(waits.set(mac, "no image", at(1000)));
        assert!(!waits.set(mac, "no image", at(11_000)), "that is known");
        assert_eq!(waits.get(mac, at(40_999)).as_deref(), Some("no image"));
        assert_eq!(waits.get(mac, at(41_000)), None);
        waits.set(mac, "no disk", at(50_000));
        waits.clear(mac);
        assert_eq!(waits.get(mac, at(50_000)), None);
    }

    #[test]
    fn a_crowd_takes_the_places_of_those_that_are_gone_only() {
        let waits = Waits::default();
        let mac = |n: usize| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        let at = Moment::from_millis;
        for n in 0..PCS_MAX {
            assert!(waits.set(mac(n), "waits", at(0)));
        }
        assert!(!waits.set(mac(PCS_MAX), "waits", at(29_999)), "all places are taken");
        assert_eq!(waits.get(mac(PCS_MAX), at(29_999)), None);
        assert!(
            waits.set(mac(0), "waits for something else", at(29_999)),
            "who has a place keeps it"
        );
        assert!(waits.set(mac(PCS_MAX), "waits", at(30_000)));
        assert_eq!(waits.get(mac(0), at(30_000)).as_deref(), Some("waits for something else"));
    }
}
