//! What time it is.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::WeekTime;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wire::Moment;

/// By how much the wall clock must differ from what is expected of it to count as set. Time services set it by less,
/// but slowly.
const IS_SET_MS: u64 = 250;

/// Tells the time. Clones tell the same.
#[derive(Clone)]
pub struct Clock {
    read: Arc<dyn Fn() -> Now + Send + Sync>,
    /// `None`: the computer's.
    zone: Option<TimeZone>,
}

/// One look at both clocks of a computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, milliseconds since 1970: for people, and for what outlives the process. Somebody may set it.
    pub unix_ms: u64,
    /// A clock that only goes on: for how long something takes.
    pub moment: Moment,
}

impl Clock {
    /// The computer's.
    ///
    /// The wall clock is told by the other one, as they stood to each other when this was made, so a past moment has
    /// one date whenever it is asked for; once somebody has set the wall clock by [`IS_SET_MS`] or more, they are
    /// compared again.
    #[expect(clippy::disallowed_methods, reason = "this is who others ask")]
    pub fn system() -> Self {
        let start = Instant::now();
        let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let unix_at_start =
            AtomicU64::new(ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
        Self::from_fn(move || {
            let before = ms(start.elapsed());
            let unix = ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
            let after = ms(start.elapsed());
            let anchor = anchored(unix_at_start.load(Ordering::Relaxed), before, unix, after);
            unix_at_start.store(anchor, Ordering::Relaxed);
            Now { unix_ms: anchor.saturating_add(after), moment: Moment::from_millis(after) }
        })
    }

    /// One that tells what `read` tells, for tests.
    pub fn from_fn(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), zone: None }
    }

    /// One that hangs in this time zone, for tests.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        (self.read)()
    }

    /// What a clock on the wall shows here; `None`: it is no year that it could show.
    pub(crate) fn on_the_wall(&self) -> Option<WeekTime> {
        let time = Timestamp::from_millisecond(i64::try_from(self.now().unix_ms).ok()?).ok()?;
        let shown = time.to_zoned(self.zone.clone().unwrap_or_else(TimeZone::system));
        let days = shown.weekday().to_monday_zero_offset();
        let minutes =
            u16::try_from(shown.hour()).ok()? * 60 + u16::try_from(shown.minute()).ok()?;
        WeekTime::new(u8::try_from(days).ok()?, minutes)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.now(), f)
    }
}

impl Now {
    /// The wall clock in seconds since 1970.
    pub const fn unix(self) -> u64 {
        self.unix_ms / 1000
    }

    /// When `moment` was by the wall clock as it is set now, milliseconds since 1970.
    pub(crate) const fn unix_ms_at(self, moment: Moment) -> u64 {
        let ago_ms = self.moment.as_millis().saturating_sub(moment.as_millis());
        self.unix_ms.saturating_sub(ago_ms)
    }
}

/// What the wall clock showed at the start, if it showed `unix` while the other clock went from `before` to `after`:
/// `expected`, unless no moment between the two agrees with that.
fn anchored(expected: u64, before: u64, unix: u64, after: u64) -> u64 {
    let earliest = expected.saturating_add(before).saturating_sub(IS_SET_MS);
    let latest = expected.saturating_add(after).saturating_add(IS_SET_MS);
    if (earliest..=latest).contains(&unix) { expected } else { unix.saturating_sub(after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_one_date() {
        let clock = Clock::system();
        let past = clock.now().moment;
        let date = clock.now().unix_ms_at(past);
        for _ in 0..100_000 {
            assert_eq!(clock.now().unix_ms_at(past), date);
        }
    }

    #[test]
    fn the_wall_shows_summer_and_winter_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let shown = |text: &str| {
            let unix_ms = text.parse::<Timestamp>().unwrap().as_millisecond() as u64;
            let now = Now { unix_ms, moment: Moment::from_millis(0) };
            let clock = Clock::from_fn(move || now).in_zone(zone.clone());
            clock.on_the_wall().unwrap().to_string()
        };
        assert_eq!(shown("2026-03-29T00:59:59Z"), "sun 1:59");
        assert_eq!(shown("2026-03-29T01:00:00Z"), "sun 3:00", "an hour is left out");
        assert_eq!(shown("2026-10-25T00:30:00Z"), "sun 2:30");
        assert_eq!(shown("2026-10-25T01:30:00Z"), "sun 2:30", "an hour comes twice");
        assert_eq!(shown("2026-11-30T06:00:00Z"), "mon 7:00");
        assert_eq!(shown("2026-07-05T22:00:00Z"), "mon 0:00");
    }

    #[test]
    fn a_wall_clock_that_was_set_is_followed_and_one_that_was_read_late_is_not_taken_for_it() {
        assert_eq!(anchored(50_000, 1_000, 51_001, 1_001), 50_000);
        assert_eq!(
            anchored(50_000, 1_000, 59_000, 9_000),
            50_000,
            "eight seconds without the processor"
        );
        assert_eq!(anchored(50_000, 1_000, 51_200, 1_001), 50_000, "a little by a time service");
        assert_eq!(anchored(50_000, 1_000, 91_000, 1_000), 90_000, "set forward");
        assert_eq!(anchored(50_000, 1_000, 11_000, 1_000), 10_000, "set back");
        assert_eq!(
            anchored(0, 5, 1_700_000_000_000, 5),
            1_699_999_999_995,
            "no clock at the start"
        );
    }
}
