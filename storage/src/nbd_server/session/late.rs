//! Requests that wait for a disk, while others of the same connection are answered.

use crate::descriptors::Wakers;
use crate::export::InFlight;
use crate::nbd_server::memory::{Loan, Memory};
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

/// Bytes that the requests of all connections may bring: 30 booting machines read ahead by a megabyte or two each. Beyond
/// that a connection waits for its own requests, too.
pub(super) const WAITING_BYTES_OF_ALL_MAX: usize = 64 << 20;

/// A request that is done: what was read, or nothing.
pub(super) struct Finished {
    pub(super) request: Request,
    /// Where the data lies on the disk: behind the request's offset if its beginning was sent before.
    pub(super) position: u64,
    pub(super) result: io::Result<Vec<u8>>,
    /// When the request came.
    pub(super) began: Instant,
    loan: Loan,
}

/// The requests of one connection that wait. Dropping it waits for them.
///
/// Ask for [`room`](Self::room), then [`submit`](Self::submit); [`wait`](Self::wait) says that
/// something is done, and [`take`](Self::take) gives it.
pub(super) struct Late {
    wakers: Arc<Wakers>,
    /// There while requests wait: a connection that is idle holds no second descriptor.
    shared: Option<Arc<Shared>>,
    n_waiting: usize,
    waiting_bytes: usize,
    memory: Arc<Memory>,
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
    pub(super) const fn new(wakers: Arc<Wakers>, memory: Arc<Memory>) -> Self {
        Self { wakers, shared: None, n_waiting: 0, waiting_bytes: 0, memory }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.n_waiting == 0
    }

    /// Memory for one more request that waits and brings so many bytes; `None` if it may not wait.
    pub(super) fn room(&mut self, bytes: usize) -> Option<Loan> {
        let memory = Arc::clone(&self.memory);
        self.room_of(&memory, bytes)
    }

    /// The same, of other memory.
    pub(super) fn room_of(&mut self, memory: &Arc<Memory>, bytes: usize) -> Option<Loan> {
        let may_wait = self.n_waiting < WAITING_MAX
            && self.waiting_bytes + bytes <= WAITING_BYTES_MAX
            && self.shared().is_some();
        if may_wait { memory.lend(bytes) } else { None }
    }

    /// Has `work`, which brings no more bytes than there is [`room`](Self::room) for, done by the pool.
    pub(super) fn submit(
        &mut self,
        pool: &Pool,
        (request, position, loan): (Request, u64, Loan),
        in_flight: InFlight,
        work: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    ) {
        let Some(shared) = self.shared() else { return };
        // One share of the pool's threads for each connection.
        let user = Arc::as_ptr(&shared) as usize;
        self.n_waiting += 1;
        self.waiting_bytes += loan.bytes();
        let ticket = Ticket { shared, request, position, loan, in_flight, result: None };
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
        self.waiting_bytes -= finished.iter().map(|one| one.loan.bytes()).sum::<usize>();
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
    loan: Loan,
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
        let (request, position, began) = (self.request, self.position, self.in_flight.began);
        let finished = Finished { request, position, result, began, loan: self.loan.take() };
        self.shared.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        // It only counts, and can't overflow.
        let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
    }
}
