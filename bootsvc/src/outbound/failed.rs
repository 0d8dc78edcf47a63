//! Why something was not done that other servers have a part in, step by step.

use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long steps may take: finding a name, connecting, each answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Each of them.
    Each(Duration),
    /// All of them together.
    All {
        /// So long.
        within: Duration,
        /// Until then.
        until: Instant,
    },
}

impl Patience {
    /// From now on.
    pub(crate) fn all(within: Duration) -> Self {
        Self::All { within, until: Instant::now() + within }
    }

    /// When the next step must have ended, of so many that are tried one after the other until one does it.
    fn ends(self, n_tries: u32) -> Instant {
        let now = Instant::now();
        match self {
            Self::Each(time) => now + time,
            Self::All { until, .. } => now + until.saturating_duration_since(now) / n_tries.max(1),
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Each(time) | Self::All { within: time, .. } => time.as_secs(),
        }
    }
}

/// Of what a server says, characters that are shown.
const SAID_CHARS_MAX: usize = 200;

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// What could not be done, without a dot.
    what: String,
    /// Why, in words of the system or of the server.
    cause: String,
    /// What a person can do, as a sentence.
    pub(crate) help: String,
    /// The recipient that was refused, if it is about one.
    pub(crate) whom: Option<String>,
}

impl Failed {
    pub(crate) fn new(
        what: impl Into<String>,
        cause: impl AsRef<str>,
        help: impl Into<String>,
    ) -> Self {
        let plain = cause.as_ref().trim().chars();
        let plain = plain.map(|it| if it.is_control() { ' ' } else { it });
        let cause = plain.take(SAID_CHARS_MAX).collect();
        Self { what: what.into(), cause, help: help.into(), whom: None }
    }

    /// The same, about this recipient.
    pub(crate) fn about(self, whom: impl Into<String>) -> Self {
        Self { whom: Some(whom.into()), ..self }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

/// What a step ends with, unless it takes too long.
pub(crate) async fn step<T>(
    patience: Patience,
    what: impl Into<String>,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    try_step(patience, 1, what, work).await
}

/// The same for one of so many things that are tried one after the other.
pub(super) async fn try_step<T>(
    patience: Patience,
    n_tries: u32,
    what: impl Into<String>,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    tokio::time::timeout_at(patience.ends(n_tries), work).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", patience.seconds());
        let help =
            "Look whether that server hangs, and whether a firewall drops what is sent to it.";
        Err(Failed::new(what, cause, help))
    })
}
