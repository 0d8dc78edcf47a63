//! PCs that were told of their loader beside another DHCP server's offer, and asked for nothing then.
//!
//! A part of UEFI firmware does not take two offers together: it gets both, and is silent (`docs/quirks.md`).

use std::collections::HashMap;
use std::time::Duration;
use wire::{Mac, Moment};

/// Firmware that takes an offer asks for its loader within this time. So it is silent if it has not after its last offer.
const ASKS_WITHIN: Duration = Duration::from_secs(20);

/// One offer may have been lost.
const OFFERS_MIN: u32 = 2;

/// Later it is another attempt.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// PCs that are remembered; of others nothing is told.
const PCS_MAX: usize = 512;

#[derive(Debug)]
struct Offered {
    last: Moment,
    n: u32,
    is_told: bool,
}

/// Who was told of a loader, and has not asked for it.
#[derive(Debug, Default)]
pub(super) struct Offers {
    by_mac: HashMap<Mac, Offered>,
}

impl Offers {
    /// A PC is told of its loader.
    pub(super) fn offered(&mut self, mac: Mac, now: Moment) {
        if self.by_mac.len() >= PCS_MAX && !self.by_mac.contains_key(&mac) {
            return;
        }
        let offered = self.by_mac.entry(mac).or_insert(Offered { last: now, n: 0, is_told: false });
        (offered.last, offered.n) = (now, offered.n + 1);
    }

    /// It takes what it was told: it asks for an address, or for its loader. Whether somebody was told otherwise.
    pub(super) fn takes(&mut self, mac: Mac) -> bool {
        self.by_mac.remove(&mac).is_some_and(|offered| offered.is_told)
    }

    /// Who has not asked in time, each once, and how often they were told.
    pub(super) fn silent(&mut self, now: Moment) -> Vec<(Mac, u32)> {
        self.by_mac.retain(|_, offered| now.since(offered.last) < FORGOTTEN_AFTER);
        let mut silent = Vec::new();
        for (&mac, offered) in &mut self.by_mac {
            let is_silent = offered.n >= OFFERS_MIN && now.since(offered.last) >= ASKS_WITHIN;
            if is_silent && !std::mem::replace(&mut offered.is_told, true) {
                silent.push((mac, offered.n));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_again_and_again_and_asks_for_nothing_is_found_once() {
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        let at = |seconds: u64| Moment::from_millis(seconds * 1000);
        let mut offers = Offers::default();
        for seconds in [0, 4, 12] {
            offers.offered(mac(1), at(seconds));
            offers.offered(mac(2), at(seconds));
        }
        offers.offered(mac(3), at(0));
        assert!(!offers.takes(mac(2)), "it asks for an address in time");
        assert_eq!(offers.silent(at(31)), []);
        assert_eq!(offers.silent(at(32)), [(mac(1), 3)], "one offer may be lost");
        assert_eq!(offers.silent(at(33)), [], "that is told");
        offers.offered(mac(1), at(40));
        assert!(offers.takes(mac(1)), "it was told wrongly");
        assert_eq!(offers.silent(at(100)), []);
        for n in 0..=PCS_MAX {
            offers.offered(Mac([2, 1, 0, 0, (n >> 8) as u8, n as u8]), at(200));
        }
        assert_eq!(offers.by_mac.len(), PCS_MAX);
        assert_eq!(offers.silent(at(400)), []);
        assert!(offers.by_mac.is_empty(), "nobody is remembered for ever");
    }
}
