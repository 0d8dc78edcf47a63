//! The sending side of one transfer.

use crate::terms::Terms;
use core::time::Duration;
use wire::Moment;

/// Pause before the first retransmission, until the client's own pace is known.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(500);
/// Shortest pause before a retransmission. ROMs need some milliseconds per packet.
const RETRANSMIT_MIN: Duration = Duration::from_millis(50);
/// Longest pause before a retransmission.
const RETRANSMIT_MAX: Duration = Duration::from_secs(5);
/// A client that acknowledges nothing new for so long is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Who has never acknowledged anything is sent so many packets: anybody can ask in another's name, and must not make
/// us send much to him. A client that still wants the file asks again, for 30 s and more. 4 are sent in 8 s, and some
/// more to a client that asks again meanwhile.
const UNANSWERED_PACKETS_MAX: u32 = 6;
/// Repeats by ourselves to who has never acknowledged anything.
const UNANSWERED_REPEATS_MAX: u32 = 3;
/// Silence after so many repeats of the last block means that the client has everything and that only
/// its last ACK got lost: clients don't repeat that one. Takes about 11 s on a LAN.
const UNCONFIRMED_AFTER_REPEATS: u32 = 8;
/// Pause between bursts after a client lost blocks of a window.
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// A repeated request within this time of our last packet was already answered.
const REPEAT_MIN: Duration = Duration::from_millis(20);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the OACK packet of the [`Terms`], then ask again.
    OptionAck,
    /// Send a DATA packet, then ask again.
    Data {
        /// Block number on the wire.
        block: u16,
        /// Where its bytes start in the file.
        offset: u64,
        /// Number of bytes: less than the block size in the last block, perhaps 0.
        len: u16,
    },
    /// Nothing to send: ask again at this moment, or after the next `on_…` call.
    WaitUntil(Moment),
    /// The transfer is over.
    Done(Outcome),
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Confirmed,
    /// Everything was sent, but the last ACK never came. Counts as success.
    Unconfirmed,
    /// The client sent an ERROR. UEFI does so after asking for a file's size.
    Aborted,
    /// The client fell silent; see [`GIVE_UP_AFTER`]. One that never said a word is given up after a few packets.
    GaveUp,
}

/// One file on its way to one client. Holds no bytes of the file: the shell reads what [`Next::Data`] names.
///
/// [`start`](Self::start) when a request is settled. Then, until it is [`Next::Done`]: call [`next`](Self::next) and
/// do what it says; it says [`Next::WaitUntil`] when nothing is to be sent. What comes in meanwhile goes to
/// [`on_ack`](Self::on_ack), [`on_error`](Self::on_error) (an ERROR packet) or
/// [`on_request_again`](Self::on_request_again), in the order of its arrival. After each of them, and at the moment
/// of `WaitUntil`, call `next` again. All moments are of one clock that never goes backwards. Once it is done, further
/// calls change nothing.
#[derive(Clone, Debug)]
pub struct Transfer {
    size: u64,
    block_size: u16,
    window: u16,
    retransmit_max: Duration,
    phase: Phase,
    /// Number of the last block; a file of n full blocks has an empty block n + 1.
    last: u64,
    /// Blocks 1 to `acked` are acknowledged. Wider than on the wire, where numbers wrap to 0.
    acked: u64,
    next_block: u64,
    highest_sent: u64,
    /// Blocks that are sent without a pause. Shrinks when the client loses blocks, as its buffer may
    /// be smaller than the window that it asked for. The window itself must not shrink: the client
    /// would wait for its rest.
    burst: u16,
    in_burst: u16,
    pause_until: Moment,
    /// Went back to the block behind this one already: further equal ACKs are of the same flight.
    rewound_to: Option<u64>,
    is_timeable: bool,
    has_answered: bool,
    /// Packets that were sent until it did.
    n_unanswered: u32,
    n_silences: u32,
    pace: Pace,
    last_sent_at: Moment,
    progress_at: Moment,
    n_retransmits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OptionAck { is_due: bool },
    Data,
    Ended(Outcome),
}

