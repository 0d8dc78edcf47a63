//! Codes of links by which root of this server logs a browser in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use wire::Moment;

/// Codes that nobody has used yet. Only root can ask for one; the oldest is void then.
const CODES_MAX: usize = 16;

/// Codes that are good once, as hashes, each until a moment.
#[derive(Debug, Default)]
pub(crate) struct LoginCodes {
    until: Mutex<HashMap<[u8; 32], Moment>>,
}

impl LoginCodes {
    /// A code with this hash is good until then.
    pub(crate) fn put(&self, hash: [u8; 32], until: Moment, now: Moment) {
        let mut codes = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, until| *until > now);
        while codes.len() >= CODES_MAX {
            let first = codes.iter().min_by_key(|(_, until)| **until).map(|(hash, _)| *hash);
            first.and_then(|first| codes.remove(&first));
        }
        codes.insert(hash, until);
    }

    /// Until when the code with this hash is good, for the only time; `None`: it is not.
    pub(crate) fn take(&self, hash: &[u8; 32], now: Moment) -> Option<Moment> {
        let mut codes = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        codes.remove(hash).filter(|until| *until > now)
    }
}
