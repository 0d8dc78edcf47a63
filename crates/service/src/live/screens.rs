//! What screens of machines show, as far as somebody sends pictures of them.

use bytes::Bytes;
use model::MachineName;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::Moment;

/// A picture is of no use when it is older.
const STAYS: Duration = Duration::from_secs(10);

/// The last picture that came.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    last: Mutex<Option<(MachineName, Moment, Bytes)>>,
}

impl Screens {
    /// What this machine's screen shows.
    pub(crate) fn get(&self, machine: &MachineName, now: Moment) -> Option<Bytes> {
        let mut last = self.lock();
        if last.as_ref().is_some_and(|(_, at, _)| now.since(*at) > STAYS) {
            *last = None;
        }
        last.as_ref().filter(|(of, ..)| of == machine).map(|(.., picture)| picture.clone())
    }

    pub(crate) fn put(&self, machine: MachineName, now: Moment, picture: Bytes) {
        *self.lock() = Some((machine, now, picture));
    }

    fn lock(&self) -> MutexGuard<'_, Option<(MachineName, Moment, Bytes)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
