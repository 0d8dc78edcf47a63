//! Reads that follow each other on the disk are read at once: at an MTU of 1500 a page is four frames.

use crate::export::Export;
use aoe::{AtaCommand, AtaRequest, SECTOR_BYTES};
use std::io;
use std::sync::atomic::Ordering;

/// The most that is read at once.
const RUN_BYTES_MAX: usize = 128 << 10;

/// What was read last. Forgotten as soon as a write may have changed it.
#[derive(Default)]
pub(super) struct ReadRun {
    data: Vec<u8>,
    start: u64,
    length: usize,
}

impl ReadRun {
    pub(super) fn forget(&mut self) {
        self.length = 0;
    }

    /// Reads a range, and with it what the requests right behind it will read.
    pub(super) fn read<'a>(
        &mut self,
        export: &Export,
        (offset, length): (u64, usize),
        following: impl Iterator<Item = &'a AtaRequest<'a>>,
    ) -> io::Result<&[u8]> {
        if let Some(at) = self.find(offset, length) {
            export.counters.reads.fetch_add(1, Ordering::Relaxed);
            return Ok(&self.data[at..at + length]);
        }
        let wanted = run_length(export.size_bytes(), (offset, length), following);
        if self.fill(export, offset, wanted).is_err() {
            // One bad sector must not take the others with it.
            self.fill(export, offset, length)?;
        }
        Ok(&self.data[..length])
    }

    fn find(&self, offset: u64, length: usize) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        (at.checked_add(length)? <= self.length).then_some(at)
    }

    fn fill(&mut self, export: &Export, offset: u64, length: usize) -> io::Result<()> {
        self.length = 0;
        if self.data.len() < length {
            self.data.resize(length, 0);
        }
        export.read(&mut self.data[..length], offset)?;
        (self.start, self.length) = (offset, length);
        Ok(())
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
