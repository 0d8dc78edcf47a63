//! Image versions with which machines can't start, as far as their files show.

use images::VersionTrouble;
use model::ImageName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the last look at the image store has found.
#[derive(Debug, Default)]
pub(crate) struct ImageTroubles {
    last: Mutex<Arc<BTreeMap<(ImageName, u32), VersionTrouble>>>,
}

impl ImageTroubles {
    /// What the last look has found, by image and version. Never waits.
    pub(crate) fn last(&self) -> Arc<BTreeMap<(ImageName, u32), VersionTrouble>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A look has found exactly these.
    pub(crate) fn put(&self, found: BTreeMap<(ImageName, u32), VersionTrouble>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
    }
}
