//! How fast an attacker goes, and when it ends.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is due earlier than this is done at once: a sleep is not shorter.
const GRAIN: Duration = Duration::from_millis(5);

/// So many things a second, until whoever has started us closes our standard input.
pub(super) struct Pace {
    per_second: u32,
    began: Instant,
    count: u64,
    is_over: Arc<AtomicBool>,
}

impl Pace {
    /// Begins now.
    pub(super) fn new(per_second: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        // It ends with the process.
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            end.store(true, Ordering::Relaxed);
        });
        Self { per_second, began: Instant::now(), count: 0, is_over }
    }

    /// Waits until the next is due, and returns its number; `None` at the end.
    pub(super) fn next(&mut self) -> Option<u64> {
        let due = Duration::from_secs_f64(self.count as f64 / f64::from(self.per_second));
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            let early = due.saturating_sub(self.began.elapsed());
            if early < GRAIN {
                break;
            }
            std::thread::sleep(early.min(Duration::from_millis(100)));
        }
        // Who was kept waiting does not make up for it.
        let late = self.began.elapsed().saturating_sub(due);
        if late > Duration::from_millis(100) {
            self.began += late;
        }
        self.count += 1;
        Some(self.count - 1)
    }
}
