//! Both servers in trouble, at random, under machines that write; whatever was acknowledged must still be there.
//!
//! The seed decides which events come in which order, and which frames are lost. When they come depends on the processor.

mod block;
mod checks;
mod damage;
mod disk;
mod event;
mod kept;
pub(crate) mod machine;
mod servers;

use crate::interrupt::Interrupt;
use crate::{build, say};
use anyhow::{Context, Result, anyhow, bail, ensure};
use block::Random;
use checks::Records;
use clap::Args;
use damage::Damage;
use event::Event;
use kept::Differs;
use lab::{Lan, Recipe, Site, SmallDisk, run, text_of};
use machine::{BLOCKS, Counts, Ground, MACHINES, Machine, PATIENCE};
use nix::sys::signal::Signal;
use rusqlite::Connection;
use servers::Servers;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Room for database and layers.
const DISK_SIZE: &str = "256m";

/// How long something lasts that is not a moment: this, or up to three times of it.
const LASTS_MS: usize = 1500;

/// With this event a disk is damaged, if that is asked for; whose.
const DAMAGED_WITH: usize = 5;
const DAMAGED: &str = "nbd-persistent";

#[derive(Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Which events come; a new number without it, which is told
    #[arg(long)]
    seed: Option<u64>,
    /// Try the soak itself: damage what a machine was told is written, which must be found
    #[arg(long, value_name = "HOW")]
    damage: Option<Damage>,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        let interrupt = Interrupt::listen()?;
        crate::setup()?;
        let binary = build::run()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let seed = self.seed.unwrap_or(now.as_secs());
        say(&format!("seed {seed}"));
        let image = Recipe::BUSYBOX.image(say)?;
        let lan = Lan::lay("soak")?;
        let site = Site::builder().boot("fitted_initrds = false").binary(&binary).create(lan)?;
        let disk = SmallDisk::mount(&site.root().join("var/lib/bootlace"), DISK_SIZE)?;
        disk.lies_outside("images", &site.root().join("images"))?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for who in MACHINES {
            site.run(&who.set())?;
        }
        let ground = Ground { site: &site, image, counts: Arc::default() };
        let mut records = Records::begin(&site)?;
        let mut random = Random::new(seed);
        let (mut count, mut event) = (0, None);
        let mut events = BTreeMap::new();
        let began = Instant::now();
        let time = Duration::from_secs(60 * self.minutes);
        let mut servers = Servers::start(&site)?;
        let context = |count: usize, event: Option<Event>| {
            let event = event.map_or("start", Event::name);
            format!("seed {seed}, event {count} ({event})")
        };
        let mut machines = Vec::new();
        let mut soak = || -> Result<()> {
            for who in MACHINES {
                machines.push(Machine::start(&ground, who, seed)?);
            }
            records.learn(&site, &machines)?;
            while began.elapsed() < time && !interrupt.has_come() {
                let next = Event::ALL[random.below(Event::ALL.len())];
                (count, event) = (count + 1, Some(next));
                *events.entry(next).or_insert(0) += 1;
                let scene = Scene { ground: &ground, disk: &disk, seed };
                scene.let_happen(next, &mut servers, &mut machines, &mut records, &mut random)?;
                if let Some(damage) = self.damage.filter(|_| count == DAMAGED_WITH) {
                    let layer = site.root().join("var/lib/bootlace/layers").join(DAMAGED);
                    damage.happen(&layer.join("data"), BLOCKS)?;
                }
                check(&mut servers, &mut machines, &mut records, &site)?;
                let seconds = began.elapsed().as_secs();
                let (writes, verified) = done(&ground.counts);
                say(&format!(
                    "{seconds:4} s  event {count}: {} ({}); {writes} writes, {verified} verified",
                    next.name(),
                    servers.arrangement()
                ));
            }
            machines.drain(..).try_for_each(|machine| machine.end().map(drop))
        };
        let outcome = soak().with_context(|| context(count, event));
        if outcome.is_err() {
            eprintln!("{}", servers.logs());
        }
        // Those that still run end before the servers do.
        drop(machines.into_iter().map(Machine::end).collect::<Vec<_>>());
        let most = servers.most;
        if self.damage.is_some() {
            return found_damage(outcome, count);
        }
        outcome?;
        servers.stop().with_context(|| context(count, event))?;
        drop(disk);
        report(seed, began.elapsed(), &events, &ground.counts, most);
        Ok(())
    }
}

/// Where events happen.
struct Scene<'a> {
    ground: &'a Ground<'a>,
    disk: &'a SmallDisk,
    seed: u64,
}

