//! A machine that writes to its disk, reads what it has written, and gives signs of life.

use super::block::{BLOCK_BYTES, Random, Written};
use super::disk::{Disk, FIRST_BYTE};
use super::kept::Kept;
use crate::booted::{Booted, Named, load};
use anyhow::{Context, Result, ensure};
use fakeclient::aoe_disk::Mishaps;
use fakeclient::speaker::Speaker;
use lab::{Preboot, Site};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the servers may be away for a machine, in all: each of them a start, and a connection that gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Blocks that a machine uses.
pub(crate) const BLOCKS: usize = 64;

/// Half of all writes go to so few of them, so that what comes late meets what is newer.
const OFTEN: usize = 4;

/// A kernel flushes what was written over NBD now and then: after one of so many writes.
const FLUSHED_ONE_IN: usize = 8;

/// Between two blocks.
const PAUSE: Duration = Duration::from_millis(15);

/// A machine gives a sign of life each 20 s; ours more often.
const BEAT: Duration = Duration::from_secs(5);

/// What becomes of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Discard,
    Persistent,
    Ram,
}

/// How it attaches its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Nbd,
    /// At this shelf and slot.
    Aoe((u16, u8)),
}

/// One machine of the soak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) named: Named,
    /// Its place in the list.
    pub(crate) number: u64,
    pub(crate) mode: Mode,
    pub(crate) is_aoe: bool,
}

const fn who(number: u64, machine: &'static str, mac: &'static str, mode: Mode) -> Who {
    Who { named: Named { machine, mac }, number, mode, is_aoe: number > 3 }
}

/// All write modes over both protocols.
pub(crate) const MACHINES: [Who; 6] = [
    who(1, "nbd-discard", "52:54:00:00:00:01", Mode::Discard),
    who(2, "nbd-persistent", "52:54:00:00:00:02", Mode::Persistent),
    who(3, "nbd-ram", "52:54:00:00:00:03", Mode::Ram),
    who(4, "aoe-discard", "52:54:00:00:00:04", Mode::Discard),
    who(5, "aoe-persistent", "52:54:00:00:00:05", Mode::Persistent),
    who(6, "aoe-ram", "52:54:00:00:00:06", Mode::Ram),
];

impl Who {
    /// Arguments of `bootlace machine set`.
    pub(crate) fn set(self) -> Vec<&'static str> {
        let mode = match self.mode {
            Mode::Discard => "discard",
            Mode::Persistent => "persistent",
            Mode::Ram => "ram",
        };
        let root = if self.is_aoe { "aoe" } else { "nbd" };
        let Named { machine, mac } = self.named;
        let set = ["machine", "set", machine, "--mac", mac, "--image", "debian"];
        [&set[..], &["--write-mode", mode, "--root-kind", root]].concat()
    }
}

/// What was done, by all machines.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Writes that were acknowledged.
    pub(crate) writes: AtomicU64,
    /// Blocks that were read and compared.
    pub(crate) verified: AtomicU64,
    /// Flushes that were acknowledged, over NBD.
    pub(crate) flushes: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) answers_lost: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) late: AtomicU64,
}

impl Counts {
    fn add(&self, mishaps: Mishaps, connections: u32) {
        let Mishaps { lost, answers_lost, repeated, late } = mishaps;
        self.lost.fetch_add(lost, SeqCst);
        self.answers_lost.fetch_add(answers_lost, SeqCst);
        self.repeated.fetch_add(repeated, SeqCst);
        self.late.fetch_add(late, SeqCst);
        self.connections.fetch_add(connections.into(), SeqCst);
    }
}

/// What a machine is asked for while it runs.
#[derive(Debug, Default)]
struct Orders {
    is_over: AtomicBool,
    /// It loses its power then.
    is_cut: AtomicBool,
    resets: AtomicBool,
    /// Checks of the whole disk that are wanted, and those that were made.
    wanted: AtomicU64,
    made: AtomicU64,
}

/// What each block holds.
type Memory = Vec<Kept>;

/// A machine that runs.
pub(crate) struct Machine {
    pub(crate) who: Who,
    pub(crate) preboot: Arc<Preboot>,
    orders: Arc<Orders>,
    thread: JoinHandle<Result<Memory>>,
}

