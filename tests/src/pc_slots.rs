//! How many PCs work at once, over all tests and runs on this machine.

use crate::lock::Lock;
use anyhow::Result;
use std::time::Duration;

/// QEMU PCs that are at work at once. Each keeps a processor busy, except when it waits, as firmware does
/// for a link and an address: three keep two processors busy.
const PCS_MAX: usize = 3;

/// How often a test that has its turn looks for a place that has become free.
const LOOK: Duration = Duration::from_millis(100);

/// Permission to have as many PCs at work; ends when it is dropped.
#[derive(Debug)]
pub struct PcSlots {
    n: usize,
    places: Vec<Lock>,
}

impl PcSlots {
    /// Waits until `n` PCs may be switched on, 1 to 3.
    ///
    /// # Errors
    /// The lock files can't be made.
    pub fn take(n: usize) -> Result<Self> {
        assert!((1..=PCS_MAX).contains(&n), "{n} PCs never get their turn");
        Ok(Self { n, places: take(n)? })
    }

    /// Lets others work while our PCs only wait, for a time to pass or for what does not come; then waits
    /// until they may go on. They stay switched on.
    ///
    /// # Errors
    /// The lock files can't be made.
    pub fn lend<T>(&mut self, wait: impl FnOnce() -> T) -> Result<T> {
        self.places.clear();
        let waited = wait();
        self.places = take(self.n)?;
        Ok(waited)
    }
}

/// Only who has the turn takes places, so that two that want several don't wait for each other, and
/// nobody is overtaken for ever.
fn take(n: usize) -> Result<Vec<Lock>> {
    let _turn = Lock::take("pc-turn", || ())?;
    let mut places = Vec::new();
    loop {
        for index in 0..PCS_MAX {
            if places.len() < n
                && let Some(place) = Lock::try_take(&format!("pc-{index}"))?
            {
                places.push(place);
            }
        }
        if places.len() == n {
            return Ok(places);
        }
        std::thread::sleep(LOOK);
    }
}
