//! Trouble that passes: an error that is sent to a machine turns its root read-only, so it waits.

use super::connections::Connections;
use images::{Block, Filter, NoRoom, Zeroes};
use model::StallVerb;
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often what waits is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A disk that waits with what is written while there is no room for it, or no descriptor for its files, until the export is closed.
pub(crate) struct Patient<B> {
    below: B,
    stalls: Arc<Stalls>,
    connections: Arc<Connections>,
}

impl<B: Block> Patient<B> {
    pub(crate) fn new(below: B, stalls: Arc<Stalls>, connections: Arc<Connections>) -> Self {
        Self { below, stalls, connections }
    }

    fn patiently(&self, operation: impl Fn(&B) -> io::Result<()>) -> io::Result<()> {
        let mut stalled = None;
        loop {
            match self.attempt(&operation) {
                Err(error) if !self.connections.is_closed() => {
                    let Some(lack) = Lack::of(&error) else { return Err(error) };
                    if self.stalls.are_failed() {
                        return Err(error);
                    }
                    if !stalled.get_or_insert_with(|| self.stalls.begin(lack)).wait() {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }
}

impl<B: Block> Patient<B> {
    /// Does it. While writes fail by decision, one that has got more room shows that there is some again. One that needs
    /// none shows nothing.
    fn attempt(&self, operation: impl Fn(&B) -> io::Result<()>) -> io::Result<()> {
        if !self.stalls.are_failed() {
            return operation(&self.below);
        }
        let before = self.below.layer_bytes().ok();
        operation(&self.below)?;
        if self.below.layer_bytes().ok() > before {
            self.stalls.wait_again();
        }
        Ok(())
    }
}

impl<B: Block> Filter for Patient<B> {
    type Below = B;

    fn below(&self) -> &B {
        &self.below
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.patiently(|disk| disk.write_at(data, offset))
    }

    fn write_at_once(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        match self.attempt(|disk| disk.write_at(data, offset)) {
            Err(error) if !self.connections.is_closed() && Lack::of(&error).is_some() => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        self.patiently(|disk| disk.write_zeroes(offset, length, how))
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.patiently(|disk| disk.trim(offset, length))
    }

    fn flush(&self) -> io::Result<()> {
        self.patiently(B::flush)
    }
}

/// The requests of one export that wait.
pub(crate) struct Stalls {
    /// Its name.
    export: String,
    state: Mutex<State>,
    told: Condvar,
    /// What would have to wait fails.
    are_failed: AtomicBool,
}

#[derive(Default)]
struct State {
    requests: u32,
    since: Option<Instant>,
    lack: Lack,
    n_resumed: u64,
    n_failed: u64,
}

/// One request that waits, until it is dropped.
struct Stalled<'a> {
    stalls: &'a Stalls,
    n_resumed: u64,
    n_failed: u64,
}

/// What a request waits for: it will pass without anybody's help but an administrator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lack {
    #[default]
    Room,
    /// What is left of the server's disk is kept for others.
    Reserve,
    /// The machine's layer is as large as one may be.
    Layer,
    Descriptors,
}

impl Lack {
    fn of(error: &io::Error) -> Option<Self> {
        let why = error.get_ref().and_then(|error| error.downcast_ref());
        match why {
            Some(NoRoom::Layer) => return Some(Self::Layer),
            Some(NoRoom::Reserve) => return Some(Self::Reserve),
            None => {}
        }
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return Some(Self::Room);
        }
        let code = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::MFILE | Errno::NFILE)).then_some(Self::Descriptors)
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Room => "the storage server's disk is full",
            Self::Reserve => {
                "the storage server's disk is nearly full, and what is left is kept for machines that start"
            }
            Self::Layer => {
                "what it has written takes as much room on the storage server as layer_max allows"
            }
            Self::Descriptors => "the storage server has not enough file descriptors",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Room | Self::Reserve => {
                "delete files there that are not needed, or reset or remove machines"
            }
            Self::Layer => {
                "set a larger layer_max in bootlace.toml and restart the storage server, or restart or reset the machine"
            }
            Self::Descriptors => "allow it more (LimitNOFILE= in systemd, ulimit -n)",
        }
    }
}

impl Stalls {
    pub(crate) fn new(export: String) -> Self {
        Self {
            export,
            state: Mutex::default(),
            told: Condvar::new(),
            are_failed: AtomicBool::new(false),
        }
    }

    fn begin(&self, lack: Lack) -> Stalled<'_> {
        let mut state = self.lock();
        state.requests += 1;
        state.lack = lack;
        if state.since.is_none() {
            state.since = Some(Instant::now());
            tracing::error!(
                export = self.export,
                "{}: the client is waiting; {}",
                lack.sentence(),
                lack.remedy()
            );
        }
        Stalled { stalls: self, n_resumed: state.n_resumed, n_failed: state.n_failed }
    }

    /// Whether requests that find no room fail, as was decided.
    pub(crate) fn are_failed(&self) -> bool {
        self.are_failed.load(Ordering::Acquire)
    }

    /// There is room again: what finds none the next time waits.
    fn wait_again(&self) {
        if self.are_failed.swap(false, Ordering::AcqRel) {
            tracing::info!(
                export = self.export,
                "there is room again: its writes don't fail any more"
            );
        }
    }

    /// What the administrator wants to become of the requests that wait; how many there are. If they are to fail, so do
    /// those that come later, until there is room again or he has them wait: the machine sends the next as soon as one has
    /// failed. Where none waits, none is failed later.
    pub(crate) fn decide(&self, verb: StallVerb) -> u32 {
        let mut state = self.lock();
        match verb {
            StallVerb::Resume => {
                state.n_resumed += 1;
                self.are_failed.store(false, Ordering::Release);
            }
            StallVerb::Fail => {
                state.n_failed += 1;
                if state.requests > 0 {
                    self.are_failed.store(true, Ordering::Release);
                }
            }
        }
        self.told.notify_all();
        let n_requests = state.requests;
        drop(state);
        tracing::info!(
            export = self.export,
            n_requests,
            ?verb,
            "what becomes of writes that are waiting for room was decided"
        );
        n_requests
    }

    /// How long requests have been waiting; `None` if none is.
    pub(crate) fn status(&self) -> Option<model::Stall> {
        let state = self.lock();
        Some(model::Stall {
            seconds: state.since?.elapsed().as_secs(),
            requests: state.requests,
            why: state.lack.sentence().to_owned(),
            remedy: state.lack.remedy().to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Single numbers stay right whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stalled<'_> {
    /// Waits for a while, or for the administrator; whether the request shall be tried again.
    fn wait(&mut self) -> bool {
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
        let stalls = Stalls::new("lab-01".into());
        let decided = |verb| {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| stalls.begin(Lack::Room).wait());
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
