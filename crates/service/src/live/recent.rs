//! What PCs said last, of which nothing is to be kept when they say nothing more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Mac, Moment};

/// PCs of which it is remembered.
pub(super) const PCS_MAX: usize = 1024;

/// After this time a PC is gone: one that waits in its loader asks every ten seconds, and one in its initrd says so every twenty.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Something that a PC said.
pub(super) trait Said: Clone {
    /// When.
    fn at(&self) -> Moment;
}

/// What each PC said last.
#[derive(Debug)]
pub(super) struct Recent<T> {
    by_mac: Mutex<HashMap<Mac, T>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { by_mac: Mutex::default() }
    }
}

impl<T: Said> Recent<T> {
    /// A PC says something now. Returns what it said before; an error if there are too many PCs to remember it.
    pub(super) fn put(&self, mac: Mac, said: T) -> Result<Option<T>, TooMany> {
        let (now, mut by_mac) = (said.at(), self.lock());
        if by_mac.len() >= PCS_MAX && !by_mac.contains_key(&mac) {
            by_mac.retain(|_, former| now.since(former.at()) < FORGOTTEN_AFTER);
            if by_mac.len() >= PCS_MAX {
                return Err(TooMany);
            }
        }
        Ok(by_mac.insert(mac, said))
    }

    /// What the PC said last, unless that is long ago.
    pub(super) fn get(&self, mac: Mac, now: Moment) -> Option<T> {
        self.lock().get(&mac).filter(|said| now.since(said.at()) < FORGOTTEN_AFTER).cloned()
    }

    /// It counts no more.
    pub(super) fn remove(&self, mac: Mac) {
        self.lock().remove(&mac);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mac, T>> {
        self.by_mac.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There are more PCs than are remembered.
#[derive(Debug)]
pub(super) struct TooMany;
