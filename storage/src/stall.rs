//! Trouble that passes: an error that is sent to a machine turns its root read-only, so it waits.

use model::StallVerb;
use std::io::{self, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often what waits is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The requests of one export that wait.
#[derive(Default)]
pub(crate) struct Stalls {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    requests: u32,
    since: Option<Instant>,
    n_resumed: u64,
    n_failed: u64,
}

/// One request that waits, until it is dropped.
pub(crate) struct Stalled<'a> {
    stalls: &'a Stalls,
    is_first: bool,
    n_resumed: u64,
    n_failed: u64,
}

/// Whether the error will pass without anybody's help but an administrator's.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl Stalls {
    pub(crate) fn begin(&self) -> Stalled<'_> {
        let mut state = self.lock();
        state.requests += 1;
        let is_first = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        let (n_resumed, n_failed) = (state.n_resumed, state.n_failed);
        Stalled { stalls: self, is_first, n_resumed, n_failed }
    }

    /// What the administrator wants to become of those that wait; how many there are.
    pub(crate) fn decide(&self, verb: StallVerb) -> u32 {
        let mut state = self.lock();
        match verb {
            StallVerb::Resume => state.n_resumed += 1,
            StallVerb::Fail => state.n_failed += 1,
        }
        self.told.notify_all();
        state.requests
    }

    pub(crate) fn status(&self) -> Option<model::Stall> {
        let state = self.lock();
        Some(model::Stall {
            seconds: state.since?.elapsed().as_secs(),
            requests: state.requests,
            why: "the storage server's disk is full".to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Single numbers stay right whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stalled<'_> {
    /// Whether no other request waited before.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Waits for a while, or for the administrator; whether the request shall be tried again.
    pub(crate) fn wait(&mut self) -> bool {
        let deadline = Instant::now() + RETRY;
        let mut state = self.stalls.lock();
        loop {
            if state.n_failed > self.n_failed {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.n_resumed > self.n_resumed || left.is_zero() {
                self.n_resumed = state.n_resumed;
                return true;
            }
            let waited = self.stalls.told.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        let mut state = self.stalls.lock();
        state.requests -= 1;
        if state.requests == 0 {
            state.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_goes_on_when_it_is_told() {
        let stalls = Stalls::default();
        let decided = |verb| {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| stalls.begin().wait());
                while stalls.status().is_none() {
                    std::thread::yield_now();
                }
                assert_eq!(stalls.decide(verb), 1);
                waiting.join().unwrap()
            })
        };
        assert!(decided(StallVerb::Resume));
        assert!(!decided(StallVerb::Fail));
        assert_eq!(stalls.status(), None);
    }
}
