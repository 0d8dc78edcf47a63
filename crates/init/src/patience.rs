//! What a person at the machine reads while it waits.

use crate::console::{Console, uptime};
use std::time::Duration;

/// A text that stays the same is repeated after this time.
const REPEAT_EVERY: Duration = Duration::from_secs(20);

/// Says what is waited for: at once, when it changes, and now and then.
pub(crate) struct Patience<'a> {
    console: &'a Console,
    topic: &'static str,
    last: String,
    next: Duration,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(console: &'a Console, topic: &'static str) -> Self {
        Self { console, topic, last: String::new(), next: Duration::ZERO }
    }

    pub(crate) fn waiting(&mut self, text: &str) {
        if self.last != text || uptime() >= self.next {
            self.console.wait(self.topic, text);
            text.clone_into(&mut self.last);
            self.next = uptime() + REPEAT_EVERY;
        }
    }
}
