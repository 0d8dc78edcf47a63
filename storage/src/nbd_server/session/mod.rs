//! Transmission: requests in, replies out, many in one batch.

mod input;
mod late;
mod output;
mod read;

use super::link::Link;
use crate::export::{Connection, Export, InFlight, Reads};
use crate::pool::Pool;
use images::{Block, Zeroes};
use input::Input;
use late::{Finished, Late, Ready};
use nbd::server::Agreed;
use nbd::{Command, CommandFlags, ErrorCode, PAYLOAD_MAX, REQUEST_BYTES, Request, structured};
use output::{BATCH_BYTES, Output};
use read::PIECE_BYTES;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long trims and zeroes are done in steps of this size, so that closing need not wait for all.
const STEP_BYTES: u64 = 128 << 20;

/// A write that is longer is received here, no further than the bytes that really come.
const OVERSIZE_MAX: u32 = 64 << 20;

/// A long write is done in pieces of at least this size, as they come.
const WRITE_FROM_BYTES: usize = 64 << 10;

/// A client that keeps its thread busy for so long lets the others' go first. The kernel lets it run for
/// three milliseconds, in which each of them would wait for its page.
const TURN: Duration = Duration::from_micros(500);

/// To receive what is there takes less.
const WAITED: Duration = Duration::from_micros(100);

/// What file systems write.
const BLOCK_BYTES: u64 = 4096;

/// Extents in one reply: 64 KiB of it.
const EXTENTS_MAX: usize = 8192;

/// A request that is not done, and why, in words for people.
type Refusal = (ErrorCode, &'static str);

/// Serves one connection until the client disconnects (`Ok`) or the connection breaks.
pub(super) fn run(
    export: &Arc<Export>,
    connection: &Connection,
    link: Link<'_>,
    pools: &Pools,
    agreed: Agreed,
    early: &[u8],
) -> io::Result<()> {
    let mut session = Session {
        export,
        connection,
        takes_files: link.takes_files(),
        link,
        is_broken: false,
        pools,
        agreed,
        input: Input::new(early),
        output: Output::new(agreed),
        late: Late::new(),
        reads: Reads::default(),
        began: Instant::now(),
        turn_began: Instant::now(),
    };
    let served = session.serve().and_then(|()| session.finish_late());
    // A kernel on whose disk we close must see a lost connection, not a word that is no data.
    if served.is_ok() && !session.export.connections.is_closed() {
        session.link.finish();
    }
    session.export.counters.count_reads(session.reads, session.began);
    served
}

/// Where requests wait. Flushes have threads of their own: many of them wait for one disk.
#[derive(Default)]
pub(super) struct Pools {
    reads: Pool,
    flushes: Pool,
}

struct Session<'a> {
    export: &'a Arc<Export>,
    connection: &'a Connection,
    link: Link<'a>,
    /// Over a Unix socket, without TLS.
    takes_files: bool,
    /// Half a reply is sent: no other can follow.
    is_broken: bool,
    pools: &'a Pools,
    agreed: Agreed,
    input: Input,
    output: Output,
    late: Late,
    /// Of the last batch.
    reads: Reads,
    /// When the last bytes came.
    began: Instant,
    /// When it last waited, or let others go first.
    turn_began: Instant,
}

