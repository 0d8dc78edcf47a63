//! Words that were refused.

use model::BootId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Boots whose refused words are counted.
const BOOTS_MAX: usize = 1024;

/// Words that were refused, by boot.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    by_boot: Mutex<HashMap<BootId, u64>>,
}

impl Refused {
    /// Counts one more.
    pub(crate) fn count(&self, boot: BootId) {
        let mut by_boot = self.by_boot.lock().unwrap_or_else(PoisonError::into_inner);
        if by_boot.len() >= BOOTS_MAX && !by_boot.contains_key(&boot) {
            // Numbers grow: the smallest is the oldest.
            let oldest = by_boot.keys().min().copied();
            oldest.and_then(|oldest| by_boot.remove(&oldest));
        }
        *by_boot.entry(boot).or_default() += 1;
    }

    /// How many there are of this boot.
    pub(crate) fn of(&self, boot: BootId) -> u64 {
        let by_boot = self.by_boot.lock().unwrap_or_else(PoisonError::into_inner);
        by_boot.get(&boot).copied().unwrap_or(0)
    }
}
