//! Transmission: requests in, replies out, many in one batch.

mod input;
mod output;

use crate::export::{Export, Session as Joined};
use images::Zeroes;
use input::Input;
use nbd::server::Agreed;
use nbd::{
    Command, CommandFlags, ErrorCode, PAYLOAD_MAX, REQUEST_BYTES, Request, simple_reply, structured,
};
use output::{BATCH_BYTES, Output};
use socket2::Socket;
use std::io;

/// Longer reads and writes are done in pieces of this size, so that a connection's memory is bounded.
/// Linux asks for at most 1280 KiB at once.
const PIECE_BYTES: usize = 2 << 20;

/// In reads from this size on, holes are left out if the client understands that.
const HOLES_FROM_BYTES: u32 = 32 << 10;

/// Long trims and zeroes are done in steps of this size, so that closing need not wait for all.
const STEP_BYTES: u64 = 128 << 20;

/// A write that is longer is received here, no further than the bytes that really come.
const OVERSIZE_MAX: u32 = 64 << 20;

/// Extents in one reply: 64 KiB of it.
const EXTENTS_MAX: usize = 8192;

/// A request that is not done, and why, in words for people.
type Refusal = (ErrorCode, &'static str);

/// Serves one connection until the client disconnects (`Ok`) or the connection breaks.
pub(super) fn run(
    joined: &Joined,
    stream: &Socket,
    agreed: Agreed,
    early: &[u8],
) -> io::Result<()> {
    let mut session = Session {
        joined,
        export: &joined.export,
        stream,
        agreed,
        input: Input::new(early),
        output: Output::new(agreed),
    };
    while let Some(request) = session.next()? {
        if joined.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        session.answer(&request)?;
        let is_closed = session.export.is_closed();
        if is_closed || session.output.len() >= BATCH_BYTES {
            session.send()?;
        }
        if is_closed {
            return Ok(());
        }
    }
    session.send()
}

struct Session<'a> {
    joined: &'a Joined,
    export: &'a Export,
    stream: &'a Socket,
    agreed: Agreed,
    input: Input,
    output: Output,
}

