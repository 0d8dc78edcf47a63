//! What a client sent and nobody has looked at yet.

use crate::nbd_server::link::Link;
use std::io;

/// Requests are received into a buffer of this size.
const RECEIVE_BYTES: usize = 256 << 10;

/// Less than this is moved to the beginning of the buffer, so that the next receive has room.
const MOVED_BYTES: usize = 8 << 10;

/// [`receive`](Self::receive) until [`len`](Self::len) is enough, then [`take`](Self::take) or
/// [`skip`](Self::skip).
pub(super) struct Input {
    buffer: Vec<u8>,
    /// The bytes in `buffer[start..end]` are received and not yet done with.
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(early: &[u8]) -> Self {
        let mut buffer = vec![0; RECEIVE_BYTES.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        Self { buffer, start: 0, end: early.len() }
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Receives what there is; `false` at the end of the stream. There will be room for `wanted` bytes,
    /// at most 256 KiB. `WouldBlock` means that nothing came that is of use yet.
    pub(super) fn receive(&mut self, link: &mut Link<'_>, wanted: usize) -> io::Result<bool> {
        let is_cramped = self.end > self.buffer.len() / 2;
        if self.start + wanted > self.buffer.len()
            || is_cramped && self.len() < MOVED_BYTES
            || self.start == self.end
        {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match link.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes so many bytes, which must be there.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.start += count;
        &self.buffer[start..self.start]
    }

    /// Throws away at most so many bytes of those that are there; how many.
    pub(super) fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.len());
        self.start += count;
        count
    }
}