impl Transfer {
    /// A transfer of a file of `size` bytes, whose request came in at `now`.
    pub fn start(terms: &Terms, size: u64, now: Moment) -> Self {
        Self {
            size,
            block_size: terms.block_size.max(1),
            window: terms.window.max(1),
            retransmit_max: terms.timeout.unwrap_or(RETRANSMIT_MAX).min(RETRANSMIT_MAX),
            phase: match terms.option_ack {
                Some(_) => Phase::OptionAck { is_due: true },
                None => Phase::Data,
            },
            last: size / u64::from(terms.block_size.max(1)) + 1,
            acked: 0,
            next_block: 1,
            highest_sent: 0,
            burst: terms.window.max(1),
            in_burst: 0,
            pause_until: now,
            rewound_to: None,
            is_timeable: true,
            has_answered: false,
            n_unanswered: 0,
            n_silences: 0,
            pace: Pace::new(),
            last_sent_at: now,
            progress_at: now,
            n_retransmits: 0,
        }
    }

    /// Packets that were sent more than once, so far.
    pub fn n_retransmits(&self) -> u32 {
        self.n_retransmits
    }

    /// Whether the client has ever acknowledged anything: so it is there, and has asked itself.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Bytes that the client acknowledged.
    pub fn acked_bytes(&self) -> u64 {
        (self.acked * u64::from(self.block_size)).min(self.size)
    }

    /// The client acknowledged `block`. Old, repeated and impossible numbers change nothing.
    pub fn on_ack(&mut self, block: u16, now: Moment) {
        match self.phase {
            Phase::Ended(_) => {}
            Phase::OptionAck { .. } if block == 0 => {
                self.phase = Phase::Data;
                self.on_progress(now);
            }
            Phase::OptionAck { .. } => {}
            Phase::Data => {
                // The number on the wire wraps; what can be meant lies between the last ACK and the highest block sent.
                let ahead = u64::from(block.wrapping_sub(self.acked as u16));
                if ahead > self.highest_sent - self.acked {
                    return;
                }
                if ahead == 0 { self.on_repeated_ack() } else { self.on_new_ack(ahead, now) }
            }
        }
    }

    fn on_new_ack(&mut self, ahead: u64, now: Moment) {
        self.acked += ahead;
        self.on_progress(now);
        if self.acked == self.last {
            self.phase = Phase::Ended(Outcome::Confirmed);
        } else if self.acked + 1 < self.next_block {
            // RFC 7440 section 4: a block is missing, the client wants everything behind this one again.
            self.rewind();
        } else {
            self.next_block = self.acked + 1;
            self.rewound_to = None;
            self.is_timeable = true;
            self.burst = self.window.min(self.burst + 1);
        }
    }

    fn on_repeated_ack(&mut self) {
        // In lockstep, answering a repeated ACK would double every packet from here on
        // (the Sorcerer's Apprentice, RFC 1123 section 4.2.3.1). With windows it says that a block is
        // missing, but UEFI says so for every block that comes behind the missing one.
        if self.window > 1
            && self.next_block > self.acked + 1
            && self.rewound_to != Some(self.acked)
        {
            self.rewind();
        }
    }

    fn rewind(&mut self) {
        self.rewound_to = Some(self.acked);
        self.next_block = self.acked + 1;
        self.in_burst = 0;
        self.burst = (self.burst - self.burst / 4).max(1);
        // An ACK could now be for either copy of a block (Karn's rule).
        self.is_timeable = false;
    }

    fn on_progress(&mut self, now: Moment) {
        if self.is_timeable {
            self.pace.on_answer(now - self.last_sent_at);
        } else {
            self.pace.on_ambiguous_answer();
        }
        self.has_answered = true;
        self.n_silences = 0;
        self.progress_at = now;
    }