/// What machines share.
pub(crate) struct Ground<'a> {
    pub(crate) site: &'a Site,
    pub(crate) image: PathBuf,
    pub(crate) counts: Arc<Counts>,
}

impl Machine {
    /// Switches it on for the first time.
    pub(crate) fn start(ground: &Ground<'_>, who: Who, seed: u64) -> Result<Self> {
        Self::start_with(ground, who, seed, vec![Kept::default(); BLOCKS])
    }

    fn start_with(ground: &Ground<'_>, who: Who, seed: u64, memory: Memory) -> Result<Self> {
        let preboot = Arc::new(Preboot::start(ground.site, who.named.mac)?);
        let booted = load(&preboot, who.named)?;
        let orders = Arc::new(Orders::default());
        let mut speaker = preboot.client().netns().inside(|| booted.speaker())?;
        // Until then a disk over AoE may be somebody else's, who ran before.
        let began = Instant::now();
        while let Err(error) = speaker.report_up() {
            ensure!(began.elapsed() < PATIENCE, "{} is not heard: {error}", who.named.machine);
        }
        let root = if who.is_aoe { Root::Aoe(address(ground.site, who)?) } else { Root::Nbd };
        let thread = std::thread::spawn({
            let (preboot, orders) = (Arc::clone(&preboot), Arc::clone(&orders));
            let (image, counts) = (ground.image.clone(), Arc::clone(&ground.counts));
            move || {
                preboot.client().netns().inside(|| {
                    let disk = Disk::open(&booted, root, seed ^ booted.boot)?;
                    let image = File::open(image)?;
                    let mut work = Work { who, booted, disk, memory, image, counts };
                    let mut random = Random::new(seed ^ work.booted.boot);
                    let done = work.run(&orders, speaker, &mut random);
                    work.counts.add(work.disk.mishaps(), work.disk.n_connections());
                    done.map(|()| work.memory)
                })
            }
        });
        Ok(Self { who, preboot, orders, thread })
    }

    /// Ends it with a goodbye, and switches it on again.
    pub(crate) fn reboot(self, ground: &Ground<'_>, seed: u64) -> Result<Self> {
        let who = self.who;
        let memory = self.end()?;
        Self::start_again(ground, who, seed, memory)
    }

    /// Takes its power away, and switches it on again.
    pub(crate) fn lose_power(self, ground: &Ground<'_>, seed: u64) -> Result<Self> {
        self.orders.is_cut.store(true, SeqCst);
        self.reboot(ground, seed)
    }

