//! Why an alert was not sent, step by step.

use std::fmt;
use std::time::Duration;

/// How long each step may take: finding a name, connecting, each answer.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

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
}

impl Failed {
    pub(super) fn new(
        what: impl Into<String>,
        cause: impl AsRef<str>,
        help: impl Into<String>,
    ) -> Self {
        let plain = cause.as_ref().trim().chars();
        let plain = plain.map(|it| if it.is_control() { ' ' } else { it });
        let cause = plain.take(SAID_CHARS_MAX).collect();
        Self { what: what.into(), cause, help: help.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

/// What a step ends with, unless it takes too long.
pub(super) async fn step<T>(
    what: impl Into<String>,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    tokio::time::timeout(STEP_DEADLINE, work).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", STEP_DEADLINE.as_secs());
        let help =
            "Look whether that server hangs, and whether a firewall drops what is sent to it.";
        Err(Failed::new(what, cause, help))
    })
}
