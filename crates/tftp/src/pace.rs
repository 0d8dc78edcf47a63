//! How long a client takes to answer, and so when a packet counts as lost (RFC 6298).
//!
//! Silence is only a guess: a client that 200 others keep waiting is as silent as a lost packet. So the first guesses are
//! slow, they become quick where packets were proven to be lost, and slow again where a guess was wrong.

use core::time::Duration;

/// Until the first answer (RFC 6298 section 2.1).
const FIRST: Duration = Duration::from_secs(1);
/// Shortest time-out as long as nothing is known of losses. Answers of 200 clients that start at once take up to some
/// tenths of a second where processors are busy.
const CAUTIOUS_MIN: Duration = Duration::from_millis(250);
/// And where losses were proven. ROMs need some milliseconds for a packet.
const QUICK_MIN: Duration = Duration::from_millis(30);
/// And at most, after wrong guesses.
const SLOW_MIN: Duration = Duration::from_secs(1);
/// Longest time-out.
const MAX: Duration = Duration::from_secs(5);
/// Shortest time in which a packet can be answered.
const ANSWER_MIN: Duration = Duration::from_millis(10);
/// What our clock can tell.
const GRANULARITY: Duration = Duration::from_millis(1);

/// The timer of one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Shortest time-out now.
    min: Duration,
    /// What the client asked for by its option, but not longer than ours.
    max: Duration,
    time_out: Duration,
    n_ambiguous: u32,
}

impl Pace {
    /// Of a client that has not said anything. `wanted` is its option `timeout` (RFC 2349).
    pub(crate) fn new(wanted: Option<Duration>) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            min: CAUTIOUS_MIN,
            max: wanted.unwrap_or(MAX).min(MAX),
            time_out: FIRST,
            n_ambiguous: 0,
        }
    }

    /// After so long without an answer a packet counts as lost.
    pub(crate) fn time_out(&self) -> Duration {
        self.time_out.min(self.max)
    }

    /// Within this time an answer is to be expected, whether or not anything is guessed later.
    pub(crate) fn answer_time(&self) -> Duration {
        let expected = self.expected().map_or(QUICK_MIN, |expected| expected.max(ANSWER_MIN));
        expected.min(self.time_out())
    }

    /// An answer to what was sent once came after `took`.
    pub(crate) fn on_answer(&mut self, took: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variation = took / 2;
                took
            }
            Some(smoothed) => {
                self.variation = self.variation * 3 / 4 + smoothed.abs_diff(took) / 4;
                smoothed * 7 / 8 + took / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.n_ambiguous = 0;
        self.time_out = self.usual();
    }

    /// An answer came to what was sent more than once, nobody knows to which copy: it is not measured (Karn's rule), and
    /// what was doubled stays so.
    pub(crate) fn on_ambiguous_answer(&mut self) {
        // On a bad wire hardly any window needs no repeats. Then waiting for a clean answer would keep the time-out at
        // its longest although the client answers all the time.
        self.n_ambiguous = self.n_ambiguous.saturating_add(1);
        if self.n_ambiguous > 1 {
            self.time_out = self.usual().max(self.time_out / 2);
        }
    }

    /// Nothing came for the whole time-out.
    pub(crate) fn on_silence(&mut self) {
        self.time_out = (self.time_out * 2).min(MAX);
    }

    /// The client has said that it lacks something that was sent.
    pub(crate) fn on_proven_loss(&mut self) {
        self.min = QUICK_MIN;
        self.time_out = self.time_out.min(self.usual());
    }

    /// What was sent again was answered once only: one of the copies was lost, or its answer, or the client does not answer
    /// copies.
    pub(crate) fn on_probable_loss(&mut self) {
        self.min = (self.min / 2).max(QUICK_MIN);
    }

    /// What was sent again was answered twice: the client had it already.
    pub(crate) fn on_wrong_guess(&mut self) {
        self.min = (self.min * 2).clamp(CAUTIOUS_MIN, SLOW_MIN);
        self.time_out = self.time_out.max(self.min);
    }

    fn usual(&self) -> Duration {
        self.expected().map_or(FIRST, |expected| expected.clamp(self.min, MAX))
    }

    fn expected(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed + (self.variation * 4).max(GRANULARITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Answers that take so many milliseconds, in turn.
    fn pace(answers_ms: &[u32]) -> Pace {
        let mut pace = Pace::new(None);
        for &ms in answers_ms {
            pace.on_answer(MS * ms);
        }
        pace
    }

    #[test]
    fn answers_are_smoothed_as_rfc_6298_says() {
        assert_eq!(pace(&[]).time_out(), MS * 1000);
        // SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR.
        assert_eq!(pace(&[400]).time_out(), MS * 1200);
        // RTTVAR = 3/4 * 200 + 1/4 * |400 - 800|, SRTT = 7/8 * 400 + 1/8 * 800.
        assert_eq!(pace(&[400, 800]).time_out(), MS * (450 + 4 * 250));
        assert_eq!(pace(&[60_000]).time_out(), MAX);
        assert_eq!(pace(&[400; 100]).time_out().as_millis(), 401);
    }

    #[test]
    fn silence_doubles_the_time_out_until_a_clean_answer() {
        let mut pace = pace(&[0]);
        assert_eq!(pace.time_out(), CAUTIOUS_MIN);
        pace.on_silence();
        pace.on_silence();
        pace.on_ambiguous_answer();
        assert_eq!(pace.time_out(), MS * 1000);
        pace.on_ambiguous_answer();
        assert_eq!(pace.time_out(), MS * 500);
        pace.on_answer(MS);
        assert_eq!(pace.time_out(), CAUTIOUS_MIN);
        for _ in 0..40 {
            pace.on_silence();
        }
        assert_eq!(pace.time_out(), MAX);
    }

    #[test]
    fn guesses_are_quick_where_packets_are_lost_and_slow_where_they_are_late() {
        let mut pace = pace(&[0]);
        pace.on_proven_loss();
        assert_eq!(pace.time_out(), QUICK_MIN);
        pace.on_wrong_guess();
        assert_eq!(pace.time_out(), CAUTIOUS_MIN);
        for _ in 0..9 {
            pace.on_wrong_guess();
        }
        assert_eq!(pace.time_out(), SLOW_MIN);
        // One that does not answer copies looks the same: no single guess makes the next ones quick.
        pace.on_probable_loss();
        pace.on_answer(MS);
        assert_eq!(pace.time_out(), SLOW_MIN / 2);
        for _ in 0..9 {
            pace.on_probable_loss();
        }
        pace.on_answer(MS);
        assert_eq!(pace.time_out(), QUICK_MIN);
    }

    #[test]
    fn a_client_s_option_bounds_the_time_out() {
        let mut pace = Pace::new(Some(Duration::from_secs(1)));
        pace.on_silence();
        assert_eq!(pace.time_out(), Duration::from_secs(1));
        assert_eq!(Pace::new(Some(Duration::from_secs(255))).max, MAX);
    }
}
