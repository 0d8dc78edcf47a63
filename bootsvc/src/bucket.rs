//! How often something may happen.

use std::time::{Duration, Instant};

/// Lets something happen at once a number of times, and then once in a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// How often at once.
    burst: u32,
    /// How long one more takes to be allowed.
    every: Duration,
    /// When all of the burst is allowed again.
    full_at: Instant,
}

impl Bucket {
    /// Allows `burst` at once, and one more each `every`.
    pub(crate) fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self { burst, every, full_at: now }
    }

    /// Whether it may happen now; counts it then.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.every;
        let may = full_at - now <= self.every * self.burst;
        if may {
            self.full_at = full_at;
        }
        may
    }

    /// Whether all of the burst is allowed.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_in_a_while() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, Duration::from_secs(2), start);
        let mut at = |ms: u64| bucket.take(start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 0].map(&mut at), [true, true, true, false]);
        assert_eq!([1999, 2000, 2001].map(&mut at), [false, true, false]);
        assert_eq!([60_000; 4].map(&mut at), [true, true, true, false]);
    }
}
