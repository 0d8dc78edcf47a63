//! How far PCs are with the files that they fetch, as of their last sign of going on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::{Mac, Moment};

/// PCs of which it is remembered.
const PCS_MAX: usize = 1024;

/// Loaders that lose a packet ask again within seconds; who has taken nothing for so long takes nothing any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// How far a PC is with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download {
    at: Moment,
    /// What it has, or what is on its way to it.
    pub n_bytes: u64,
    /// Size of the file.
    pub size_bytes: u64,
}

/// How far PCs are.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    by_mac: Mutex<HashMap<Mac, Download>>,
}

impl Downloads {
    /// The PC goes on with its file.
    pub(crate) fn note(&self, mac: Mac, n_bytes: u64, size_bytes: u64, now: Moment) {
        let mut by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        if by_mac.len() >= PCS_MAX && !by_mac.contains_key(&mac) {
            by_mac.retain(|_, download| now.since(download.at) < FORGOTTEN_AFTER);
        }
        if by_mac.len() < PCS_MAX || by_mac.contains_key(&mac) {
            by_mac.insert(mac, Download { at: now, n_bytes, size_bytes });
        }
    }

    /// How far the PC is, if it goes on.
    pub(crate) fn get(&self, mac: Mac, now: Moment) -> Option<Download> {
        let by_mac = self.by_mac.lock().unwrap_or_else(PoisonError::into_inner);
        by_mac.get(&mac).filter(|download| now.since(download.at) < FORGOTTEN_AFTER).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_any_more_does_not_go_on() {
        let downloads = Downloads::default();
        let mac = |n: usize| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
        let at = Moment::from_millis;
        for n in 0..PCS_MAX {
            downloads.note(mac(n), 1, 2, at(0));
        }
        downloads.note(mac(PCS_MAX), 1, 2, at(29_999));
        assert_eq!(downloads.get(mac(PCS_MAX), at(29_999)), None, "all places are taken");
        downloads.note(mac(0), 2, 2, at(29_999));
        assert_eq!(downloads.get(mac(1), at(30_000)), None, "it has taken nothing for so long");
        assert_eq!(downloads.get(mac(0), at(30_000)).map(|it| it.n_bytes), Some(2));
        downloads.note(mac(PCS_MAX), 1, 2, at(30_000));
        assert!(downloads.get(mac(PCS_MAX), at(30_000)).is_some());
    }
}
