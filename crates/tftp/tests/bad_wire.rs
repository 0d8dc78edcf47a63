//! Transfers over a wire that loses, repeats and delays packets, to clients as there are. The clock is simulated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use tftp::{Asked, Mode, Next, Outcome, Sent, Terms, Transfer};
use wire::Moment;

/// A small generator: the same seed gives the same wire.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A wire and the client behind it. Of packets, each way.
#[derive(Clone, Copy)]
struct Scene {
    lost_percent: u64,
    repeated_percent: u64,
    /// Packets that take longer than `one_way_us`, and how long they take.
    late: (u64, u64),
    one_way_us: u64,
    /// How long the client works on each ACK, in milliseconds: one of these, by chance.
    works_ms: &'static [u64],
    answers_copies: bool,
    /// After so long without a packet it says again what it has.
    client_timeout_ms: u64,
    window: u16,
    size: u64,
}

const BLOCK_BYTES: u64 = 1428;

/// A switched network, and firmware that answers at once.
const LAN: Scene = Scene {
    lost_percent: 0,
    repeated_percent: 0,
    late: (0, 0),
    one_way_us: 200,
    works_ms: &[0],
    answers_copies: true,
    client_timeout_ms: 400,
    window: 1,
    size: 10_000_000,
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flying {
    Data { block: u16, offset: u64, len: u16 },
    Ack(u16),
}

struct Wire {
    scene: Scene,
    dice: Dice,
    /// With the microsecond at which it arrives.
    flying: BinaryHeap<Reverse<(u64, u64, Flying)>>,
    n_sent: u64,
}

impl Wire {
    fn send(&mut self, packet: Flying, now_us: u64) {
        let copies = u64::from(self.dice.below(100) >= self.scene.lost_percent);
        let copies = copies + u64::from(self.dice.below(100) < self.scene.repeated_percent);
        for _ in 0..copies {
            self.n_sent += 1;
            let (late_percent, late_us) = self.scene.late;
            let is_late = self.dice.below(100) < late_percent;
            let takes_us = if is_late { late_us } else { self.scene.one_way_us };
            self.flying.push(Reverse((now_us + takes_us, self.n_sent, packet)));
        }
    }
}

/// What came of a transfer.
struct Ran {
    took: Duration,
    sent: Sent,
    /// Blocks that the client got although it had them.
    n_copies: u64,
    n_blocks: u64,
    /// How often the client was busy for longer than the first time-outs.
    n_away: u64,
}

impl Scene {
    fn run(self, seed: u64) -> Ran {
        let options =
            Asked { block_size: Some(1428), window: Some(self.window), ..Asked::default() };
        let terms = Terms::settle(&options, Mode::Octet, self.size, 1468);
        let mut now_us = 1000;
        let start_us = now_us;
        let moment = |us: u64| Moment::from_millis(us / 1000);
        let mut transfer = Transfer::start(&terms, self.size, moment(now_us));
        let mut wire = Wire { scene: self, dice: Dice(seed), flying: BinaryHeap::new(), n_sent: 0 };
        // Blocks received in order, blocks since its last ACK, when it heard the last packet, until when it works.
        let (mut received, mut unacked, mut heard_us, mut busy_us) = (0, 0, now_us, now_us);
        let (mut n_copies, mut n_away) = (0, 0);
        let last = self.size / BLOCK_BYTES + 1;
        loop {
            let wake_us = match transfer.next(moment(now_us)) {
                Next::OptionAck => {
                    wire.send(Flying::Ack(0), now_us);
                    continue;
                }
                Next::Data { block, offset, len } => {
                    wire.send(Flying::Data { block, offset, len }, now_us);
                    continue;
                }
                Next::WaitUntil(moment) => moment.as_millis() * 1000,
                Next::Done(outcome) => {
                    let is_well = matches!(outcome, Outcome::Confirmed | Outcome::Unconfirmed);
                    assert!(is_well, "seed {seed}: {outcome:?}");
                    assert_eq!(received, last, "seed {seed}: {outcome:?} but blocks are missing");
                    let took = Duration::from_micros(now_us - start_us);
                    return Ran { took, sent: transfer.sent(), n_copies, n_blocks: last, n_away };
                }
            };
            let client_us = heard_us.max(busy_us) + self.client_timeout_ms * 1000;
            let arrival_us = wire.flying.peek().map_or(u64::MAX, |Reverse((us, ..))| *us);
            now_us = now_us.max(wake_us.min(client_us).min(arrival_us));
            if now_us >= client_us {
                heard_us = now_us;
                if received < last {
                    wire.send(Flying::Ack(received as u16), now_us);
                }
            }
            while let Some(&Reverse((us, _, packet))) = wire.flying.peek() {
                if us > now_us {
                    break;
                }
                wire.flying.pop();
                let Flying::Data { block, offset, len } = packet else {
                    let Flying::Ack(block) = packet else { unreachable!() };
                    transfer.on_ack(block, moment(now_us));
                    continue;
                };
                heard_us = now_us;
                let ahead = block.wrapping_sub(received as u16);
                let is_old = ahead == 0 || ahead > u16::MAX / 2;
                if ahead == 1 {
                    assert_eq!(offset, received * BLOCK_BYTES);
                    assert!(u64::from(len) == BLOCK_BYTES || received + 1 == last);
                    received += 1;
                    unacked += 1;
                    if unacked < u64::from(terms.window) && received < last {
                        continue;
                    }
                }
                n_copies += u64::from(is_old);
                if is_old && !self.answers_copies {
                    continue;
                }
                unacked = 0;
                let works_ms = self.works_ms[wire.dice.below(self.works_ms.len() as u64) as usize];
                n_away += u64::from(works_ms > 250);
                busy_us = busy_us.max(now_us) + works_ms * 1000;
                wire.send(Flying::Ack(received as u16), busy_us);
            }
            assert!(now_us - start_us < 3_600_000_000, "seed {seed}: no end");
        }
    }
}

#[test]
fn every_wire_gets_the_whole_file_across() {
    for seed in 1..60 {
        for (lost_percent, window) in
            [(0, 1), (1, 1), (10, 1), (0, 16), (1, 16), (10, 16), (20, 44)]
        {
            for answers_copies in [true, false] {
                let scene = Scene {
                    lost_percent,
                    window,
                    answers_copies,
                    repeated_percent: 1,
                    late: (2, 8000),
                    one_way_us: 1000,
                    size: 200_000,
                    ..LAN
                };
                scene.run(seed);
            }
        }
    }
}

/// The measured servers of others needed 33 to more than 100 seconds for this in lockstep, and 7 to 23 with windows.
#[test]
fn ten_megabytes_at_one_percent_loss_take_seconds() {
    for (window, seconds_max) in [(1, 10), (16, 2)] {
        for seed in 1..20 {
            let ran = Scene { lost_percent: 1, window, ..LAN }.run(seed);
            let Ran { took, sent, n_copies, n_blocks, .. } = ran;
            println!("window {window}: {took:?}, {sent:?}, {n_copies} of {n_blocks} twice");
            assert!(took < Duration::from_secs(seconds_max), "window {window}: {took:?}");
        }
    }
}

#[test]
fn where_nothing_is_lost_nothing_is_sent_twice() {
    // As long as answers take in a room of 200 that starts at once.
    for works_ms in [&[0][..], &[0, 1, 2, 3], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]] {
        for window in [1, 16] {
            let client_timeout_ms = 1000;
            let scene = Scene { window, works_ms, client_timeout_ms, size: 1_000_000, ..LAN };
            for seed in 1..10 {
                let ran = scene.run(seed);
                assert_eq!((ran.sent.again, ran.n_copies), (0, 0), "{works_ms:?}, {window}");
            }
        }
    }
}

