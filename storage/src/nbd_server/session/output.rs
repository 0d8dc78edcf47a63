//! Replies that wait to be sent together.

use crate::nbd_server::link::Link;
use nbd::server::Agreed;
use nbd::{ErrorCode, Request, simple_reply, structured};
use std::io;

/// Replies are sent when so many bytes have gathered, or when no request is waiting.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// A buffer that grew further is given back: Linux reads at most 1280 KiB at once.
const KEPT_BYTES: usize = 2 << 20;

/// Replies of one connection. What is [`put`](Self::put) goes out with the next [`send`](Self::send).
pub(super) struct Output {
    agreed: Agreed,
    /// Longer than what is in it, so that nobody fills it with zeroes before he reads into it.
    buffer: Vec<u8>,
    length: usize,
}

impl Output {
    pub(super) fn new(agreed: Agreed) -> Self {
        Self { agreed, buffer: Vec::new(), length: 0 }
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
            self.buffer.resize(self.length.next_power_of_two(), 0);
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
            if self.buffer.len() > KEPT_BYTES {
                self.buffer = Vec::new();
            }
        }
        Ok(())
    }
}
