//! Flushes of a disk: those that are asked for at the same time are done by one, and none after a failure.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The flushes of one disk.
///
/// The kernel reports a failed write-back once and then forgets it: a second fsync would lie. So after a
/// failure [`check`](Self::check), which every write asks, refuses; the disk stays readable.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    has_failed: AtomicBool,
    /// Flushes that were asked for.
    asked: AtomicU64,
    /// Of those, how many the last finished flush covered.
    covered: Mutex<u64>,
}

impl Flushes {
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// `PermissionDenied` after a failure.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.has_failed() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the disk is read-only because the server's storage failed to flush it",
            ));
        }
        Ok(())
    }

    /// Returns when everything written before the call is durable. Whoever comes while another's
    /// flush runs waits for the next one, which does for all that wait.
    pub(crate) fn run(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.check()?;
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if *covered >= ticket {
            // Somebody else's flush began after we asked, and is done.
            return Ok(());
        }
        // The one that we waited for may have failed.
        self.check()?;
        let covers = self.asked.load(Ordering::Acquire);
        self.attempt(flush)?;
        *covered = covers;
        Ok(())
    }

    /// Does something whose failure is that of a flush.
    pub(crate) fn attempt(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        sync().inspect_err(|_| self.has_failed.store(true, Ordering::Release))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn flushes_at_the_same_time_are_done_by_few() {
        let flushes = Flushes::default();
        let n_done = AtomicU64::new(0);
        let flush = || {
            n_done.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| flushes.run(flush).unwrap());
            }
        });
        assert!(n_done.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn nothing_is_flushed_or_written_after_a_failure() {
        let flushes = Flushes::default();
        flushes.check().unwrap();
        assert!(flushes.run(|| Err(io::ErrorKind::Other.into())).is_err());
        let mut was_done = false;
        let again = flushes.run(|| {
            was_done = true;
            Ok(())
        });
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(!was_done && flushes.check().is_err() && flushes.has_failed());
    }
}
