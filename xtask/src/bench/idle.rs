//! What the servers take while nothing happens, and how soon a PC is answered when they start.

use super::{median_figure, program};
use crate::booted::{Named, load};
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use fakeclient::room::Room;
use lab::{Daemon, Lan, Preboot, Recipe, Site};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// Machines that the server knows when it starts.
const KNOWN: u32 = 1000;

/// Addresses for all that are up, in place of the lab's hundred.
const POOL: &str = "10.77.0.10-10.77.0.250";

/// As many as boot at once.
const AT_ONCE: u32 = 4;

/// What a start leaves to do is done by then.
const SETTLED: Duration = Duration::from_secs(10);

/// A minute after the last boot the servers look less often.
const QUIET: Duration = Duration::from_secs(80);

/// A machine gives a sign of life so often.
const BEAT: Duration = Duration::from_secs(20);

/// Between two questions to a server that starts.
const PAUSE: Duration = Duration::from_millis(5);

/// Of `/proc/PID/stat`, on all that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Args)]
pub(crate) struct Idle {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// How many machines are up
    #[arg(long, default_value_t = 200)]
    machines: u32,
    /// For how long processor time is counted, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often the boot server is started
    #[arg(long, default_value_t = 5)]
    starts: u32,
}

impl Default for Idle {
    fn default() -> Self {
        Self { program: None, machines: 200, seconds: 60, starts: 5 }
    }
}

impl Idle {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let image = Recipe::BUSYBOX.image(say)?;
        let site = Site::builder().binary(&binary).pool(POOL).create(Lan::lay("idle")?)?;

        let servers = Servers { storage: site.storage()?, boot: site.serve()? };
        std::thread::sleep(SETTLED);
        println!("memory (VmRSS), MiB          boot server   storage server");
        servers.print_memory("just set up")?;

        let path = image.to_str().context("the image's path is no text")?;
        site.run(&["image", "import", path, "--name", "debian"])?;
        let add = |numbers: Range<u32>| -> Result<()> {
            for number in numbers {
                let set = ["machine", "set", name(number), "--mac", mac(number)];
                site.run(&[&set[..], &["--image", "debian"]].concat())?;
            }
            Ok(())
        };
        say(&format!("adding {} machines", self.machines));
        add(0..self.machines)?;
        self.measure_machines(&site, &servers)?;

