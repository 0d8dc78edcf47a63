//! What time it is.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::Moment;

/// Tells the time. Clones tell the same.
#[derive(Clone)]
pub struct Clock {
    read: Arc<dyn Fn() -> Now + Send + Sync>,
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
    #[expect(clippy::disallowed_methods, reason = "this is who others ask")]
    pub fn system() -> Self {
        let start = Instant::now();
        Self::from_fn(move || {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let ms = |duration: std::time::Duration| {
                u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
            };
            Now { unix_ms: ms(unix), moment: Moment::from_millis(ms(start.elapsed())) }
        })
    }

    /// One that tells what `read` tells, for tests.
    pub fn from_fn(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read) }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        (self.read)()
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
