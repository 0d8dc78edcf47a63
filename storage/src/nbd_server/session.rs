//! Transmission: requests in, replies out, many in one batch.

use crate::export::Export;
use nbd::{
    Command, CommandFlags, ErrorCode, PAYLOAD_MAX, REPLY_BYTES, REQUEST_BYTES, Request,
    simple_reply,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Requests are received into a buffer of this size.
const RECEIVE_BYTES: usize = 256 << 10;

/// Replies are sent when so many bytes have gathered, or when no request is waiting.
const BATCH_BYTES: usize = 256 << 10;

/// Long trims and zeroes are done in steps of this size, so that closing need not wait for all.
const STEP_BYTES: u64 = 128 << 20;

/// A write that is longer is received here, no further than the bytes that really come.
const OVERSIZE_MAX: u64 = 64 << 20;

/// Serves one connection until the client disconnects (`Ok`) or the connection breaks.
pub(super) fn run(export: &Export, stream: &TcpStream, early: Vec<u8>) -> io::Result<()> {
    let mut session = Session { export, stream, received: early, parsed: 0, replies: Vec::new() };
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
        session.answer(&request)?;
        if session.replies.len() >= BATCH_BYTES {
            session.send()?;
        }
    }
}

struct Session<'a> {
    export: &'a Export,
    stream: &'a TcpStream,
    received: Vec<u8>,
    /// Bytes of `received` that are done with.
    parsed: usize,
    replies: Vec<u8>,
}

impl Session<'_> {
    /// The next request's header; `None` when the client has closed between requests.
    fn header(&mut self) -> io::Result<Option<[u8; REQUEST_BYTES]>> {
        while self.received.len() - self.parsed < REQUEST_BYTES {
            if !self.receive()? {
                return if self.received.len() == self.parsed {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        let mut header = [0; REQUEST_BYTES];
        header.copy_from_slice(&self.received[self.parsed..self.parsed + REQUEST_BYTES]);
        self.parsed += REQUEST_BYTES;
        Ok(Some(header))
    }

    /// Receives what there is; `false` at the end. Replies go out first: the client may wait for them.
    fn receive(&mut self) -> io::Result<bool> {
        self.send()?;
        self.received.drain(..self.parsed);
        self.parsed = 0;
        let start = self.received.len();
        self.received.resize(start + RECEIVE_BYTES, 0);
        let count = loop {
            match (&mut &*self.stream).read(&mut self.received[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.received.truncate(start + *count.as_ref().unwrap_or(&0));
        Ok(count? > 0)
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
        let done = match request.command {
            Command::Read => return self.read(request),
            Command::Flush => self.export.flush(),
            Command::Cache if request.fits(size_bytes) => Ok(()),
            Command::Trim | Command::WriteZeroes if !request.fits(size_bytes) => {
                return self.reply(request, Err(ErrorCode::NoSpace));
            }
            Command::Trim => self.in_steps(request, length, Export::trim),
            Command::WriteZeroes => self.in_steps(request, length, Export::write_zeroes),
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
        while self.received.len() - self.parsed < length {
            if !self.receive()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let data = self.parsed..self.parsed + length;
        self.parsed = data.end;
        if !request.fits(self.export.size_bytes()) {
            return self.reply(request, Err(ErrorCode::NoSpace));
        }
        let done = self.export.write(&self.received[data], request.offset);
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
            let taken = left.min(self.received.len() - self.parsed);
            self.parsed += taken;
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
