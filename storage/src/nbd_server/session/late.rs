//! Requests that wait for a disk, while others of the same connection are answered.

use crate::descriptors::Wakers;
use crate::export::InFlight;
use crate::pool::Pool;
use nbd::Request;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use socket2::Socket;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Requests of one connection that wait at once: what Linux has in flight.
const WAITING_MAX: usize = 128;

/// Bytes that they may bring. Beyond these limits a connection waits for its own requests.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// A request that is done: what was read, or nothing.
pub(super) struct Finished {
    pub(super) request: Request,
    /// Where the data lies on the disk: behind the request's offset if its beginning was sent before.
    pub(super) position: u64,
    pub(super) result: io::Result<Vec<u8>>,
    /// When the request came.
    pub(super) began: Instant,
    bytes: usize,
}

/// The requests of one connection that wait. Dropping it waits for them.
///
/// Ask [`has_room`](Self::has_room), then [`submit`](Self::submit); [`wait`](Self::wait) says that
/// something is done, and [`take`](Self::take) gives it.
pub(super) struct Late {
    wakers: Arc<Wakers>,
    /// There while requests wait: a connection that is idle holds no second descriptor.
    shared: Option<Arc<Shared>>,
    n_waiting: usize,
    waiting_bytes: usize,
}

struct Shared {
    finished: Mutex<Vec<Finished>>,
    /// Counts up when there is something in `finished`.
    event: OwnedFd,
    wakers: Arc<Wakers>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wakers.returned();
    }
}

/// What to look at next.
pub(super) enum Ready {
    Input,
    Finished,
}

impl Late {
    pub(super) const fn new(wakers: Arc<Wakers>) -> Self {
        Self { wakers, shared: None, n_waiting: 0, waiting_bytes: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.n_waiting == 0
    }

    /// Whether one more may wait, which brings so many bytes.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        self.n_waiting < WAITING_MAX
            && self.waiting_bytes + bytes <= WAITING_BYTES_MAX
            && self.shared().is_some()
    }

    /// Has `work`, which brings `bytes`, done by the pool. Ask [`has_room`](Self::has_room) before.
    pub(super) fn submit(
        &mut self,
        pool: &Pool,
        (request, position, bytes): (Request, u64, usize),
        in_flight: InFlight,
        work: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    ) {
        let Some(shared) = self.shared() else { return };
        // One share of the pool's threads for each connection.
        let user = Arc::as_ptr(&shared) as usize;
        let ticket = Ticket { shared, request, position, bytes, in_flight, result: None };
        self.n_waiting += 1;
        self.waiting_bytes += bytes;
        pool.submit(user, move || ticket.finish(work()));
    }

    fn shared(&mut self) -> Option<Arc<Shared>> {
        if self.shared.is_none() && self.wakers.take() {
            let Ok(event) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) else {
                self.wakers.returned();
                return None;
            };
            let wakers = Arc::clone(&self.wakers);
            self.shared = Some(Arc::new(Shared { finished: Mutex::default(), event, wakers }));
        }
        self.shared.clone()
    }

    /// Takes what is done.
    pub(super) fn take(&mut self) -> Vec<Finished> {
        let Some(shared) = self.shared.as_ref().filter(|_| self.n_waiting > 0) else {
            return Vec::new();
        };
        // Before the list: what comes later counts up again.
        let _ = rustix::io::read(&shared.event, &mut [0; 8]);
        let finished =
            std::mem::take(&mut *shared.finished.lock().unwrap_or_else(PoisonError::into_inner));
        self.n_waiting -= finished.len();
        self.waiting_bytes -= finished.iter().map(|one| one.bytes).sum::<usize>();
        if self.n_waiting == 0 {
            self.shared = None;
        }
        finished
    }

    /// Waits for a request to be done; with a stream, for bytes on it, too.
    pub(super) fn wait(&self, stream: Option<&Socket>) -> io::Result<Ready> {
        let Some(shared) = &self.shared else { return Ok(Ready::Input) };
        let mut waits = vec![PollFd::new(&shared.event, PollFlags::IN)];
        waits.extend(stream.map(|stream| PollFd::new(stream, PollFlags::IN)));
        loop {
            match poll(&mut waits, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_finished = waits.first().is_some_and(|wait| !wait.revents().is_empty());
        Ok(if is_finished { Ready::Finished } else { Ready::Input })
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        while !self.is_empty() && self.wait(None).is_ok() {
            self.take();
        }
    }
}

/// Brings a request back when it is dropped, even if its work panics.
struct Ticket {
    shared: Arc<Shared>,
    request: Request,
    position: u64,
    bytes: usize,
    in_flight: InFlight,
    result: Option<io::Result<Vec<u8>>>,
}

impl Ticket {
    fn finish(mut self, result: io::Result<Vec<u8>>) {
        self.result = Some(result);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| Err(io::Error::other("the request was abandoned")));
        let (request, position, bytes) = (self.request, self.position, self.bytes);
        let began = self.in_flight.began;
        let finished = Finished { request, position, result, began, bytes };
        self.shared.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        // It only counts, and can't overflow.
        let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
    }
}