        say(&format!("adding machines, {KNOWN} in all"));
        add(self.machines..KNOWN)?;
        let Servers { storage, boot } = servers;
        boot.stop()?;
        storage.stop()?;
        let storage = site.storage()?;
        let mut first = Vec::new();
        for _ in 1..self.starts.max(1) {
            let (boot, after) = start(&site)?;
            first.push(after);
            boot.stop()?;
        }
        let (boot, after) = start(&site)?;
        first.push(after);
        let servers = Servers { storage, boot };
        std::thread::sleep(SETTLED);
        servers.print_memory(&format!("{KNOWN} machines, all off"))?;
        let seconds = |it: &Duration| it.as_secs_f64();
        println!(
            "start to the first DHCP answer, {KNOWN} machines: {:.2} s (median of {}, longest {:.2} s)",
            median_figure(first.iter().map(seconds)),
            first.len(),
            first.iter().max().map_or(0.0, seconds),
        );
        servers.boot.stop()?;
        servers.storage.stop()
    }

    /// Has machines up, with their disks open, which do nothing but give signs of life.
    fn measure_machines(&self, site: &Site, servers: &Servers) -> Result<()> {
        say(&format!("booting {} machines in software", self.machines));
        let plug_in = |number| anyhow::Ok((number, Preboot::plug_in(site, mac(number))?));
        let pcs: Vec<(u32, Preboot)> = (0..self.machines).map(plug_in).collect::<Result<_>>()?;
        let (n_up, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let mut up: Vec<ScopedJoinHandle<'_, Result<()>>> = Vec::new();
            let mut begun = 0;
            let failed =
                |up: &[ScopedJoinHandle<'_, _>]| up.iter().any(ScopedJoinHandle::is_finished);
            while n_up.load(SeqCst) < self.machines && !failed(&up) {
                if begun < n_up.load(SeqCst) + AT_ONCE && begun < self.machines {
                    let ((number, pc), n_up, is_over) = (&pcs[begun as usize], &n_up, &is_over);
                    up.push(scope.spawn(move || live(*number, pc, n_up, is_over)));
                    begun += 1;
                } else {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let measured = match failed(&up) {
                true => Ok(()),
                false => servers.print_load(self.machines, Duration::from_secs(self.seconds)),
            };
            is_over.store(true, SeqCst);
            for machine in up {
                let ended = machine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                ended.context("a machine")?;
            }
            measured
        })
    }
}

/// A machine that is up until it is over.
fn live(number: u32, preboot: &Preboot, n_up: &AtomicU32, is_over: &AtomicBool) -> Result<()> {
    preboot.power_on()?;
    let booted = load(preboot, Named { machine: name(number), mac: mac(number) })?;
    preboot.client().netns().inside(|| {
        let mut speaker = booted.speaker()?;
        let mut disk = booted.disk()?;
        disk.read_start(4096)?;
        speaker.report_up()?;
        n_up.fetch_add(1, SeqCst);
        let mut last = Instant::now();
        while !is_over.load(SeqCst) {
            speaker.answer(Duration::from_secs(1))?;
            if last.elapsed() >= BEAT {
                speaker.is_alive()?;
                last = Instant::now();
            }
        }
        Ok(speaker.stops()?)
    })
}

/// Starts the boot server; how long it is from then to the first answer to a PC.
fn start(site: &Site) -> Result<(Daemon, Duration)> {
    let client = site.lan().add_client("early", mac(KNOWN - 1))?;
    let asked = || {
        let room = Room::open("eth0", vec![mac(KNOWN - 1).parse()?])?;
        Ok(room.first_answer(PAUSE)?)
    };
    let begin = Instant::now();
    let (served, answered) = std::thread::scope(|scope| {
        let answered = scope.spawn(|| client.netns().inside(asked));
        let served = site.serve();
        (served, answered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    Ok((served?, answered?.duration_since(begin)))
}

struct Servers {
    storage: Daemon,
    boot: Daemon,
}

impl Servers {
    fn print_memory(&self, when: &str) -> Result<()> {
        let mib = |server: &Daemon| anyhow::Ok(memory(server.id())? as f64 / 1024.0);
        println!("  {when:26} {:11.1} {:16.1}", mib(&self.boot)?, mib(&self.storage)?);
        Ok(())
    }

    /// Counts processor time for so long.
    fn print_load(&self, machines: u32, time: Duration) -> Result<()> {
        std::thread::sleep(QUIET);
        let used = || anyhow::Ok([busy(self.boot.id())?, busy(self.storage.id())?]);
        let before = used()?;
        std::thread::sleep(time);
        let after = used()?;
        self.print_memory(&format!("{machines} machines up"))?;
        let percent = |index: usize| (after[index] - before[index]) / time.as_secs_f64() * 100.0;
        println!("processor time, % of one core, for {} s", time.as_secs());
        let up = format!("{machines} machines up");
        println!("  {up:26} {:11.2} {:16.2}", percent(0), percent(1));
        Ok(())
    }
}

/// KiB in memory.
fn memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.parse()?)
}

/// Seconds of processor time that a process has used.
fn busy(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // Its name comes before, in brackets; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks: Vec<f64> =
        fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

fn name(number: u32) -> &'static str {
    format!("pc-{number}").leak()
}

fn mac(number: u32) -> &'static str {
    format!("52:54:00:01:{:02x}:{:02x}", number >> 8, number & 0xff).leak()
}
