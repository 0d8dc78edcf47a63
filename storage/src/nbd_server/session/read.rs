//! READ: from the page cache at once, from a disk by the pool, to a local client without a copy.

use super::Session;
use super::output::{OWN_BYTES, SHORT_BYTES_MAX};
use crate::export::{InFlight, Reads};
use crate::nbd_server::memory::Loan;
use images::Block;
use nbd::{CommandFlags, ErrorCode, Request, simple_reply, structured};
use rustix::fs::sendfile;
use std::io;
use std::sync::Arc;

/// Longer reads are done in pieces of this size, so that a connection's memory is bounded. Linux asks
/// for at most 1280 KiB at once.
pub(super) const PIECE_BYTES: usize = 2 << 20;

/// A piece for which a connection needs no memory but its own.
const SMALL_PIECE_BYTES: usize = OWN_BYTES / 2;

/// In reads from this size on, holes are left out if the client understands that.
const HOLES_FROM_BYTES: u32 = 32 << 10;

/// From this size on it is faster to hand pages to a Unix socket than to copy them. Over TCP on
/// loopback there was no gain.
const SENDFILE_FROM_BYTES: usize = 64 << 10;

impl Session<'_> {
    pub(super) fn read(&mut self, request: &Request) -> io::Result<()> {
        let end = request.offset + u64::from(request.length);
        // It must not come in pieces.
        if request.flags.has(CommandFlags::DF) && !self.has_room(request.length as usize)? {
            let text = "there is no memory for one chunk of that length now";
            self.output.failed(request, ErrorCode::Overflow, text);
            return Ok(());
        }
        let leaves_holes = self.agreed.structured
            && !request.flags.has(CommandFlags::DF)
            && request.length >= HOLES_FROM_BYTES;
        let mut position = request.offset;
        while position < end {
            let hole = match leaves_holes {
                true => self.export.disk.hole_at(position, end - position),
                false => Ok(0),
            };
            let done = match hole {
                Ok(0) => self.read_piece(request, position, end),
                Ok(length) => {
                    let is_last = position + length == end;
                    // No read is longer than 32 MiB.
                    let hole = structured::hole(request.cookie, is_last, position, length as u32);
                    self.output.put(&hole);
                    Ok(length)
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(length) => position += length,
                // A simple reply that has begun has no way to say that it fails.
                Err(error) if position > request.offset && !self.agreed.structured => {
                    return Err(error);
                }
                Err(error) => return self.reply(request, Err(error)),
            }
            if self.output.is_full() {
                self.send()?;
            }
        }
        if request.length == 0 {
            match self.agreed.structured {
                true => self.output.put(&structured::done(request.cookie)),
                false => self.output.done(request),
            }
        }
        Ok(())
    }

    /// Puts the next piece of a reply that goes to `end`; how much of the disk is in it.
    fn read_piece(&mut self, request: &Request, position: u64, end: u64) -> io::Result<u64> {
        let left = (end - position) as usize;
        let mut size = left.min(PIECE_BYTES);
        if self.can_send_file(position, size) {
            self.put_header(request, position, size, end);
            self.send_file(position, size)?;
            return Ok(size as u64);
        }
        if !self.has_room(size)? {
            size = size.min(SMALL_PIECE_BYTES);
        }
        let start = self.output.len();
        self.put_header(request, position, size, end);
        // Nothing may come between the pieces of a simple reply.
        let is_apart = self.agreed.structured || position == request.offset;
        let may_wait = size == left && is_apart;
        let room = self.output.room(size);
        let is_there = match self.export.disk.read_cached(room, position) {
            Ok(false) => match if may_wait { self.late.room(size) } else { None } {
                None => self.export.disk.read_at(room, position),
                Some(room) => {
                    self.output.truncate(start);
                    self.read_later(request, position, room);
                    return Ok(size as u64);
                }
            },
            other => other.map(drop),
        };
        match is_there {
            Ok(()) => {
                self.reads.add(size);
                Ok(size as u64)
            }
            Err(error) => {
                self.output.truncate(start);
                Err(error)
            }
        }
    }

    /// Whether a piece of this size and its header can be put, if need be after all that waits was sent.
    fn has_room(&mut self, size: usize) -> io::Result<bool> {
        let wanted = size + SHORT_BYTES_MAX;
        if !self.output.has_room(wanted) {
            self.send()?;
            return Ok(self.output.has_room(wanted));
        }
        Ok(true)
    }

    /// The header of the data that follow; a simple reply has only one.
    pub(super) fn put_header(&mut self, request: &Request, position: u64, size: usize, end: u64) {
        if self.agreed.structured {
            let is_last = position + size as u64 == end;
            self.output.put(&structured::data(request.cookie, is_last, position, size as u32));
        } else if position == request.offset {
            self.output.put(&simple_reply(request.cookie, None));
        }
    }

    /// Has the pool read the rest of a request.
    fn read_later(&mut self, request: &Request, position: u64, room: Loan) {
        let (export, began, size) = (Arc::clone(self.export), self.began, room.bytes());
        let in_flight = InFlight::begin(&export.counters, began);
        self.late.submit(&self.pools.reads, (*request, position, room), in_flight, move || {
            let mut data = vec![0; size];
            export.disk.read_at(&mut data, position)?;
            export.counters.count_reads(Reads::one(size), began);
            Ok(data)
        });
    }

    /// Whether the kernel can send a part of the disk, which then must be all in one file.
    fn can_send_file(&self, position: u64, size: usize) -> bool {
        let is_long = self.takes_files && size >= SENDFILE_FROM_BYTES;
        is_long && self.export.disk.file_of(position, size as u64).is_some()
    }

    /// Sends a part of a file behind its header.
    ///
    /// If it is written to before the client has taken it, the client gets what is new: it has no
    /// reply yet, so either is right.
    fn send_file(&mut self, position: u64, size: usize) -> io::Result<()> {
        let export = self.export;
        self.send()?;
        let Some(file) = export.disk.file_of(position, size as u64) else {
            return Err(self.broken(io::ErrorKind::NotFound.into()));
        };
        let (mut offset, end) = (position, position + size as u64);
        while offset < end {
            let left = (end - offset) as usize;
            match sendfile(self.link.socket(), &*file, Some(&mut offset), left) {
                // The header is gone already: only closing can say that it went wrong.
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.broken(error.into())),
            }
        }
        self.reads.add(size);
        Ok(())
    }
}
