//! What a block of a machine's disk may hold: over NBD only what was flushed must survive.

use super::block::{Written, difference};
use anyhow::Result;
use std::fmt::{self, Display, Formatter};

/// What was written to one block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// What must last; `None` is the image's content.
    lasts: Option<Written>,
    /// What was written since, the last one last.
    since: Vec<Written>,
    /// The connection is gone over which it was written, so that the disk has any of these, or what lasts.
    is_open: bool,
    n_written: u64,
}

/// A block is not what it should be.
#[derive(Debug)]
pub(super) struct Differs(String);

impl Display for Differs {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Differs {}

impl Kept {
    /// Number of the next write, which is given once.
    pub(super) fn next_generation(&mut self) -> u64 {
        self.n_written += 1;
        self.n_written
    }

    /// This write is acknowledged.
    pub(super) fn on_written(&mut self, written: Written) {
        self.since.push(written);
        self.is_open = false;
    }

    /// This write was begun, and nobody knows what became of it.
    pub(super) fn on_begun(&mut self, written: Written) {
        self.since.push(written);
        self.is_open = true;
    }

    /// A flush is acknowledged that came over the connection of all that was written. Call it only if the content is
    /// [known](Self::is_open).
    pub(super) fn on_flushed(&mut self) {
        assert!(!self.is_open, "nobody knows what was flushed");
        self.lasts = self.since.pop().or(self.lasts);
        self.since.clear();
    }

    /// The connection is gone: what was not flushed may be, too.
    pub(super) fn on_cut(&mut self) {
        self.is_open = !self.since.is_empty();
    }

    /// Whether the content is only known when it is read.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Compares what was read with what may be there; from then on it is what is there.
    pub(super) fn on_read(
        &mut self,
        found: &[u8],
        bytes: impl Fn(Option<Written>) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let newest = self.since.last().copied().or(self.lasts);
        let Some(difference) = difference(found, &bytes(newest)?) else {
            self.is_open = false;
            return Ok(());
        };
        if self.is_open {
            for count in (0..self.since.len()).rev() {
                let older = count.checked_sub(1).map_or(self.lasts, |last| Some(self.since[last]));
                if found == bytes(older)? {
                    // What is lost does not come back.
                    self.since.truncate(count);
                    self.is_open = false;
                    return Ok(());
                }
            }
        }
        let also = if self.is_open { ", nor an older one that may be there" } else { "" };
        Err(Differs(format!("{difference}{also}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(generation: u64) -> Written {
        Written { machine: 1, block: 2, boot: 3, generation }
    }

    fn bytes(of: Option<Written>) -> Result<Vec<u8>> {
        Ok(of.map_or_else(|| vec![0; 4096], Written::bytes))
    }

    /// A block of which the first write was flushed, and two more were not.
    fn kept() -> Kept {
        let mut kept = Kept::default();
        for _ in 0..3 {
            let generation = kept.next_generation();
            kept.on_written(written(generation));
            if generation == 1 {
                kept.on_flushed();
            }
        }
        kept
    }

    fn holds(kept: &mut Kept, generation: Option<u64>) -> bool {
        let found = bytes(generation.map(written)).unwrap();
        let seen = kept.on_read(&found, bytes);
        assert!(seen.as_ref().err().is_none_or(|error| error.is::<Differs>()));
        seen.is_ok()
    }

    #[test]
    fn on_one_connection_the_last_write_is_there() {
        let may_hold = |generation| holds(&mut kept(), generation);
        assert_eq!(
            [None, Some(1), Some(2), Some(3), Some(4)].map(may_hold),
            [false, false, false, true, false]
        );
    }

    #[test]
    fn after_a_cut_all_may_be_there_that_was_written_since_the_last_flush_and_what_is_seen_stays() {
        let cut = || {
            let mut kept = kept();
            kept.on_cut();
            kept
        };
        let may_hold = |generation| holds(&mut cut(), generation);
        assert_eq!(
            [None, Some(1), Some(2), Some(3), Some(4)].map(may_hold),
            [false, true, true, true, false]
        );
        for seen in 1..=3 {
            let mut kept = cut();
            assert!(holds(&mut kept, Some(seen)) && !kept.is_open());
            let others = (1..=3).filter(|other| *other != seen);
            assert!(others.into_iter().all(|other| !holds(&mut kept, Some(other))));
            kept.on_cut();
            // What was seen, or older.
            assert!((seen + 1..=3).all(|newer| !holds(&mut kept.clone(), Some(newer))));
            assert!((1..=seen).all(|older| holds(&mut kept.clone(), Some(older))));
            assert_eq!(kept.next_generation(), 4, "a number comes once");
        }
    }

    #[test]
    fn what_was_flushed_outlives_a_cut_and_what_was_only_begun_may_be_there() {
        let mut kept = kept();
        kept.on_flushed();
        kept.on_cut();
        let may_hold = |kept: &Kept| [2, 3, 4].map(|it| holds(&mut kept.clone(), Some(it)));
        assert_eq!(may_hold(&kept), [false, true, false]);
        kept.on_begun(written(4));
        assert_eq!(may_hold(&kept), [false, true, true]);
    }
}