    fn start_again(ground: &Ground<'_>, who: Who, seed: u64, mut memory: Memory) -> Result<Self> {
        if who.mode != Mode::Persistent {
            memory.fill(Kept::default());
        }
        Self::start_with(ground, who, seed, memory)
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<Memory> {
        self.orders.is_over.store(true, SeqCst);
        let done = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.with_context(|| self.who.named.machine.to_owned())
    }

    /// Its connection is reset.
    pub(crate) fn reset(&self) {
        self.orders.resets.store(true, SeqCst);
    }

    /// Asks it to check its whole disk.
    pub(crate) fn ask_for_check(&self) {
        self.orders.wanted.fetch_add(1, SeqCst);
    }

    /// Whether it has done so, or has found something wrong; then [`end`](Self::end) tells.
    pub(crate) fn has_checked(&self) -> bool {
        self.has_ended() || self.orders.made.load(SeqCst) == self.orders.wanted.load(SeqCst)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Work {
    who: Who,
    booted: Booted,
    disk: Disk,
    memory: Memory,
    image: File,
    counts: Arc<Counts>,
}

impl Work {
    fn run(&mut self, orders: &Orders, mut speaker: Speaker, random: &mut Random) -> Result<()> {
        let mut beat = Instant::now();
        self.check_all().context("after the boot")?;
        while !orders.is_over.load(SeqCst) {
            if orders.resets.swap(false, SeqCst) {
                self.disk.reset();
            }
            let wanted = orders.wanted.load(SeqCst);
            if wanted != orders.made.load(SeqCst) {
                self.check_all()?;
                orders.made.store(wanted, SeqCst);
            }
            let among = if random.below(2) == 0 { OFTEN } else { BLOCKS };
            let block = random.below(among);
            if self.who.mode != Mode::Ram {
                self.write(block)?;
                if random.below(FLUSHED_ONE_IN) == 0 {
                    self.flush()?;
                }
            }
            self.check(random.below(among))?;
            if beat.elapsed() > BEAT {
                beat = Instant::now();
                // The way to the server may be gone now.
                let _ = speaker.is_alive();
            }
            let _ = speaker.answer(PAUSE);
        }
        if orders.is_cut.load(SeqCst) {
            return self.lose_power(random.below(OFTEN));
        }
        self.check_all()?;
        self.flush()
    }

    fn write(&mut self, block: usize) -> Result<()> {
        let written = self.next(block);
        self.on_connection(|disk| disk.write(block, &written.bytes()))
            .with_context(|| format!("writing {written}"))?;
        self.memory[block].on_written(written);
        if self.who.is_aoe {
            self.memory[block].on_flushed();
        }
        self.counts.writes.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Makes last what is there.
    fn flush(&mut self) -> Result<()> {
        if self.who.is_aoe || self.who.mode == Mode::Ram {
            return Ok(());
        }
        loop {
            while let Some(block) = self.memory.iter().position(Kept::is_open) {
                self.check(block)?;
            }
            let before = self.disk.n_connections();
            self.on_connection(Disk::flush).context("flushing")?;
            // A new connection's flush is no promise for what an ended server had in hand.
            if before == self.disk.n_connections() {
                self.memory.iter_mut().for_each(Kept::on_flushed);
                self.counts.flushes.fetch_add(1, SeqCst);
                return Ok(());
            }
        }
    }

    fn lose_power(&mut self, block: usize) -> Result<()> {
        let written = self.next(block);
        self.memory.iter_mut().for_each(Kept::on_cut);
        if self.disk.lose_power(block, &written.bytes())? {
            self.memory[block].on_begun(written);
        }
        Ok(())
    }

    /// What is written next to a block.
    fn next(&mut self, block: usize) -> Written {
        let generation = self.memory[block].next_generation();
        let (machine, boot) = (self.who.number, self.booted.boot);
        Written { machine, block: block as u64, boot, generation }
    }

    /// Does something with the disk, and notes if its connection was lost meanwhile.
    fn on_connection<T>(&mut self, work: impl FnOnce(&mut Disk) -> Result<T>) -> Result<T> {
        let before = self.disk.n_connections();
        let done = work(&mut self.disk);
        if before != self.disk.n_connections() {
            self.memory.iter_mut().for_each(Kept::on_cut);
        }
        done
    }

    fn check(&mut self, block: usize) -> Result<()> {
        let found = self.on_connection(|disk| disk.read(block));
        let found = found.with_context(|| format!("reading block {block}"))?;
        let image = &self.image;
        let bytes = |written: Option<Written>| {
            if let Some(written) = written {
                return Ok(written.bytes());
            }
            let mut bytes = vec![0; BLOCK_BYTES];
            image.read_exact_at(&mut bytes, FIRST_BYTE + (block * BLOCK_BYTES) as u64)?;
            Ok(bytes)
        };
        let seen = self.memory[block].on_read(&found, bytes);
        seen.with_context(|| format!("boot {}: block {block}", self.booted.boot))?;
        self.counts.verified.fetch_add(1, SeqCst);
        Ok(())
    }

    fn check_all(&mut self) -> Result<()> {
        (0..BLOCKS).try_for_each(|block| self.check(block))
    }
}

/// Shelf and slot of its disk, as the storage server tells them.
fn address(site: &Site, who: Who) -> Result<(u16, u8)> {
    let mut stream = UnixStream::connect(site.root().join("run/bootlace/storage.sock"))?;
    stream.write_all(b"GET /v1/exports HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let exports: serde_json::Value = serde_json::from_str(body)?;
    let exports = exports.as_array().context("no list of exports")?;
    let spec = exports.iter().map(|export| &export["spec"]);
    let spec = spec.into_iter().find(|spec| spec["machine"] == who.named.machine);
    let address = spec.and_then(|spec| spec["shelf_slot"].as_str()).context("no export")?;
    let (shelf, slot) = address.split_once('.').context("no address")?;
    Ok((shelf.parse()?, slot.parse()?))
}