    /// The client sent an ERROR: the transfer is over at once.
    pub fn on_error(&mut self) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(Outcome::Aborted);
        }
    }

    /// The request that this transfer answers came in once more, from the port that it came from first. `false` if
    /// the client has already acknowledged something, and so must be starting over: replace the transfer.
    pub fn on_request_again(&mut self, now: Moment) -> bool {
        if self.has_answered || matches!(self.phase, Phase::Ended(_)) {
            return false;
        }
        if now - self.last_sent_at >= REPEAT_MIN && self.n_unanswered < UNANSWERED_PACKETS_MAX {
            self.send_again();
        }
        true
    }

    fn send_again(&mut self) {
        self.is_timeable = false;
        match &mut self.phase {
            Phase::OptionAck { is_due } => *is_due = true,
            Phase::Data => self.next_block = self.acked + 1,
            Phase::Ended(_) => return,
        }
        self.in_burst = 0;
        self.n_retransmits += u32::from(self.phase != Phase::Data);
    }

    /// What to do at `now`. Call it until it says to wait or that the transfer is done.
    pub fn next(&mut self, now: Moment) -> Next {
        if let Phase::Ended(outcome) = self.phase {
            return Next::Done(outcome);
        }
        let silent_until = self.last_sent_at + self.pace.retransmit_after.min(self.retransmit_max);
        let has_sent = self.highest_sent > 0 || self.phase == (Phase::OptionAck { is_due: false });
        if has_sent && !self.has_more_to_send() {
            if now < silent_until {
                return Next::WaitUntil(silent_until);
            }
            if let Some(outcome) = self.on_silence(now) {
                self.phase = Phase::Ended(outcome);
                return Next::Done(outcome);
            }
        }
        if let Phase::OptionAck { is_due } = &mut self.phase {
            *is_due = false;
            self.last_sent_at = now;
            self.n_unanswered += 1;
            return Next::OptionAck;
        }
        if now < self.pause_until {
            return Next::WaitUntil(self.pause_until);
        }
        self.send_block(now)
    }

    fn has_more_to_send(&self) -> bool {
        match self.phase {
            Phase::OptionAck { is_due } => is_due,
            Phase::Data => self.next_block <= self.last.min(self.acked + u64::from(self.window)),
            Phase::Ended(_) => false,
        }
    }

    fn on_silence(&mut self, now: Moment) -> Option<Outcome> {
        if self.has_answered
            && self.highest_sent == self.last
            && self.n_silences >= UNCONFIRMED_AFTER_REPEATS
        {
            return Some(Outcome::Unconfirmed);
        }
        let is_deaf = !self.has_answered
            && (self.n_silences >= UNANSWERED_REPEATS_MAX
                || self.n_unanswered >= UNANSWERED_PACKETS_MAX);
        if is_deaf || now - self.progress_at >= GIVE_UP_AFTER {
            return Some(Outcome::GaveUp);
        }
        self.n_silences += 1;
        self.pace.on_silence();
        self.burst = (self.burst / 2).max(1);
        self.rewound_to = None;
        self.send_again();
        None
    }

    fn send_block(&mut self, now: Moment) -> Next {
        let number = self.next_block;
        let offset = (number - 1) * u64::from(self.block_size);
        let len = (self.size - offset).min(u64::from(self.block_size)) as u16;
        self.n_retransmits += u32::from(number <= self.highest_sent);
        self.highest_sent = self.highest_sent.max(number);
        self.n_unanswered += u32::from(!self.has_answered);
        self.next_block += 1;
        self.last_sent_at = now;
        self.in_burst += 1;
        if self.in_burst >= self.burst {
            self.in_burst = 0;
            if self.burst < self.window {
                self.pause_until = now + BURST_PAUSE;
            }
        }
        Next::Data { block: number as u16, offset, len }
    }
}

/// How long the client takes to answer, and so when a packet counts as lost (RFC 6298).
#[derive(Clone, Debug)]
struct Pace {
    smoothed: Option<Duration>,
    variation: Duration,
    retransmit_after: Duration,
    n_ambiguous: u32,
}

impl Pace {
    fn new() -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            retransmit_after: RETRANSMIT_FIRST,
            n_ambiguous: 0,
        }
    }

    fn on_answer(&mut self, took: Duration) {
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
        self.retransmit_after = self.usual();
    }

    /// An answer to a packet that was sent more than once: nobody knows to which copy.
    fn on_ambiguous_answer(&mut self) {
        // On a bad wire hardly any window needs no repeats. Then waiting for a clean answer would keep
        // the pause at its longest although the client answers all the time.
        self.n_ambiguous = self.n_ambiguous.saturating_add(1);
        if self.n_ambiguous > 1 {
            self.retransmit_after = self.usual().max(self.retransmit_after / 2);
        }
    }

    fn usual(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return RETRANSMIT_FIRST };
        (smoothed + self.variation * 4).clamp(RETRANSMIT_MIN, RETRANSMIT_MAX)
    }

    fn on_silence(&mut self) {
        self.retransmit_after = (self.retransmit_after * 2).min(RETRANSMIT_MAX);
    }
}
