//! Machines in software that write to their disks, and know what they wrote.

use crate::booted::Named;
use crate::soak::machine::{Counts, Ground, Machine, Mode, PATIENCE, Who};
use anyhow::{Context, Result, bail, ensure};
use lab::Site;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How many machines: a room.
const MACHINES: u8 = 20;

/// Whatever.
const SEED: u64 = 11;

/// All of them.
pub(super) struct Crowd {
    machines: Vec<Machine>,
    counts: Arc<Counts>,
}

impl Crowd {
    /// Switches them on, one after the other; `run` runs a command on the server.
    pub(super) fn start(
        site: &Site,
        image: &Path,
        run: impl Fn(&[&str]) -> Result<String>,
    ) -> Result<Self> {
        let counts = Arc::<Counts>::default();
        let ground = Ground { site, image: image.to_owned(), counts: Arc::clone(&counts) };
        let mut machines = Vec::new();
        for number in 1..=MACHINES {
            let who = who(number);
            run(&[&["bootlace"][..], &who.set()].concat())?;
            machines.push(Machine::start(&ground, who, SEED)?);
        }
        Ok(Self { machines, counts })
    }

    /// Has all of them compare their disks with what they wrote; how many there are.
    pub(super) fn check(&self) -> Result<usize> {
        self.machines.iter().for_each(Machine::ask_for_check);
        let deadline = Instant::now() + PATIENCE;
        while let Some(late) = self.machines.iter().find(|machine| !machine.has_checked()) {
            let name = late.who.named.machine;
            ensure!(Instant::now() < deadline, "{name} has not checked its disk in time");
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(ended) = self.machines.iter().find(|machine| machine.has_ended()) {
            bail!("{} has ended", ended.who.named.machine);
        }
        Ok(self.machines.len())
    }

    /// Ends them; what they did.
    pub(super) fn end(self) -> Result<String> {
        self.machines
            .into_iter()
            .try_for_each(|machine| machine.end().map(drop))
            .context("a machine")?;
        let count = |it: &std::sync::atomic::AtomicU64| it.load(SeqCst);
        Ok(format!(
            "{} writes acknowledged, {} blocks compared, {} connections",
            count(&self.counts.writes),
            count(&self.counts.verified),
            count(&self.counts.connections)
        ))
    }
}

/// Half of them keep their disks.
fn who(number: u8) -> Who {
    let mode = if number.is_multiple_of(2) { Mode::Persistent } else { Mode::Discard };
    // A few dozen bytes for the time of a run.
    let machine = format!("soft-{number}").leak();
    let mac = format!("52:54:00:00:01:{number:02x}").leak();
    Who { named: Named { machine, mac }, number: number.into(), mode, is_aoe: false }
}
