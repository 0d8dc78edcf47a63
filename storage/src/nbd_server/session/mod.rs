//! Transmission: requests in, replies out, many in one batch.

mod extents;
mod input;
mod late;
mod output;
mod read;
mod refusal;
mod stalled;
mod write;

use super::link::Link;
use super::memory::Memory;
use crate::descriptors::Wakers;
use crate::export::{Connection, Export, Reads};
use crate::pool::Pool;
use images::{Block, Zeroes};
use input::Input;
use late::{Finished, Late, Ready, WAITING_BYTES_OF_ALL_MAX};
use nbd::server::Agreed;
use nbd::{Command, CommandFlags, REQUEST_BYTES, Request};
use output::{Output, REPLY_BYTES_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stalled::{STALLED_BYTES_OF_ALL_MAX, Stalled};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that keeps its thread busy for so long lets the others' go first. The kernel lets it run for
/// three milliseconds, in which each of them would wait for its page.
const TURN: Duration = Duration::from_micros(500);

/// A client that asks for nothing for so long gives borrowed memory back.
const KEPT_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// To receive what is there takes less.
const WAITED: Duration = Duration::from_micros(100);

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
        output: Output::new(agreed, pools.replies.borrower()),
        late: Late::new(Arc::clone(&pools.wakers), Arc::clone(&pools.waiting)),
        stalled: Stalled::default(),
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

/// Where requests wait, and what they may use. Flushes have threads of their own: many of them wait for one disk.
pub(super) struct Pools {
    reads: Pool,
    flushes: Pool,
    wakers: Arc<Wakers>,
    /// For replies that clients have not taken yet.
    pub(super) replies: Arc<Memory>,
    /// For what is read from disks.
    pub(super) waiting: Arc<Memory>,
    /// For what is to be written, and finds no room.
    stalled: Arc<Memory>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            reads: Pool::default(),
            flushes: Pool::default(),
            wakers: Arc::default(),
            replies: Memory::new(REPLY_BYTES_MAX),
            waiting: Memory::new(WAITING_BYTES_OF_ALL_MAX),
            stalled: Memory::new(STALLED_BYTES_OF_ALL_MAX),
        }
    }
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
    stalled: Stalled,
    /// Reads of the last batch, to be counted.
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
            if self.output.is_full() {
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
        if request.command == Command::Disconnect {
            self.connection.say_goodbye();
            return Ok(None);
        }
        Ok(Some(request))
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
                self.lend_out();
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

    /// Others may use the memory of this connection while its client has nothing to ask.
    fn lend_out(&mut self) {
        let may_wait = self.late.is_empty() && !self.link.has_received();
        if self.output.has_borrowed() && may_wait {
            let socket = self.link.socket();
            if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&KEPT_TIME)) == Ok(0) {
                self.output.give_back();
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
            if request.command == Command::Write {
                self.stalled.on_done(&request);
            }
            match result {
                Ok(data) if request.command == Command::Read => {
                    let end = position + data.len() as u64;
                    self.put_header(&request, position, data.len(), end);
                    self.put_data(&data)?;
                }
                other => self.reply_to(&request, began, other.map(drop))?,
            }
            if self.output.is_full() {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Puts what stands behind a header, or sends it at once if there is no memory for a copy.
    fn put_data(&mut self, data: &[u8]) -> io::Result<()> {
        if self.output.has_room(data.len()) {
            self.output.put(data);
            return Ok(());
        }
        self.send()?;
        self.link.write_all(data)
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
        let refusal = refusal::check(request, self.export.disk.size_bytes(), self.agreed).err();
        // What it is about is not overtaken.
        while self.stalled.overlaps(request) {
            self.send()?;
            self.late.wait(None)?;
            self.collect()?;
        }
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
                let (code, text) = refusal::of_error(&error);
                self.output.failed(request, code, text);
            }
        }
        Ok(())
    }

    /// Notes that no further reply can be sent.
    fn broken(&mut self, error: io::Error) -> io::Error {
        self.is_broken = true;
        error
    }
}

#[cfg(test)]
mod tests;
