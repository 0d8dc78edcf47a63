//! Transmission: requests in, replies out, many in one batch.

use crate::export::{Export, Session as Joined};
use nbd::{
    Command, CommandFlags, ErrorCode, PAYLOAD_MAX, REPLY_BYTES, REQUEST_BYTES, Request,
    simple_reply,
};
use socket2::Socket;
use std::io::{self, Read, Write};

/// Requests are received into a buffer of this size, unless one of them is longer.
const RECEIVE_BYTES: usize = 256 << 10;

/// A buffer that grew further for one request is given back: Linux writes at most 1280 KiB at once.
const RECEIVE_KEPT_BYTES: usize = 2 << 20;

/// Replies are sent when so many bytes have gathered, or when no request is waiting.
const BATCH_BYTES: usize = 256 << 10;

/// Long trims and zeroes are done in steps of this size, so that closing need not wait for all.
const STEP_BYTES: u64 = 128 << 20;

/// A write that is longer is received here, no further than the bytes that really come.
const OVERSIZE_MAX: u64 = 64 << 20;

/// Serves one connection until the client disconnects (`Ok`) or the connection breaks.
pub(super) fn run(joined: &Joined, stream: &Socket, early: Vec<u8>) -> io::Result<()> {
    let export = &*joined.export;
    let mut session = Session::new(export, stream, early);
    loop {
        let Some(header) = session.header()? else {
            session.send()?;
            return Ok(());
        };
        let request = Request::parse(&header)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if request.command == Command::Disconnect {
            session.send()?;
            return Ok(());
        }
        if joined.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        session.answer(&request)?;
        let is_closed = export.is_closed();
        if is_closed || session.replies.len() >= BATCH_BYTES {
            session.send()?;
        }
        if is_closed {
            return Ok(());
        }
    }
}

struct Session<'a> {
    export: &'a Export,
    stream: &'a Socket,
    buffer: Vec<u8>,
    /// The bytes in `buffer[start..end]` are received and not yet done with.
    start: usize,
    end: usize,
    replies: Vec<u8>,
}

impl<'a> Session<'a> {
    fn new(export: &'a Export, stream: &'a Socket, early: Vec<u8>) -> Self {
        let end = early.len();
        let mut buffer = early;
        buffer.resize(RECEIVE_BYTES.max(end), 0);
        Self { export, stream, buffer, start: 0, end, replies: Vec::new() }
    }