/// Now and then the client is away for longer than any time-out that does not know it.
#[test]
fn a_client_that_is_away_now_and_then_is_sent_little_twice() {
    let mut works_ms = [0; 100];
    works_ms[7] = 450;
    for window in [1, 16] {
        for answers_copies in [true, false] {
            let client_timeout_ms = 1000;
            let works_ms = Box::leak(Box::new(works_ms));
            let scene = Scene { window, works_ms, answers_copies, client_timeout_ms, ..LAN };
            for seed in 1..10 {
                let Ran { sent, n_copies, n_away, .. } = scene.run(seed);
                let what = format!("window {window}: {sent:?}, {n_copies} twice, {n_away} away");
                println!("{what}");
                // A window, where it does not say what it has when it is asked.
                let each = if answers_copies { 1 } else { u64::from(window) };
                assert!(n_copies <= n_away * each + 16, "{what}");
            }
        }
    }
}

/// Somebody who acknowledges at random gets no packet that he was not to get, and never more than a window for it.
#[test]
fn one_packet_in_is_at_most_one_window_out() {
    for seed in 1..200 {
        let mut dice = Dice(seed);
        let (window, size) = (1 + dice.below(20) as u16, dice.below(200_000));
        let asked = Asked { window: Some(window), block_size: Some(600), ..Asked::default() };
        let terms = Terms::settle(&asked, Mode::Octet, size, 1468);
        let mut now = Moment::default();
        let mut transfer = Transfer::start(&terms, size, now);
        let mut last_sent = 0;
        for _ in 0..2000 {
            let mut n_packets = 0;
            loop {
                match transfer.next(now) {
                    Next::OptionAck => n_packets += 1,
                    Next::Data { block, offset, len } => {
                        n_packets += 1;
                        assert!(offset + u64::from(len) <= size, "seed {seed}");
                        last_sent = block;
                    }
                    Next::WaitUntil(moment) => {
                        assert!(
                            moment > now,
                            "seed {seed}: to wait for what has passed would spin"
                        );
                        break;
                    }
                    Next::Done(_) => break,
                }
            }
            assert!(n_packets <= window, "seed {seed}: {n_packets} packets, window {window}");
            now = now + Duration::from_millis(dice.below(4) * dice.below(100));
            match dice.below(10) {
                0 => {
                    let _ = transfer.on_request_again(now);
                }
                1 => transfer.on_ack(dice.below(65536) as u16, now),
                2..=4 => {}
                _ => transfer.on_ack(last_sent.wrapping_sub(dice.below(20) as u16), now),
            }
        }
    }
}

/// A network that repeats packets must not make us do so, too.
#[test]
fn no_packet_that_comes_twice_doubles_the_next_ones() {
    for window in [1, 4, 16] {
        for seed in 1..10 {
            let ran = Scene { repeated_percent: 2, window, ..LAN }.run(seed);
            let Ran { sent, n_copies, n_blocks, .. } = ran;
            println!("window {window}: {sent:?}, {n_copies} of {n_blocks} twice");
            assert!(n_copies < n_blocks / 3, "window {window}: {n_copies} of {n_blocks}");
        }
    }
}
