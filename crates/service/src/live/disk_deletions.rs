//! Why disks of removed machines are not deleted yet.

use model::MachineName;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

/// What the storage server said when it was to delete them.
#[derive(Debug, Default)]
pub(crate) struct DiskDeletions {
    /// One at a time: a second request would hit what a new machine of the name has got since the first.
    turn: AsyncMutex<()>,
    refused: Mutex<BTreeMap<MachineName, String>>,
}

impl DiskDeletions {
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Why the machine's disk could not be deleted when that was tried last; `None`: it was not.
    pub(crate) fn refusal(&self, machine: &MachineName) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(machine).cloned()
    }

    /// It was tried, and failed for this reason if there is one. Returns whether that is news.
    pub(crate) fn tried(&self, machine: &MachineName, refusal: Option<&str>) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match refusal {
            Some(why) => refused.insert(machine.clone(), why.to_owned()),
            None => refused.remove(machine),
        };
        former.as_deref() != refusal
    }
}