impl Scene<'_> {
    fn let_happen(
        &self,
        event: Event,
        servers: &mut Servers<'_>,
        machines: &mut Vec<Machine>,
        records: &mut Records,
        random: &mut Random,
    ) -> Result<()> {
        let site = self.ground.site;
        let lasts = Duration::from_millis((LASTS_MS * (1 + random.below(3))) as u64);
        // Not always at the same point of what machines do.
        std::thread::sleep(Duration::from_millis(random.below(700) as u64));
        match event {
            Event::KillBoot => {
                records.add_machine(site)?;
                servers.end_boot(Signal::SIGKILL)
            }
            Event::StopBoot => servers.end_boot(Signal::SIGTERM),
            Event::KillStorage => servers.end_storage(Signal::SIGKILL),
            Event::StopStorage => servers.end_storage(Signal::SIGTERM),
            Event::KillBoth => servers.end_both(Signal::SIGKILL, || Ok(())),
            Event::Rearrange => servers.rearrange(),
            Event::ResetClients => {
                machines.iter().for_each(Machine::reset);
                Ok(())
            }
            Event::LinkDown => {
                site.lan().netns().ip("link set br0 down")?;
                std::thread::sleep(lasts);
                site.lan().netns().ip("link set br0 up")
            }
            Event::BridgeMadeAgain => {
                site.lan().make_bridge_again(|| {
                    std::thread::sleep(lasts);
                    Ok(())
                })?;
                plug_in_again(site)
            }
            Event::DiskFull => {
                self.disk.fill()?;
                std::thread::sleep(lasts);
                records.check_leases().context("while the disk is full")?;
                Ok(std::fs::remove_file(self.disk.filler())?)
            }
            Event::DiskFullKillBoth => {
                self.disk.fill()?;
                servers.end_both(Signal::SIGKILL, || self.disk.fill())?;
                records.check_leases().context("while the disk is full")?;
                Ok(std::fs::remove_file(self.disk.filler())?)
            }
            Event::DatabaseLocked => {
                let database = site.root().join("var/lib/bootlace/state.db");
                let other = Connection::open(database)?;
                other.execute_batch("BEGIN IMMEDIATE")?;
                records.check_leases().context("while the database is locked")?;
                std::thread::sleep(lasts);
                Ok(other.execute_batch("ROLLBACK")?)
            }
            Event::Reboot => {
                let machine = machines.remove(random.below(machines.len()));
                machines.push(machine.reboot(self.ground, self.seed)?);
                Ok(())
            }
            Event::PowerCut => {
                let machine = machines.remove(random.below(machines.len()));
                machines.push(machine.lose_power(self.ground, self.seed)?);
                Ok(())
            }
        }
    }
}

/// A soak whose disk was damaged has to end there, by what the machine read.
fn found_damage(outcome: Result<()>, count: usize) -> Result<()> {
    match outcome {
        Err(error) if count == DAMAGED_WITH && error.chain().any(|it| it.is::<Differs>()) => {
            println!("the damage was found: {error:#}");
            Ok(())
        }
        Err(error) => Err(error.context("not the damage")),
        Ok(()) => {
            bail!("{DAMAGED}'s disk was damaged with event {DAMAGED_WITH}, and nobody saw it")
        }
    }
}

/// A new bridge has no ports.
fn plug_in_again(site: &Site) -> Result<()> {
    let netns = site.lan().netns();
    let mut list = Command::new("ip");
    list.args(["-n", netns.name(), "-o", "link", "show", "type", "veth"]);
    let listed = text_of(&mut list)?;
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    names.filter(|name| name.starts_with("veth")).try_for_each(|name| {
        run(Command::new("ip").args(["-n", netns.name(), "link", "set", name, "master", "br0"]))
    })
}

/// Everything that must hold after an event.
fn check(
    servers: &mut Servers<'_>,
    machines: &mut Vec<Machine>,
    records: &mut Records,
    site: &Site,
) -> Result<()> {
    machines.iter().for_each(Machine::ask_for_check);
    let deadline = Instant::now() + 2 * PATIENCE;
    while !machines.iter().all(Machine::has_checked) {
        let late = || machines.iter().find(|machine| !machine.has_checked());
        let late = late().map_or("", |machine| machine.who.named.machine);
        ensure!(Instant::now() < deadline, "{late} has not checked its disk in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Some(index) = machines.iter().position(Machine::has_ended) {
        let machine = machines.remove(index);
        let name = machine.who.named.machine;
        return Err(machine.end().err().unwrap_or_else(|| anyhow!("{name} has ended")));
    }
    servers.check()?;
    records.check(site, machines)
}

fn done(counts: &Counts) -> (u64, u64) {
    (counts.writes.load(SeqCst), counts.verified.load(SeqCst))
}

fn report(
    seed: u64,
    time: Duration,
    events: &BTreeMap<Event, u64>,
    counts: &Counts,
    most: [(u64, usize); 2],
) {
    println!("| event | times |\n|---|---|");
    for (event, times) in events {
        println!("| {} | {times} |", event.name());
    }
    let (writes, verified) = done(counts);
    let all = [&counts.lost, &counts.answers_lost, &counts.repeated, &counts.late, &counts.flushes];
    let [lost, answers_lost, repeated, late, flushes] = all.map(|count| count.load(SeqCst));
    let [(boot_bytes, boot_files), (storage_bytes, storage_files)] = most;
    println!(
        "\nseed {seed}, {} events in {} s: {writes} writes and {flushes} flushes acknowledged, {verified} blocks verified, {} NBD \
         connections, AoE frames lost {lost}, answers lost {answers_lost}, repeated {repeated}, late {late}; at most {} MiB and {boot_files} descriptors of the boot \
         server, {} MiB and {storage_files} of the storage server; faults: 0",
        events.values().sum::<u64>(),
        time.as_secs(),
        counts.connections.load(SeqCst),
        boot_bytes >> 20,
        storage_bytes >> 20,
    );
}