impl Session<'_> {
    /// The next request; `None` when the client has said goodbye, or closed between requests.
    fn next(&mut self) -> io::Result<Option<Request>> {
        if !self.await_bytes(REQUEST_BYTES)? {
            let is_between = self.input.len() == 0;
            return if is_between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let request = Request::parse(self.input.take(REQUEST_BYTES))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(request).filter(|request| request.command != Command::Disconnect))
    }

    /// Receives until so many bytes are there; `false` if the stream ends before.
    fn await_bytes(&mut self, count: usize) -> io::Result<bool> {
        while self.input.len() < count {
            // The client may wait for these.
            self.send()?;
            if !self.input.receive(self.stream, count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn send(&mut self) -> io::Result<()> {
        self.output.send(self.stream)
    }

    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let refusal = self.check(request).err();
        if request.command == Command::Write {
            return self.write(request, refusal);
        }
        if let Some((code, text)) = refusal {
            self.output.failed(request, code, text);
            return Ok(());
        }
        let done = match request.command {
            Command::Read => return self.read(request),
            Command::BlockStatus => return self.block_status(request),
            Command::Flush => self.export.flush(),
            Command::Cache => {
                self.export.prefetch(request.offset, u64::from(request.length));
                Ok(())
            }
            Command::Trim => self.in_steps(request, |at, length| self.export.trim(at, length)),
            _ => {
                let how = Zeroes {
                    keep_space: request.flags.has(CommandFlags::NO_HOLE),
                    only_fast: request.flags.has(CommandFlags::FAST_ZERO),
                };
                self.in_steps(request, |at, length| self.export.write_zeroes(at, length, how))
            }
        };
        self.finish(request, done)
    }

    /// Whether the request makes sense.
    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let invalid = |text| Err((ErrorCode::Invalid, text));
        if !request.flags.fit(request.command) {
            return invalid("a flag that does not belong to the command");
        }
        let fits = request.fits(self.export.size_bytes());
        match request.command {
            Command::Read | Command::Write if request.length > PAYLOAD_MAX => {
                invalid("the request is longer than 32 MiB")
            }
            Command::Write | Command::Trim | Command::WriteZeroes if !fits => {
                Err((ErrorCode::NoSpace, "beyond the end of the disk"))
            }
            Command::Read | Command::Cache | Command::BlockStatus if !fits => {
                invalid("beyond the end of the disk")
            }
            Command::Read if request.flags.has(CommandFlags::DF) => {
                if !self.agreed.structured {
                    return invalid("DF needs structured replies");
                }
                match request.length as usize > PIECE_BYTES {
                    true => Err((ErrorCode::Overflow, "too long for one chunk")),
                    false => Ok(()),
                }
            }
            Command::BlockStatus if !self.agreed.allocation => {
                invalid("base:allocation was not chosen")
            }
            Command::BlockStatus if request.length == 0 => invalid("a length of 0"),
            Command::Disconnect | Command::Unknown(_) => invalid("unknown command"),
            _ => Ok(()),
        }
    }

    fn in_steps(
        &self,
        request: &Request,
        operation: impl Fn(u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let length = u64::from(request.length);
        let mut done = 0;
        while done < length {
            let step = STEP_BYTES.min(length - done);
            operation(request.offset + done, step)?;
            done += step;
        }
        Ok(())
    }

    fn read(&mut self, request: &Request) -> io::Result<()> {
        if self.agreed.structured { self.read_chunks(request) } else { self.read_simple(request) }
    }

    fn read_simple(&mut self, request: &Request) -> io::Result<()> {
        let start = self.output.len();
        self.output.put(&simple_reply(request.cookie, None));
        let (mut offset, mut left) = (request.offset, request.length as usize);
        while left > 0 {
            let piece = left.min(PIECE_BYTES);
            if let Err(error) = self.export.read(self.output.room(piece), offset) {
                if offset > request.offset {
                    // The reply has begun, and has no way to say that it fails.
                    return Err(error);
                }
                self.output.truncate(start);
                return self.finish(request, Err(error));
            }
            (offset, left) = (offset + piece as u64, left - piece);
            if left > 0 {
                self.send()?;
            }
        }
        Ok(())
    }

    fn read_chunks(&mut self, request: &Request) -> io::Result<()> {
        let end = request.offset + u64::from(request.length);
        let is_whole = request.flags.has(CommandFlags::DF) || request.length < HOLES_FROM_BYTES;
        let mut position = request.offset;
        while position < end {
            let start = self.output.len();
            match self.read_chunk(request, position, end, is_whole) {
                Ok(length) => position += length,
                Err(error) => {
                    self.output.truncate(start);
                    return self.finish(request, Err(error));
                }
            }
            if self.output.len() >= BATCH_BYTES {
                self.send()?;
            }
        }
        if request.length == 0 {
            self.output.put(&structured::done(request.cookie));
        }
        Ok(())
    }

    /// Puts one chunk of a reply that goes to `end`; how much of the disk is in it.
    fn read_chunk(
        &mut self,
        request: &Request,
        position: u64,
        end: u64,
        is_whole: bool,
    ) -> io::Result<u64> {
        let (mut length, mut is_hole) = (end - position, false);
        if !is_whole {
            let extent = self.export.extent(position, length)?;
            (length, is_hole) = (extent.length, extent.is_hole);
        }
        if !is_hole {
            length = length.min(PIECE_BYTES as u64);
        }
        let is_last = position + length == end;
        // No read is longer than 32 MiB.
        let size = length as u32;
        if is_hole {
            self.output.put(&structured::hole(request.cookie, is_last, position, size));
        } else {
            self.output.put(&structured::data(request.cookie, is_last, position, size));
            self.export.read(self.output.room(size as usize), position)?;
        }
        Ok(length)
    }

    fn block_status(&mut self, request: &Request) -> io::Result<()> {
        match self.extents(request) {
            Ok(extents) => {
                self.output.put(&structured::block_status(request.cookie, &extents));
                Ok(())
            }
            Err(error) => self.finish(request, Err(error)),
        }
    }

    fn extents(&self, request: &Request) -> io::Result<Vec<(u32, bool)>> {
        let end = request.offset + u64::from(request.length);
        let mut extents: Vec<(u32, bool)> = Vec::new();
        let mut position = request.offset;
        while position < end {
            let extent = self.export.extent(position, end - position)?;
            // Not longer than the request, whose length has 32 bits.
            let length = extent.length as u32;
            position += extent.length;
            match extents.last_mut() {
                Some((last, is_hole)) if *is_hole == extent.is_hole => *last += length,
                _ => {
                    let is_enough = !extents.is_empty() && request.flags.has(CommandFlags::REQ_ONE);
                    if is_enough || extents.len() >= EXTENTS_MAX {
                        break;
                    }
                    extents.push((length, extent.is_hole));
                }
            }
        }
        Ok(extents)
    }

    fn write(&mut self, request: &Request, refusal: Option<Refusal>) -> io::Result<()> {
        if request.length > OVERSIZE_MAX {
            let text = "a write is longer than 64 MiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let length = request.length as usize;
        if let Some((code, text)) = refusal {
            self.drain(length)?;
            self.output.failed(request, code, text);
            return Ok(());
        }
        let mut written = 0;
        while written < length {
            let piece = PIECE_BYTES.min(length - written);
            if !self.await_bytes(piece)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.joined.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let offset = request.offset + written as u64;
            written += piece;
            if let Err(error) = self.export.write(self.input.take(piece), offset) {
                self.drain(length - written)?;
                return self.finish(request, Err(error));
            }
        }
        self.finish(request, Ok(()))
    }

    /// Throws a payload away, so that the client can be told what is wrong.
    fn drain(&mut self, mut left: usize) -> io::Result<()> {
        loop {
            left -= self.input.skip(left);
            if left == 0 {
                return Ok(());
            }
            self.send()?;
            if !self.input.receive(self.stream, 1)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Replies to a request, durable first if it asked for that.
    fn finish(&mut self, request: &Request, done: io::Result<()>) -> io::Result<()> {
        let fua = request.flags.has(CommandFlags::FUA)
            && matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
        let done = done.and_then(|()| if fua { self.export.flush() } else { Ok(()) });
        match done {
            Ok(()) => self.output.done(request),
            // The boot is over: the kernel of a machine must not take that for a disk error.
            Err(error) if self.export.is_closed() => return Err(error),
            Err(error) => {
                let (code, text) = refusal_of(&error);
                self.output.failed(request, code, text);
            }
        }
        Ok(())
    }
}

fn refusal_of(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorCode::NotPermitted, "the disk is read-only"),
        io::ErrorKind::InvalidInput => (ErrorCode::Invalid, "beyond the end of the disk"),
        io::ErrorKind::StorageFull => (ErrorCode::NoSpace, "the server's disk is full"),
        io::ErrorKind::OutOfMemory => (ErrorCode::NoMemory, "the server has no memory left"),
        io::ErrorKind::Unsupported => (ErrorCode::NotSupported, "not faster than writing zeroes"),
        _ => (ErrorCode::Io, "the server's disk failed; its log says how"),
    }
}
