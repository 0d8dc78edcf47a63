//! The sending side of one transfer.

use crate::pace::Pace;
use crate::terms::Terms;
use core::time::Duration;
use wire::Moment;

/// A client that acknowledges nothing new for so long is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Who has never acknowledged anything is sent so many packets: anybody can ask in another's name, and must not make
/// us send much to him. A client that still wants the file asks again, for 30 s and more. 4 are sent in 7 s, and some
/// more to a client that asks again meanwhile.
const UNANSWERED_PACKETS_MAX: u32 = 6;
/// Repeats by ourselves to who has never acknowledged anything.
const UNANSWERED_REPEATS_MAX: u32 = 3;
/// A client that says nothing for so long although it was sent the last block several times has everything, and only its
/// last ACK got lost: clients don't repeat that one.
const UNCONFIRMED_AFTER: Duration = Duration::from_secs(10);
/// Pause between bursts after a client lost blocks of a window.
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// Who answered, and was sent the first block so often without acknowledging it, does not get such blocks. Once or twice is bad
/// luck on a bad network.
const FIRST_LOST_AFTER: u32 = 3;
/// Who waits for the first block says so once more after this time at the earliest. What comes sooner is a copy.
const ASKS_AGAIN_AFTER: Duration = Duration::from_millis(250);
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

/// What was sent for a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// Bytes of the file in them.
    pub bytes: u64,
    /// Packets of these that had been sent before.
    pub again: u64,
    /// Longest time without a new acknowledgement, while one was waited for.
    pub longest_wait: Duration,
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
    phase: Phase,
    /// Number of the last block; a file of n full blocks has an empty block n + 1.
    last: u64,
    /// Blocks 1 to `acked` are acknowledged. Wider than on the wire, where numbers wrap to 0.
    acked: u64,
    next_block: u64,
    highest_sent: u64,
    /// How often the first block was sent.
    n_first: u32,
    /// The client has said once more that it waits for the first block: it is there still.
    waits_for_first: bool,
    /// Blocks that are sent without a pause. Shrinks when the client loses blocks, as its buffer may
    /// be smaller than the window that it asked for. The window itself must not shrink: the client
    /// would wait for its rest.
    burst: u16,
    in_burst: u16,
    pause_until: Moment,
    /// Went back to the block behind this one already: further equal ACKs are of the same flight.
    rewound_to: Option<u64>,
    /// What is sent again now is sent on a guess: the client may have it.
    is_guess: bool,
    /// The next block goes out alone; see [`guess`](Self::guess).
    is_probe: bool,
    /// When the others follow it.
    rest_at: Moment,
    /// Highest block that was sent when the last ones began to be sent again.
    flight_end: u64,
    /// Packets that were sent again since the client has acknowledged something.
    n_copies: u32,
    echoes: Echoes,
    is_timeable: bool,
    has_answered: bool,
    /// Packets that were sent until it did.
    n_unanswered: u32,
    n_silences: u32,
    pace: Pace,
    last_sent_at: Moment,
    progress_at: Moment,
    sent: Sent,
}