impl Session<'_> {
    fn serve(&mut self) -> io::Result<()> {
        while let Some(request) = self.next()? {
            if self.connection.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.answer(&request)?;
            if self.export.connections.is_closed() {
                return Ok(());
            }
            if self.output.len() >= BATCH_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

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
            if !self.receive(count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives what there is; `false` at the end. There will be room for `wanted` bytes.
    fn receive(&mut self, wanted: usize) -> io::Result<bool> {
        loop {
            self.collect()?;
            // The client may wait for these.
            self.send()?;
            let is_finished = !self.late.is_empty()
                && !self.link.has_received()
                && matches!(self.late.wait(Some(self.link.socket()))?, Ready::Finished);
            if !is_finished {
                self.export.counters.count_reads(std::mem::take(&mut self.reads), self.began);
                let waits_since = self.take_turns();
                let received = self.input.receive(&mut self.link, wanted);
                self.began = Instant::now();
                if self.began.duration_since(waits_since) > WAITED {
                    self.turn_began = self.began;
                }
                match received {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return received,
                }
            }
        }
    }

    /// Lets other connections go first if this one has not waited for long. When that was.
    fn take_turns(&mut self) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.turn_began) < TURN {
            return now;
        }
        // Nothing happens if nobody else wants the processor.
        std::thread::yield_now();
        self.turn_began = Instant::now();
        self.turn_began
    }

    /// Replies to requests that had to wait.
    fn collect(&mut self) -> io::Result<()> {
        for Finished { request, position, result, began, .. } in self.late.take() {
            match result {
                Ok(data) if request.command == Command::Read => {
                    let end = position + data.len() as u64;
                    self.put_header(&request, position, data.len(), end);
                    self.output.put(&data);
                }
                other => self.reply_to(&request, began, other.map(drop))?,
            }
            if self.output.len() >= BATCH_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Replies to all that still wait.
    fn finish_late(&mut self) -> io::Result<()> {
        while !self.late.is_empty() {
            self.send()?;
            self.late.wait(None)?;
            self.collect()?;
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        self.output.send(&mut self.link)
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
            Command::Flush => return self.flush(request),
            Command::Cache => {
                self.export.disk.prefetch(request.offset, u64::from(request.length));
                self.output.done(request);
                return Ok(());
            }
            Command::Trim => self.in_steps(request, |at, length| self.export.disk.trim(at, length)),
            _ => {
                let how = Zeroes {
                    keep_space: request.flags.has(CommandFlags::NO_HOLE),
                    only_fast: request.flags.has(CommandFlags::FAST_ZERO),
                };
                self.in_steps(request, |at, length| self.export.disk.write_zeroes(at, length, how))
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
        let fits = request.fits(self.export.disk.size_bytes());
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
            let extent = self.export.disk.extent(position, end - position)?;
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
            let (offset, left) = (request.offset + written as u64, length - written);
            if !self.await_bytes(left.min(WRITE_FROM_BYTES))? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.connection.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let piece = match self.input.len() {
                all if all >= left => left,
                there => whole_blocks(offset, there),
            };
            written += piece;
            if let Err(error) = self.export.disk.write_at(self.input.take(piece), offset) {
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
            if !self.receive(1)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Replies to a request, durable first if it asked for that.
    fn finish(&mut self, request: &Request, done: io::Result<()>) -> io::Result<()> {
        let fua = request.flags.has(CommandFlags::FUA)
            && matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
        if fua && done.is_ok() { self.flush(request) } else { self.reply(request, done) }
    }

    /// Makes what was written durable, then replies.
    fn flush(&mut self, request: &Request) -> io::Result<()> {
        if !self.export.disk.is_durable() || !self.late.has_room(0) {
            let done = self.export.disk.flush();
            return self.reply(request, done);
        }
        let export = Arc::clone(self.export);
        let in_flight = InFlight::begin(&export.counters, self.began);
        self.late.submit(
            &self.pools.flushes,
            (*request, request.offset, 0),
            in_flight,
            move || export.disk.flush().map(|()| Vec::new()),
        );
        Ok(())
    }

    fn reply(&mut self, request: &Request, done: io::Result<()>) -> io::Result<()> {
        self.reply_to(request, self.began, done)
    }

    /// Replies to a request that arrived at `began`.
    fn reply_to(
        &mut self,
        request: &Request,
        began: Instant,
        done: io::Result<()>,
    ) -> io::Result<()> {
        match done {
            Ok(()) => {
                let counters = &self.export.counters;
                match request.command {
                    Command::Flush => counters.flush_times.add(began.elapsed(), 1),
                    _ => counters.write_times.add(began.elapsed(), 1),
                }
                self.output.done(request);
            }
            // The boot is over: the kernel of a machine must not take that for a disk error.
            Err(error) if self.export.connections.is_closed() || self.is_broken => {
                return Err(error);
            }
            Err(error) => {
                let (code, text) = refusal_of(&error);
                self.output.failed(request, code, text);
            }
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Notes that no further reply can be sent.
    fn broken(&mut self, error: io::Error) -> io::Error {
        self.is_broken = true;
        error
    }
}

/// How many of `count` bytes from `offset` end at a block's end. Parts of blocks would cost a layer
/// reads.
fn whole_blocks(offset: u64, count: usize) -> usize {
    let beyond = (offset + count as u64) % BLOCK_BYTES;
    count - (beyond as usize).min(count)
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

#[cfg(test)]
mod tests;
