//! What a frame does after those before it: its work, the same work as another one, or nothing.

use super::guard::StaleGuard;
use aoe::{AtaCommand, AtaRequest};
use wire::{Mac, Moment};

/// Who sent a request, by which tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) source: Mac,
    pub(super) tag: u32,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The work.
    Work,
    /// Answer it as the request of this number in the batch.
    Same(usize),
    /// Drop it: its sender has written something newer there.
    Stale,
}

/// Order of the requests to one disk.
///
/// Call [`next`](Self::next) for each request in order of arrival. If it says [`Step::Work`], do the work,
/// and if that succeeds and was a read or write, call [`done`](Self::done) with the batch's [`Done`].
#[derive(Default)]
pub(super) struct Order {
    guard: StaleGuard,
}

/// Reads and writes that were done in this batch; numbers count from 0. Begin a new one when a reply was
/// sent: what is sent can't be given again.
#[derive(Default)]
pub(super) struct Done<'a> {
    requests: Vec<(Mac, AtaRequest<'a>)>,
}

impl Order {
    /// What to do with the next request in order of arrival.
    pub(super) fn next(
        &mut self,
        batch: &Done<'_>,
        origin: Origin,
        request: &AtaRequest<'_>,
        now: Moment,
    ) -> Step {
        let Origin { source, tag } = origin;
        self.guard.observe(source, tag, now);
        if let AtaCommand::Write { lba, .. } = request.command
            && self.guard.is_stale(source, tag, lba, request.sectors, now)
        {
            return Step::Stale;
        }
        let same = batch.same_as(source, request);
        if let Some(index) = same {
            // Also the later copy's tag is now the newest there.
            self.note_write(origin, request, now);
            return Step::Same(index);
        }
        Step::Work
    }

    /// Notes a read or write that was done.
    pub(super) fn done<'a>(
        &mut self,
        batch: &mut Done<'a>,
        origin: Origin,
        request: AtaRequest<'a>,
        now: Moment,
    ) {
        self.note_write(origin, &request, now);
        batch.requests.push((origin.source, request));
    }

    fn note_write(&mut self, origin: Origin, request: &AtaRequest<'_>, now: Moment) {
        if let AtaCommand::Write { lba, .. } = request.command {
            self.guard.written(origin.source, origin.tag, lba, request.sectors, now);
        }
    }
}

impl Done<'_> {
    /// The number of the request that did the same, if no write has changed its sectors since.
    fn same_as(&self, source: Mac, request: &AtaRequest<'_>) -> Option<usize> {
        let range = range(request)?;
        for (index, (other_source, other)) in self.requests.iter().enumerate().rev() {
            let is_write = matches!(other.command, AtaCommand::Write { .. });
            let is_same = *other_source == source
                && other.command == request.command
                && other.sectors == request.sectors
                && (!is_write || other.data == request.data);
            if is_same {
                return Some(index);
            }
            if is_write && range.0 < self::range(other)?.1 && self::range(other)?.0 < range.1 {
                return None;
            }
        }
        None
    }
}

/// First sector, and the one after the last, of a read or write.
fn range(request: &AtaRequest<'_>) -> Option<(u64, u64)> {
    match request.command {
        AtaCommand::Read { lba } | AtaCommand::Write { lba, .. } => {
            Some((lba, lba.saturating_add(u64::from(request.sectors))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
