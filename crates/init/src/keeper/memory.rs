//! The part of the memory that holds what the machine writes, if its root takes no writes. When it is
//! full, programs can't write any more: that must not come as a surprise.

use crate::root::mount::MEMORY;
use std::fs::File;
use std::io;

/// How full it is when people are warned, in percent. At the last it is too late.
const WARN_AT: [u8; 3] = [80, 95, 100];

/// The next warning of the same degree comes when it was so much emptier in between.
const CALM: u8 = 5;

/// The mounted tmpfs, held open: its path belongs to the real system later. [`look`](Self::look) is called now
/// and then, for as long as the system runs.
pub(crate) struct Memory {
    folder: File,
    /// How many of [`WARN_AT`] are warned of.
    n_warned: usize,
}

impl Memory {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { folder: File::open(MEMORY)?, n_warned: 0 })
    }

    /// How full it is, in percent, and a warning if there is a new one.
    pub(crate) fn look(&mut self) -> io::Result<(u8, Option<String>)> {
        let found = rustix::fs::fstatvfs(&self.folder)?;
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        let bytes = percent(used, found.f_blocks);
        // It takes no file any more, either, when it holds too many.
        let files = percent(found.f_files.saturating_sub(found.f_ffree), found.f_files);
        let full = bytes.max(files);
        let is_new = is_new(full, &mut self.n_warned);
        let mebibytes = |blocks: u64| blocks.saturating_mul(found.f_frsize) >> 20;
        Ok((full, is_new.then(|| warning(full, mebibytes(used), mebibytes(found.f_blocks)))))
    }
}

fn percent(part: u64, whole: u64) -> u8 {
    let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(0);
    u8::try_from(percent.min(100)).unwrap_or(100)
}

fn is_new(full: u8, n_warned: &mut usize) -> bool {
    let reached = WARN_AT.iter().filter(|&&at| full >= at).count();
    let kept = WARN_AT.iter().filter(|&&at| full >= at - CALM).count();
    let is_new = reached > *n_warned;
    *n_warned = if is_new { reached } else { kept.min(*n_warned) };
    is_new
}

fn warning(full: u8, used: u64, size: u64) -> String {
    let then = match full {
        100 => "nothing more can be written",
        _ => "when it is full, nothing more can be written",
    };
    format!(
        "the memory for changes is {full} % full ({used} of {size} MiB); {then}: delete files, or restart \
         this machine, which discards them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_degree_is_warned_of_once_until_it_was_emptier() {
        let mut n_warned = 0;
        let steps = [
            (0, false),
            (79, false),
            (80, true),
            (81, false),
            (79, false),
            (80, false),
            (96, true),
            (100, true),
            (96, false),
            (100, false),
            (70, false),
            (97, true),
            (97, false),
        ];
        for (at, (full, expected)) in steps.into_iter().enumerate() {
            assert_eq!(is_new(full, &mut n_warned), expected, "step {at}: {full} %");
        }
    }

    #[test]
    fn fullness_is_never_overstated() {
        let cases = [(0, 0, 0), (0, 7, 0), (999, 1000, 99), (1000, 1000, 100), (u64::MAX, 1, 100)];
        for (part, whole, expected) in cases {
            assert_eq!(percent(part, whole), expected);
        }
        assert!(warning(83, 412, 496).contains("83 % full (412 of 496 MiB); when"));
    }
}
