//! Reads that follow each other on the disk are read at once: at an MTU of 1500 a page is four frames.

use super::replies::Reply;
use crate::export::{Disk, Reads};
use aoe::{AtaCommand, AtaRequest, SECTOR_BYTES};
use images::Block;
use std::io;

/// The most that is read at once.
const RUN_BYTES_MAX: usize = 128 << 10;

/// What was read last. Forgotten as soon as a write may have changed it.
///
/// For each read of a batch call [`read`](Self::read), and then [`give`](Self::give) if its reply has a body; if
/// it must not wait for a disk, ask [`is_ready`](Self::is_ready) before. For all else call
/// [`forget`](Self::forget). At the batch's end [`begin`](Self::begin) gives what is to be counted.
#[derive(Default)]
pub(super) struct ReadRun {
    data: Vec<u8>,
    start: u64,
    length: usize,
    /// Whether the disk has been told what else will be read.
    is_announced: bool,
    /// In this batch.
    done: Reads,
}

impl ReadRun {
    /// Begins a batch; what was done in the last one.
    pub(super) fn begin(&mut self) -> Reads {
        self.forget();
        self.is_announced = false;
        std::mem::take(&mut self.done)
    }

    pub(super) fn forget(&mut self) {
        self.length = 0;
    }

    /// Reads a range, and what the requests right behind it will read, if that need not wait for a disk;
    /// whether it is there.
    pub(super) fn is_ready<'a>(
        &mut self,
        disk: &Disk,
        (offset, length): (u64, usize),
        following: impl Iterator<Item = &'a AtaRequest<'a>>,
    ) -> bool {
        if self.find(offset, length).is_some() {
            return true;
        }
        let wanted = run_length(disk.size_bytes(), (offset, length), following);
        self.fill(offset, wanted, |memory| disk.read_cached(memory, offset)).unwrap_or(false)
    }

    /// Reads a range, and with it what the requests right behind it will read.
    pub(super) fn read<'a>(
        &mut self,
        disk: &Disk,
        (offset, length): (u64, usize),
        following: impl Iterator<Item = &'a AtaRequest<'a>> + Clone,
    ) -> io::Result<&[u8]> {
        let found = match self.find(offset, length) {
            Some(at) => at,
            None if self.is_ready(disk, (offset, length), following.clone()) => 0,
            None => {
                self.announce(disk, following.clone());
                let wanted = run_length(disk.size_bytes(), (offset, length), following);
                let read = |memory: &mut [u8]| disk.read_at(memory, offset).map(|()| true);
                if self.fill(offset, wanted, read).is_err() {
                    // One bad sector must not take the others with it.
                    self.fill(offset, length, read)?;
                }
                0
            }
        };
        self.done.add(length);
        Ok(&self.data[found..found + length])
    }

    /// Sends a range that was just read. What was read for it alone is not copied: this takes the
    /// reply's memory instead.
    pub(super) fn give(&mut self, (offset, length): (u64, usize), reply: &mut Reply) {
        if self.length == length {
            reply.swap_body(&mut self.data, length);
            self.forget();
        } else if let Some(at) = self.find(offset, length) {
            reply.copy_body(&self.data[at..at + length]);
        }
    }

    /// Has the disk read for the whole batch at once, not for one request after the other.
    fn announce<'a>(&mut self, disk: &Disk, following: impl Iterator<Item = &'a AtaRequest<'a>>) {
        if std::mem::replace(&mut self.is_announced, true) {
            return;
        }
        for request in following {
            let AtaCommand::Read { lba } = request.command else { continue };
            if let Ok((offset, length)) = request.range(lba, disk.size_bytes(), u8::MAX) {
                disk.prefetch(offset, length as u64);
            }
        }
    }

    fn find(&self, offset: u64, length: usize) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (at.checked_add(length)? <= self.length).then_some(at)
    }

    /// Whether `read` has filled the memory.
    fn fill(
        &mut self,
        offset: u64,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<bool>,
    ) -> io::Result<bool> {
        self.length = 0;
        if self.data.len() < length {
            self.data.resize(length, 0);
        }
        let is_there = read(&mut self.data[..length])?;
        if is_there {
            (self.start, self.length) = (offset, length);
        }
        Ok(is_there)
    }
}

fn run_length<'a>(
    size_bytes: u64,
    (offset, length): (u64, usize),
    following: impl Iterator<Item = &'a AtaRequest<'a>>,
) -> usize {
    let mut total = length;
    for request in following {
        let AtaCommand::Read { lba } = request.command else { break };
        let end = offset + total as u64;
        let more = usize::from(request.sectors) * SECTOR_BYTES;
        let is_next = lba.checked_mul(SECTOR_BYTES as u64) == Some(end);
        if !is_next || total + more > RUN_BYTES_MAX || end + more as u64 > size_bytes {
            break;
        }
        total += more;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reads_right_behind_each_other_are_read_at_once() {
        let check = |commands: &[AtaCommand]| {
            let requests: Vec<_> = commands
                .iter()
                .map(|&command| AtaRequest { command, sectors: 2, data: &[] })
                .collect();
            run_length(1 << 20, (0, 1024), requests.iter())
        };
        let read = |lba| AtaCommand::Read { lba };
        let write = AtaCommand::Write { lba: 4, fua: false };
        assert_eq!(check(&[read(2), read(4), read(6), read(9)]), 4096);
        assert_eq!(check(&[read(2), write, read(4)]), 2048);
        assert_eq!(check(&[read(0)]), 1024);
        assert_eq!(check(&[read(u64::MAX)]), 1024);
        let many: Vec<_> = (1..1000).map(|index| read(index * 2)).collect();
        assert_eq!(check(&many), RUN_BYTES_MAX);
    }
}
