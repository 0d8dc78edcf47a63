//! WRITE, TRIM, WRITE_ZEROES and FLUSH: what changes the disk, and makes that durable.

use super::Session;
use super::refusal::Refusal;
use crate::export::InFlight;
use crate::nbd_server::memory::Loan;
use images::Block;
use nbd::{Command, CommandFlags, Request};
use std::io;
use std::sync::Arc;

/// Long trims and zeroes are done in steps of this size, so that closing need not wait for all.
const STEP_BYTES: u64 = 128 << 20;

/// A write that is longer is received here, no further than the bytes that really come.
const OVERSIZE_MAX: u32 = 64 << 20;

/// A long write is done in pieces of at least this size, as they come.
const WRITE_FROM_BYTES: usize = 64 << 10;

/// What file systems write.
const BLOCK_BYTES: u64 = 4096;

impl Session<'_> {
    pub(super) fn write(&mut self, request: &Request, refusal: Option<Refusal>) -> io::Result<()> {
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
            let data = self.input.take(piece);
            let done = match self.export.disk.write_at_once(data, offset) {
                Ok(false) => match self.late.room_of(&self.pools.stalled, left) {
                    Some(room) => {
                        let data = data.to_vec();
                        return self.write_later(request, (offset, room), data);
                    }
                    None => self.export.disk.write_at(data, offset),
                },
                done => done.map(drop),
            };
            if let Err(error) = done {
                self.drain(length - written)?;
                return self.finish(request, Err(error));
            }
        }
        self.finish(request, Ok(()))
    }

    /// Receives the rest of a write for which there is no room, and has it wait: what comes after it may free some.
    fn write_later(
        &mut self,
        request: &Request,
        (offset, room): (u64, Loan),
        mut data: Vec<u8>,
    ) -> io::Result<()> {
        let length = room.bytes();
        data.reserve_exact(length - data.len());
        while data.len() < length {
            if !self.await_bytes(1)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.connection.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let there = self.input.len().min(length - data.len());
            data.extend_from_slice(self.input.take(there));
        }
        let export = Arc::clone(self.export);
        let in_flight = InFlight::begin(&export.counters, self.began);
        let is_fua = request.flags.has(CommandFlags::FUA);
        let pool = self.stalled.begin(request);
        self.late.submit(&pool, (*request, offset, room), in_flight, move || {
            export.disk.write_at(&data, offset)?;
            if is_fua {
                export.disk.flush()?;
            }
            Ok(Vec::new())
        });
        Ok(())
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
    pub(super) fn finish(&mut self, request: &Request, done: io::Result<()>) -> io::Result<()> {
        let fua = request.flags.has(CommandFlags::FUA)
            && matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
        if fua && done.is_ok() { self.flush(request) } else { self.reply(request, done) }
    }

    /// Makes what was written durable, then replies.
    pub(super) fn flush(&mut self, request: &Request) -> io::Result<()> {
        let room = if self.export.disk.is_durable() { self.late.room(0) } else { None };
        let Some(room) = room else {
            let done = self.export.disk.flush();
            return self.reply(request, done);
        };
        let export = Arc::clone(self.export);
        let in_flight = InFlight::begin(&export.counters, self.began);
        self.late.submit(
            &self.pools.flushes,
            (*request, request.offset, room),
            in_flight,
            move || export.disk.flush().map(|()| Vec::new()),
        );
        Ok(())
    }

    /// Does a trim or zeroes in steps.
    pub(super) fn in_steps(
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
}

/// How many of `count` bytes from `offset` end at a block's end. Parts of blocks would cost a layer
/// reads.
fn whole_blocks(offset: u64, count: usize) -> usize {
    let beyond = (offset + count as u64) % BLOCK_BYTES;
    count - (beyond as usize).min(count)
}
