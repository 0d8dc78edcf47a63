use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const MACHINE: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

fn request(command: AtaCommand, data: &[u8]) -> AtaRequest<'_> {
    AtaRequest { command, sectors: 2, data }
}

fn write(lba: u64, data: &[u8]) -> AtaRequest<'_> {
    request(AtaCommand::Write { lba, fua: false }, data)
}

/// What becomes of these requests, in one batch, each done if it is to be.
fn steps<'a>(requests: &[AtaRequest<'a>]) -> Vec<Step> {
    let (mut order, mut done) = (Order::default(), Done::<'a>::default());
    let now = Moment::from_millis(1);
    let mut steps = Vec::new();
    for (tag, request) in (0..).zip(requests) {
        let origin = Origin { source: MACHINE, tag };
        let step = order.next(&done, origin, request, now);
        if step == Step::Work {
            order.done(&mut done, origin, *request, now);
        }
        steps.push(step);
    }
    steps
}

#[test]
fn copies_in_a_batch_are_done_once_unless_a_write_came_between() {
    let read = request(AtaCommand::Read { lba: 8 }, &[]);
    let (one, two) = (write(8, b"one"), write(9, b"two"));
    assert_eq!(steps(&[read, one, one]), [Step::Work, Step::Work, Step::Same(1)]);
    assert_eq!(
        steps(&[read, read, one, read]),
        [Step::Work, Step::Same(0), Step::Work, Step::Work]
    );
    assert_eq!(steps(&[one, two, one]), [Step::Work; 3], "the overlap has changed");
    assert_eq!(steps(&[one, write(8, b"eno")]), [Step::Work; 2], "other data");
    assert_eq!(steps(&[one, write(16, b"two"), one]), [Step::Work, Step::Work, Step::Same(0)]);
}

/// How bad the wire is, and how the machine counts.
#[derive(Clone, Copy, Debug)]
struct Wire {
    seed: u64,
    loss_percent: u64,
    copy_percent: u64,
    late_max_ms: u64,
    ticks_per_second: u64,
    /// Set in each tag: bit 31 makes them foreign.
    mark: u32,
    /// The tag of a first frame that is not of the machine's series.
    odd_first: Option<u32>,
}

#[derive(Clone, Debug)]
struct Frame {
    tag: u32,
    block: u64,
    /// What is written; `None` reads.
    value: Option<u32>,
}

/// What the machine waits for at a block.
struct Pending {
    frame: Frame,
    tags: Vec<u32>,
    send_at: u64,
    /// The newest value that was acknowledged when it began.
    known: u32,
}

/// An initiator like Linux's: one request a block at a time, sent again with a new tag.
struct Model {
    wire: Wire,
    now: u64,
    random: u64,
    counter: u32,
    on_the_way: BTreeMap<(u64, u64), Frame>,
    pending: HashMap<u64, Pending>,
    acknowledged: HashMap<u64, u32>,
    disk: HashMap<u64, u32>,
    order: Order,
}

const BLOCKS: [u64; 4] = [0, 2, 4, 1 << 20];
const RESEND_MS: u64 = 150;

impl Model {
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            now: 1,
            random: wire.seed | 1,
            counter: (wire.seed >> 16) as u32,
            on_the_way: BTreeMap::new(),
            pending: HashMap::new(),
            acknowledged: HashMap::new(),
            disk: HashMap::new(),
            order: Order::default(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn tag(&mut self) -> u32 {
        self.counter = self.counter.wrapping_add(1);
        let ticks = (self.wire.seed + self.now * self.wire.ticks_per_second / 1000) as u32;
        self.wire.mark | (self.counter & 0x7fff) << 16 | ticks & 0xffff
    }

    /// Sends the block's request, perhaps once more, over the wire.
    fn send(&mut self, block: u64) {
        let tag = self.tag();
        let Some(pending) = self.pending.get_mut(&block) else { return };
        pending.tags.push(tag);
        pending.send_at = self.now + RESEND_MS;
        let frame = Frame { tag, ..pending.frame.clone() };
        let copies = 1 + u64::from(self.random(100) < self.wire.copy_percent);
        for _ in 0..copies {
            if self.random(100) < self.wire.loss_percent {
                continue;
            }
            let is_late = self.random(4) == 0;
            let late = if is_late { self.random(self.wire.late_max_ms) } else { self.random(3) };
            let unique = self.random(u64::MAX);
            self.on_the_way.insert((self.now + late, unique), frame.clone());
        }
    }

    /// A millisecond; an error says what the machine saw.
    fn step(&mut self, next_value: &mut u32) -> Result<(), String> {
        self.now += 1;
        for block in BLOCKS {
            if self.pending.get(&block).is_some_and(|pending| pending.send_at <= self.now) {
                self.send(block);
            } else if !self.pending.contains_key(&block) && self.random(8) == 0 {
                let value = (self.random(3) > 0).then(|| {
                    *next_value += 1;
                    *next_value
                });
                let known = self.acknowledged.get(&block).copied().unwrap_or(0);
                let frame = Frame { tag: 0, block, value };
                self.pending.insert(block, Pending { frame, tags: vec![], send_at: 0, known });
                self.send(block);
            }
        }
        if self.random(5) == 0 { self.serve() } else { Ok(()) }
    }

    /// The server takes what has arrived, as a lane does.
    fn serve(&mut self) -> Result<(), String> {
        let later = self.on_the_way.split_off(&(self.now + 1, 0));
        let arrived = std::mem::replace(&mut self.on_the_way, later);
        let data: Vec<_> =
            arrived.values().map(|frame| frame.value.map(u32::to_be_bytes)).collect();
        let (mut done, mut answers) = (Done::default(), Vec::new());
        let now = Moment::from_millis(self.now);
        for (frame, data) in arrived.values().zip(&data) {
            let lba = frame.block;
            let request = match data {
                Some(data) => write(lba, data),
                None => request(AtaCommand::Read { lba }, &[]),
            };
            let origin = Origin { source: MACHINE, tag: frame.tag };
            let answer = match self.order.next(&done, origin, &request, now) {
                Step::Stale => continue,
                Step::Same(index) => answers[index],
                Step::Work => {
                    if let Some(value) = frame.value {
                        self.disk.insert(lba, value);
                    }
                    self.order.done(&mut done, origin, request, now);
                    answers.push(self.disk.get(&lba).copied().unwrap_or(0));
                    answers[answers.len() - 1]
                }
            };
            if self.random(100) >= self.wire.loss_percent {
                self.on_reply(frame, answer)?;
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, frame: &Frame, value: u32) -> Result<(), String> {
        let is_awaited = |pending: &Pending| pending.tags.contains(&frame.tag);
        if !self.pending.get(&frame.block).is_some_and(is_awaited) {
            return Ok(());
        }
        let Some(pending) = self.pending.remove(&frame.block) else { return Ok(()) };
        match pending.frame.value {
            Some(written) => {
                self.acknowledged.insert(frame.block, written);
            }
            None if value < pending.known => {
                return Err(format!("block {} has {value} after {}", frame.block, pending.known));
            }
            None => {}
        }
        Ok(())
    }
}

/// Half a minute of the machine's life.
fn live(wire: Wire) -> Result<(), String> {
    let mut model = Model::new(Wire { loss_percent: 0, copy_percent: 0, late_max_ms: 1, ..wire });
    let mut value = 0;
    if let Some(tag) = wire.odd_first {
        let read = request(AtaCommand::Read { lba: 0 }, &[]);
        let origin = Origin { source: MACHINE, tag };
        model.order.next(&Done::default(), origin, &read, Moment::from_millis(0));
    }
    // Attaching, on a quiet wire: identify, partition table, file system.
    for _ in 0..200 {
        model.step(&mut value)?;
    }
    model.wire = wire;
    for _ in 0..30_000 {
        model.step(&mut value)?;
    }
    assert!(value > 200, "only {value} writes");
    Ok(())
}

#[test]
fn the_model_finds_stale_writes_where_tags_say_nothing() {
    let found = (1..20).any(|seed: u64| {
        let mark = 0x8000_0000;
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (loss_percent, copy_percent, late_max_ms) = (10, 10, 1000);
        let wire = Wire {
            seed,
            loss_percent,
            copy_percent,
            late_max_ms,
            ticks_per_second: 250,
            mark,
            odd_first: None,
        };
        live(wire).is_err()
    });
    assert!(found);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_read_never_sees_older_data_than_was_acknowledged(
        seed: u64,
        loss_percent in 0u64..40,
        copy_percent in 0u64..40,
        late_max_ms in 1u64..5000,
        ticks_per_second in prop::sample::select(vec![100u64, 250, 300, 1000]),
        odd_first: Option<u32>,
    ) {
        let wire = Wire { seed, loss_percent, copy_percent, late_max_ms, ticks_per_second, mark: 0, odd_first };
        prop_assert_eq!(live(wire), Ok(()));
    }
}
