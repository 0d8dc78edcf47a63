//! Who changes what a machine's disk consists of: one at a time, and nobody while it is being merged or looked at.

use model::DiskId;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How often a merge that is done looks whether somebody wants it to stop, while another one has the machine's turn.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The turns of all machines.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<DiskId, Arc<Turn>>>);

/// That of one machine.
#[derive(Default)]
pub(super) struct Turn {
    /// Held by who changes the description of the disk, or opens its files.
    change: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A merge copies. It holds no lock.
    is_merging: bool,
    /// It is to end.
    is_unwanted: bool,
    /// Snapshots that somebody looks at: their files stay what they are.
    n_views: u32,
}

impl Turns {
    pub(super) fn of(&self, disk: &DiskId) -> Arc<Turn> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(disk.clone()).or_default())
    }
}

impl Turn {
    /// Waits for the turn, and has a merge end: it holds files open that are opened anew now.
    pub(super) fn begin(&self) -> MutexGuard<'_, ()> {
        let turn = self.join();
        let mut state = self.state();
        state.is_unwanted = true;
        while state.is_merging {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_unwanted = false;
        turn
    }

    /// Waits for the turn. A merge goes on.
    pub(super) fn join(&self) -> MutexGuard<'_, ()> {
        // It guards files.
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a merge, by who has the turn and gives it back then. `None`: somebody merges or looks.
    pub(super) fn begin_merge(self: &Arc<Self>) -> Option<Merging> {
        let mut state = self.state();
        if state.is_merging || state.n_views > 0 {
            return None;
        }
        state.is_merging = true;
        Some(Merging(Arc::clone(self)))
    }

    /// Begins a look, by who has [begun](Self::begin) a turn.
    pub(super) fn begin_view(self: &Arc<Self>) -> View {
        self.state().n_views += 1;
        View(Arc::clone(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is changed by single assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A merge, until it is dropped.
pub(super) struct Merging(Arc<Turn>);

impl Merging {
    /// Whether it is to end as it is.
    pub(super) fn is_unwanted(&self) -> bool {
        self.0.state().is_unwanted
    }

    /// The turn, to write down what was merged; `None`: it is to end.
    pub(super) fn join(&self) -> Option<MutexGuard<'_, ()>> {
        loop {
            if self.is_unwanted() {
                return None;
            }
            match self.0.change.try_lock() {
                Ok(turn) => return Some(turn),
                Err(TryLockError::Poisoned(turn)) => return Some(turn.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_INTERVAL),
            }
        }
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.0.state().is_merging = false;
        self.0.changed.notify_all();
    }
}

/// A look at a snapshot, until it is dropped.
pub(super) struct View(Arc<Turn>);

impl Drop for View {
    fn drop(&mut self) {
        self.0.state().n_views -= 1;
    }
}
