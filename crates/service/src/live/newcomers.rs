//! PCs that were never seen before, as many as there are in a house and not as many as somebody can invent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::Moment;

/// So many may come at once: every PC of a school is new on its first day.
const AT_ONCE: u32 = 512;

/// From then on one more comes each.
const ONE_MORE_AFTER: Duration = Duration::from_millis(500);

/// How many newcomers are noted yet.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    /// How many have come that the time since has not made up for, as of when.
    counted: Mutex<(u32, Moment)>,
}

impl Newcomers {
    /// One more comes; whether that one is noted.
    pub(crate) fn comes(&self, now: Moment) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (n, at) = &mut *counted;
        let passed = now.since(*at).as_millis() / ONE_MORE_AFTER.as_millis();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if *n <= passed {
            (*n, *at) = (0, now);
        } else {
            *n -= passed;
            *at = *at + ONE_MORE_AFTER.saturating_mul(passed);
        }
        let may = *n < AT_ONCE;
        *n += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_house_comes_at_once_and_a_flood_does_not() {
        let newcomers = Newcomers::default();
        let at = Moment::from_millis;
        let n_noted = |n: u32, now| (0..n).filter(|_| newcomers.comes(at(now))).count();
        assert_eq!(n_noted(5000, 1_000), 512);
        assert_eq!(n_noted(10, 1_400), 0);
        assert_eq!(n_noted(10, 2_100), 2, "one for each half second");
        assert_eq!(n_noted(10, 2_500), 1, "no time is lost");
        assert_eq!(n_noted(5000, 1_000_000), 512);
    }
}