    /// The next request's header; `None` when the client has closed between requests.
    fn header(&mut self) -> io::Result<Option<[u8; REQUEST_BYTES]>> {
        if !self.await_bytes(REQUEST_BYTES)? {
            let is_between = self.start == self.end;
            return if is_between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let mut header = [0; REQUEST_BYTES];
        header.copy_from_slice(&self.buffer[self.start..self.start + REQUEST_BYTES]);
        self.start += REQUEST_BYTES;
        Ok(Some(header))
    }

    /// Receives until so many bytes are there; `false` if the stream ends before.
    fn await_bytes(&mut self, count: usize) -> io::Result<bool> {
        while self.end - self.start < count {
            if self.start + count > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if count > self.buffer.len() {
                    self.buffer.resize(count, 0);
                }
            }
            if !self.receive()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives what there is; `false` at the end. Replies go out first: the client may wait for them.
    fn receive(&mut self) -> io::Result<bool> {
        self.send()?;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        loop {
            match (&mut &*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.replies.is_empty() {
            (&mut &*self.stream).write_all(&self.replies)?;
            self.replies.clear();
            self.replies.shrink_to(2 * BATCH_BYTES);
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let size_bytes = self.export.size_bytes();
        let length = u64::from(request.length);
        if request.command == Command::Write {
            return self.write(request);
        }
        if !request.flags.is_known() {
            return self.reply(request, Err(ErrorCode::Invalid));
        }
        let done = match request.command {
            Command::Read => return self.read(request),
            Command::Flush => self.export.flush(),
            Command::Cache if request.fits(size_bytes) => {
                self.export.prefetch(request.offset, length);
                Ok(())
            }
            Command::Trim | Command::WriteZeroes if !request.fits(size_bytes) => {
                return self.reply(request, Err(ErrorCode::NoSpace));
            }
            Command::Trim => self.in_steps(request, length, Export::trim),
            Command::WriteZeroes => self.in_steps(request, length, |export, offset, length| {
                export.write_zeroes(offset, length, images::Zeroes::default())
            }),
            _ => return self.reply(request, Err(ErrorCode::Invalid)),
        };
        self.finish(request, done)
    }

    fn in_steps(
        &self,
        request: &Request,
        length: u64,
        operation: fn(&Export, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let step = STEP_BYTES.min(length - done);
            operation(self.export, request.offset + done, step)?;
            done += step;
        }
        Ok(())
    }

    fn read(&mut self, request: &Request) -> io::Result<()> {
        if request.length > PAYLOAD_MAX || !request.fits(self.export.size_bytes()) {
            return self.reply(request, Err(ErrorCode::Invalid));
        }
        // Header and data go in one batch; the header is taken back if the disk fails.
        let start = self.replies.len();
        self.replies.extend_from_slice(&simple_reply(request.cookie, None));
        self.replies.resize(start + REPLY_BYTES + request.length as usize, 0);
        let data = &mut self.replies[start + REPLY_BYTES..];
        match self.export.read(data, request.offset) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.replies.truncate(start);
                self.finish(request, Err(error))
            }
        }
    }

    fn write(&mut self, request: &Request) -> io::Result<()> {
        let length = request.length as usize;
        if request.length > PAYLOAD_MAX {
            self.drain(u64::from(request.length))?;
            return self.reply(request, Err(ErrorCode::Invalid));
        }
        if !self.await_bytes(length)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let data = self.start..self.start + length;
        self.start = data.end;
        if !request.flags.is_known() {
            return self.reply(request, Err(ErrorCode::Invalid));
        }
        if !request.fits(self.export.size_bytes()) {
            return self.reply(request, Err(ErrorCode::NoSpace));
        }
        let done = self.export.write(&self.buffer[data], request.offset);
        if self.start == self.end && self.buffer.len() > RECEIVE_KEPT_BYTES {
            (self.start, self.end) = (0, 0);
            self.buffer = vec![0; RECEIVE_BYTES];
        }
        self.finish(request, done)
    }

    /// Throws an oversized payload away, so that the client can be told.
    fn drain(&mut self, length: u64) -> io::Result<()> {
        if length > OVERSIZE_MAX {
            let text = "a write is longer than 64 MiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut left = length as usize;
        loop {
            let taken = left.min(self.end - self.start);
            self.start += taken;
            left -= taken;
            if left == 0 {
                return Ok(());
            }
            if !self.receive()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Replies to a request that changes the disk, durable first if it asked for that.
    fn finish(&mut self, request: &Request, done: io::Result<()>) -> io::Result<()> {
        let fua = request.flags.has(CommandFlags::FUA) && request.command != Command::Flush;
        let done = done.and_then(|()| if fua { self.export.flush() } else { Ok(()) });
        match done {
            Ok(()) => self.reply(request, Ok(())),
            // The boot is over: the kernel of a machine must not take that for a disk error.
            Err(error) if self.export.is_closed() => Err(error),
            Err(error) => {
                let code = match error.kind() {
                    io::ErrorKind::PermissionDenied => ErrorCode::NotPermitted,
                    io::ErrorKind::InvalidInput => ErrorCode::Invalid,
                    io::ErrorKind::StorageFull => ErrorCode::NoSpace,
                    io::ErrorKind::OutOfMemory => ErrorCode::NoMemory,
                    _ => ErrorCode::Io,
                };
                self.reply(request, Err(code))
            }
        }
    }

    fn reply(&mut self, request: &Request, result: Result<(), ErrorCode>) -> io::Result<()> {
        self.replies.extend_from_slice(&simple_reply(request.cookie, result.err()));
        Ok(())
    }
}
