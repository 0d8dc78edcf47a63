//! Image versions with which machines can't start, as far as their files show.

use images::VersionTrouble;
use model::ImageName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Troubles = Arc<BTreeMap<(ImageName, u32), VersionTrouble>>;

/// What the last look at the image store has found.
#[derive(Debug, Default)]
pub(crate) struct ImageTroubles {
    /// `None`: nobody has looked yet.
    last: Mutex<Option<Troubles>>,
    /// Why files of the store can't be read that are no version's own.
    unreadable: Mutex<Vec<String>>,
}

impl ImageTroubles {
    /// What the last look has found, by image and version. Never waits.
    pub(crate) fn last(&self) -> Troubles {
        self.lock().clone().unwrap_or_default()
    }

    /// Whether somebody has looked.
    pub(crate) fn are_known(&self) -> bool {
        self.lock().is_some()
    }

    /// A look has found exactly these, and other files of the store that can't be read.
    pub(crate) fn put(
        &self,
        found: BTreeMap<(ImageName, u32), VersionTrouble>,
        unreadable: Vec<String>,
    ) {
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = unreadable;
        *self.lock() = Some(Arc::new(found));
    }

    /// Why files of the store can't be read that are no version's own, as the last look has found it.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Troubles>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
