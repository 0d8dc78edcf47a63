//! Writes for which there is no room: they wait one after the other, while what is about other blocks is done.

use crate::pool::Pool;
use nbd::{Command, Request};

/// Bytes of the writes of all connections that wait for room while others are done. Beyond that, and beyond what one
/// connection may have waiting, a connection waits with all that it asks for.
pub(super) const STALLED_BYTES_OF_ALL_MAX: usize = 32 << 20;

/// The writes of one connection that wait for room.
#[derive(Default)]
pub(super) struct Stalled {
    waiting: Vec<Request>,
    /// A thread of this connection's own: what waits here would keep others' from being done, whose room is there.
    pool: Option<Pool>,
}

impl Stalled {
    /// This write waits from now on; by whom it is to be done.
    pub(super) fn begin(&mut self, request: &Request) -> Pool {
        self.waiting.push(*request);
        self.pool.get_or_insert_with(|| Pool::of(1)).clone()
    }

    /// It is done.
    pub(super) fn on_done(&mut self, request: &Request) {
        if let Some(index) = self.waiting.iter().position(|one| one == request) {
            self.waiting.remove(index);
        }
        if self.waiting.is_empty() {
            self.pool = None;
        }
    }

    /// Whether a request is about blocks of one that waits.
    pub(super) fn overlaps(&self, request: &Request) -> bool {
        if request.command == Command::Flush {
            return false;
        }
        let end = |request: &Request| request.offset.saturating_add(request.length.into());
        let is_at = |one: &Request| request.offset < end(one) && one.offset < end(request);
        self.waiting.iter().any(is_at)
    }
}
