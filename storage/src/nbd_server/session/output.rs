//! Replies that wait to be sent together.

use crate::nbd_server::link::Link;
use crate::nbd_server::memory::Loan;
use nbd::server::Agreed;
use nbd::{ErrorCode, Request, simple_reply, structured};
use std::io;

/// Replies are sent when so many bytes have gathered, or when no request is waiting.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// Replies that all connections may keep at once beyond what each has of its own: boots of thirty machines don't
/// notice a bound.
pub(in crate::nbd_server) const REPLY_BYTES_MAX: usize = 32 << 20;

/// Each connection has so much of its own, so that it always gets on.
pub(super) const OWN_BYTES: usize = 32 << 10;

/// A buffer grows by this.
const GROWTH_BYTES: usize = 64 << 10;

/// A reply without data, or the header of one with data, is not longer.
pub(super) const SHORT_BYTES_MAX: usize = 512;

/// Replies of one connection. What is [`put`](Self::put) goes out with the next [`send`](Self::send).
///
/// Whoever puts more than [`SHORT_BYTES_MAX`] asks [`has_room`](Self::has_room) first, and whoever has put something asks
/// [`is_full`](Self::is_full).
pub(super) struct Output {
    agreed: Agreed,
    /// Longer than what is in it, so that nobody fills it with zeroes before he reads into it.
    buffer: Vec<u8>,
    length: usize,
    /// For the buffer, if that is longer than [`OWN_BYTES`].
    loan: Loan,
}

impl Output {
    pub(super) fn new(agreed: Agreed, loan: Loan) -> Self {
        Self { agreed, buffer: Vec::new(), length: 0, loan }
    }

    /// Whether it is time to send: much is gathered, or there is no memory for another reply without data.
    pub(super) fn is_full(&mut self) -> bool {
        self.length >= BATCH_BYTES || !self.has_room(SHORT_BYTES_MAX)
    }

    /// Whether so many bytes more can be put: there is memory for them.
    pub(super) fn has_room(&mut self, count: usize) -> bool {
        let wanted = self.length + count;
        wanted <= self.buffer.len().max(OWN_BYTES)
            || self.loan.grow_to(wanted.next_multiple_of(GROWTH_BYTES))
    }

    /// Whether it keeps memory that others could use.
    pub(super) fn has_borrowed(&self) -> bool {
        self.buffer.len() > OWN_BYTES
    }

    /// Gives back what is borrowed. Nothing may wait to be sent.
    pub(super) fn give_back(&mut self) {
        self.buffer = Vec::new();
        self.loan.give_back();
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Takes back what was put in after the length was this.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The next so many bytes, to be written over.
    pub(super) fn room(&mut self, count: usize) -> &mut [u8] {
        let start = self.length;
        self.length += count;
        if self.length > self.buffer.len() {
            let size = match self.length {
                0..=OWN_BYTES => self.length.next_power_of_two(),
                length => length.next_multiple_of(GROWTH_BYTES),
            };
            self.buffer.resize(size, 0);
        }
        &mut self.buffer[start..self.length]
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// The request is done, and brings nothing.
    pub(super) fn done(&mut self, request: &Request) {
        // Simple replies are allowed to all commands that bring no data.
        self.put(&simple_reply(request.cookie, None));
    }

    /// The request failed.
    pub(super) fn failed(&mut self, request: &Request, code: ErrorCode, text: &str) {
        if self.agreed.structured {
            self.put(&structured::error(request.cookie, code, text));
        } else {
            self.put(&simple_reply(request.cookie, Some(code)));
        }
    }

    pub(super) fn send(&mut self, link: &mut Link<'_>) -> io::Result<()> {
        if self.length > 0 {
            link.write_all(&self.buffer[..self.length])?;
            self.length = 0;
        }
        Ok(())
    }
}