/// ACKs that copies may still bring after the ACK that was waited for. They ask for nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Echoes {
    n_due: u32,
    has_come: bool,
    /// What was sent again was sent on a guess.
    judge_guess: bool,
    /// The ACK came as soon after a copy as clients answer. Otherwise it has probably been for the first one.
    is_prompt: bool,
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
            phase: match terms.option_ack {
                Some(_) => Phase::OptionAck { is_due: true },
                None => Phase::Data,
            },
            last: size / u64::from(terms.block_size.max(1)) + 1,
            acked: 0,
            next_block: 1,
            highest_sent: 0,
            n_first: 0,
            waits_for_first: false,
            burst: terms.window.max(1),
            in_burst: 0,
            pause_until: now,
            rewound_to: None,
            is_guess: false,
            is_probe: false,
            rest_at: now,
            flight_end: 0,
            n_copies: 0,
            echoes: Echoes::default(),
            is_timeable: true,
            has_answered: false,
            n_unanswered: 0,
            n_silences: 0,
            pace: Pace::new(terms.timeout),
            last_sent_at: now,
            progress_at: now,
            sent: Sent::default(),
        }
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Whether the client has ever acknowledged anything: so it is there, and has asked itself.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether the client has agreed to the terms and then not got the first block, again and again, though it waits for it: blocks
    /// of this size probably get lost on the way. `false` again if it comes after all.
    pub fn lacks_first(&self) -> bool {
        self.waits_for_first && self.acked == 0 && self.n_first >= FIRST_LOST_AFTER
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
                self.on_progress(self.is_timeable, now);
                self.is_timeable = true;
            }
            Phase::OptionAck { .. } => {}
            Phase::Data => {
                // The number on the wire wraps; what can be meant lies between the last ACK and the highest block sent.
                let ahead = u64::from(block.wrapping_sub(self.acked as u16));
                if ahead > self.highest_sent - self.acked {
                    return;
                }
                if ahead == 0 {
                    self.waits_for_first |= now - self.progress_at >= ASKS_AGAIN_AFTER;
                    self.on_repeated_ack(now);
                } else {
                    self.on_new_ack(ahead, now);
                }
            }
        }
    }

    fn on_new_ack(&mut self, ahead: u64, now: Moment) {
        self.acked += ahead;
        let has_all = self.acked + 1 >= self.next_block;
        let is_clean = self.is_timeable;
        self.on_progress(has_all && is_clean, now);
        if self.acked == self.last {
            self.phase = Phase::Ended(Outcome::Confirmed);
        } else if has_all {
            if self.acked < self.highest_sent {
                // It was asked by the first block alone, and has answered that: it lacks one further on.
                self.on_proven_loss();
            }
            self.next_block = self.acked + 1;
            self.rewound_to = None;
            self.is_timeable = true;
            self.burst = self.window.min(self.burst + 1);
        } else if is_clean || self.acked != self.flight_end {
            // RFC 7440 section 4: a block is missing, the client wants everything behind this one again.
            self.on_proven_loss();
            self.rewind();
        }
        // Else it has all that was sent before we went back, so this is probably the answer to a copy of that.
    }

    fn on_proven_loss(&mut self) {
        self.pace.on_proven_loss();
        // What it says once more now is said of what it lacks.
        self.echoes.n_due = 0;
    }

    /// The client says once more what it has.
    fn on_repeated_ack(&mut self, now: Moment) {
        if self.echoes.n_due > 0 {
            // Answering an answer to a copy would double every packet from here on (the Sorcerer's Apprentice, RFC 1123
            // section 4.2.3.1).
            self.echoes.n_due -= 1;
            if self.echoes.judge_guess && !self.echoes.has_come {
                self.pace.on_wrong_guess();
            }
            self.echoes.has_come = true;
            return;
        }
        // The client has become impatient; or, with windows, it lacks the first block of this one. It is a hint only:
        // networks repeat packets, too. UEFI says it for every block that comes behind the missing one, and so proves it.
        if self.rewound_to == Some(self.acked) && (self.is_probe || now < self.rest_at) {
            self.on_proven_loss();
            (self.is_guess, self.is_probe, self.rest_at) = (false, false, now);
            return;
        }
        let is_of_this_flight = self.window == 1 || self.rewound_to == Some(self.acked);
        let is_due = now - self.last_sent_at >= self.pace.answer_time();
        if self.next_block > self.acked + 1 && (is_due || !is_of_this_flight) {
            self.rewind();
            self.guess();
        }
    }

    /// Goes back to the first block that the client has not acknowledged.
    fn rewind(&mut self) {
        self.rewound_to = Some(self.acked);
        self.next_block = self.acked + 1;
        self.in_burst = 0;
        self.burst = (self.burst - self.burst / 4).max(1);
        self.flight_end = self.highest_sent;
        // An ACK could now be for either copy of a block (Karn's rule).
        self.is_timeable = false;
    }

    /// What is sent again now may be at the client already. The first block alone makes it say what it has; only if it
    /// says nothing it is sent the others.
    fn guess(&mut self) {
        self.is_guess = true;
        self.is_probe = self.window > 1 && self.has_answered;
        self.flight_end = self.highest_sent;
        self.is_timeable = false;
    }

    fn on_progress(&mut self, is_timeable: bool, now: Moment) {
        let took = now - self.last_sent_at;
        let is_prompt = took <= self.pace.answer_time();
        let before = self.echoes;
        if before.judge_guess && before.is_prompt && before.n_due > 0 && !before.has_come {
            self.pace.on_probable_loss();
        }
        match is_timeable {
            true => self.pace.on_answer(took),
            false => self.pace.on_ambiguous_answer(),
        }
        let n_copies = core::mem::take(&mut self.n_copies);
        let judge_guess = core::mem::take(&mut self.is_guess);
        let may_come = judge_guess || self.acked == self.flight_end;
        let n_due = if may_come { n_copies } else { 0 };
        self.echoes = Echoes { n_due, has_come: false, judge_guess, is_prompt };
        self.is_probe = false;
        self.rest_at = now;
        self.has_answered = true;
        self.n_silences = 0;
        self.note_wait(now);
        self.progress_at = now;
    }

    fn note_wait(&mut self, now: Moment) {
        self.sent.longest_wait = self.sent.longest_wait.max(now - self.progress_at);
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
        match &mut self.phase {
            Phase::OptionAck { is_due } => *is_due = true,
            Phase::Data => self.next_block = self.acked + 1,
            Phase::Ended(_) => return,
        }
        self.in_burst = 0;
        self.guess();
    }

    /// What to do at `now`. Call it until it says to wait or that the transfer is done.
    pub fn next(&mut self, now: Moment) -> Next {
        if let Phase::Ended(outcome) = self.phase {
            return Next::Done(outcome);
        }
        let silent_until = self.last_sent_at + self.pace.time_out();
        let has_sent = self.sent.packets > 0;
        if has_sent && !self.has_more_to_send() {
            if now < silent_until {
                return Next::WaitUntil(silent_until);
            }
            if let Some(outcome) = self.on_silence(now) {
                self.phase = Phase::Ended(outcome);
                return Next::Done(outcome);
            }
        }
        if self.phase == (Phase::OptionAck { is_due: true }) {
            self.phase = Phase::OptionAck { is_due: false };
            self.note_packet(has_sent, 0, now);
            return Next::OptionAck;
        }
        let pause_until = self.pause_until.max(self.rest_at);
        if now < pause_until {
            return Next::WaitUntil(pause_until);
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
            && self.n_silences > 1
            && now - self.progress_at >= UNCONFIRMED_AFTER
        {
            return Some(Outcome::Unconfirmed);
        }
        let is_deaf = !self.has_answered
            && (self.n_silences >= UNANSWERED_REPEATS_MAX
                || self.n_unanswered >= UNANSWERED_PACKETS_MAX);
        if is_deaf || now - self.progress_at >= GIVE_UP_AFTER {
            self.note_wait(now);
            return Some(Outcome::GaveUp);
        }
        self.n_silences += 1;
        self.pace.on_silence();
        if self.phase == Phase::Data {
            self.burst = (self.burst / 2).max(1);
        }
        self.rewound_to = None;
        self.send_again();
        None
    }

    fn send_block(&mut self, now: Moment) -> Next {
        let number = self.next_block;
        let offset = (number - 1) * u64::from(self.block_size);
        let len = (self.size - offset).min(u64::from(self.block_size)) as u16;
        self.note_packet(number <= self.highest_sent, len, now);
        self.highest_sent = self.highest_sent.max(number);
        self.next_block += 1;
        self.n_first += u32::from(number == 1);
        if core::mem::take(&mut self.is_probe) {
            self.rest_at = now + self.pace.answer_time();
        }
        self.in_burst += 1;
        if self.in_burst >= self.burst {
            self.in_burst = 0;
            if self.burst < self.window {
                self.pause_until = now + BURST_PAUSE;
            }
        }
        Next::Data { block: number as u16, offset, len }
    }

    fn note_packet(&mut self, is_again: bool, len: u16, now: Moment) {
        self.sent.packets += 1;
        self.sent.bytes += u64::from(len);
        self.sent.again += u64::from(is_again);
        self.n_copies += u32::from(is_again);
        self.n_unanswered += u32::from(!self.has_answered);
        self.last_sent_at = now;
    }
}
