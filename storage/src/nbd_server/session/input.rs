//! What a client sent and nobody has looked at yet.

use nbd::REQUEST_BYTES;
use socket2::Socket;
use std::io::{self, Read};

/// Requests are received into a buffer of this size, unless one of them needs more.
const RECEIVE_BYTES: usize = 256 << 10;

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

    /// Receives what there is; `false` at the end of the stream. There will be room for `wanted` bytes.
    pub(super) fn receive(&mut self, mut stream: &Socket, wanted: usize) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > RECEIVE_BYTES && wanted <= REQUEST_BYTES {
                self.buffer = vec![0; RECEIVE_BYTES];
            }
        }
        if self.start + wanted > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if wanted > self.buffer.len() {
                self.buffer.resize(wanted, 0);
            }
        }
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
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
