//! A machine that runs: it writes to its disk, gives signs of life, and answers questions.

use crate::booted::{Booted, Named, load};
use anyhow::{Context, Result, ensure};
use fakeclient::machine_disk::MachineDisk;
use fakeclient::speaker::Speaker;
use lab::{Preboot, Site};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of each write, which then must be on the disk.
const BLOCK_BYTES: usize = 4096;

/// Between two writes it hears questions.
const PAUSE: Duration = Duration::from_millis(100);

/// A machine gives a sign of life each 20 s; ours more often, since an attack is short.
const BEAT: Duration = Duration::from_secs(5);

/// The machine, until it is asked to [end](Working::end).
pub(super) struct Working {
    pub(super) booted: Booted,
    pub(super) address: Ipv4Addr,
    /// What somebody has heard who listened when it started: the name of its disk, and what it said.
    pub(super) heard: (String, Vec<String>),
    pub(super) preboot: Preboot,
    is_over: Arc<AtomicBool>,
    work: JoinHandle<Result<Duration>>,
}

impl Working {
    /// Boots it.
    pub(super) fn start(site: &Site, named: Named) -> Result<Self> {
        let preboot = Preboot::start(site, named.mac)?;
        let booted = load(&preboot, named)?;
        let (disk, speaker) = preboot.client().netns().inside(|| {
            let disk = booted.disk()?;
            let mut speaker = booted.speaker()?;
            speaker.report_up()?;
            speaker.is_alive()?;
            speaker.answer(Duration::from_millis(500))?;
            Ok((disk, speaker))
        })?;
        let heard = (disk.name().to_owned(), speaker.said().to_vec());
        let answer = site.browser().json(&format!("/api/v1/machines/{}", named.machine))?;
        let address = answer["lease"]["address"].as_str().or(answer["address"].as_str());
        let address = address.with_context(|| format!("no address: {answer}"))?.parse()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let work = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            // Its sockets stay in the machine's namespace.
            move || work(disk, speaker, &is_over)
        });
        Ok(Self { booted, address, heard, preboot, is_over, work })
    }

    /// Ends its work and compares the disk with what was written. Returns how long a write took at most until it was on the
    /// disk.
    pub(super) fn end(self) -> Result<Duration> {
        self.is_over.store(true, Ordering::Relaxed);
        let longest = self.work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        longest.with_context(|| format!("the work of {}, which runs", self.booted.machine))
    }
}

fn work(mut disk: MachineDisk, mut speaker: Speaker, is_over: &AtomicBool) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut count = 0;
    let mut beat = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        disk.write(count * BLOCK_BYTES as u64, &block(count))?;
        longest = longest.max(began.elapsed());
        count += 1;
        if beat.elapsed() > BEAT {
            beat = Instant::now();
            speaker.is_alive()?;
        }
        speaker.answer(PAUSE)?;
    }
    for index in 0..count {
        let found = disk.read(index * BLOCK_BYTES as u64, BLOCK_BYTES as u32)?;
        ensure!(found == block(index), "block {index} of {count} has other contents");
    }
    Ok(longest)
}

fn block(index: u64) -> Vec<u8> {
    let word = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    word.iter().copied().cycle().take(BLOCK_BYTES).collect()
}
