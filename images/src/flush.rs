//! Flushes that are asked for at the same time are done by one.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct FlushGroup {
    /// Flushes that were asked for.
    asked: AtomicU64,
    /// Of those, how many the last finished flush covered.
    covered: Mutex<u64>,
}

impl FlushGroup {
    /// Returns when everything written before the call is durable. Whoever comes while another's
    /// flush runs waits for the next one, which does for all that wait.
    pub(crate) fn run(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if *covered >= ticket {
            // Somebody else's flush began after we asked, and is done.
            return Ok(());
        }
        let covers = self.asked.load(Ordering::Acquire);
        flush()?;
        *covered = covers;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn flushes_at_the_same_time_are_done_by_few() {
        let group = FlushGroup::default();
        let n_done = AtomicU64::new(0);
        let flush = || {
            n_done.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| group.run(flush).unwrap());
            }
        });
        assert!(n_done.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn a_failed_flush_covers_nobody() {
        let group = FlushGroup::default();
        assert!(group.run(|| Err(io::ErrorKind::Other.into())).is_err());
        let mut was_done = false;
        group
            .run(|| {
                was_done = true;
                Ok(())
            })
            .unwrap();
        assert!(was_done);
    }
}
