//! How fast the AoE server is, and what it costs, beside vblade. (Debian has no other.)

use super::processes::cpu_seconds;
use super::{median_figure, program};
use crate::{build, say};
use anyhow::{Context, Result};
use clap::Args;
use fakeclient::aoe_load::{Load, Report};
use lab::{Daemon, Netns};
use nix::fcntl::PosixFadviseAdvice;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const IMAGE_MIB: u64 = 256;
const SERVER: &str = "server0";
const CLIENT: &str = "client0";

/// What vblade gets to keep to, as we advertise it.
const BUFFERS: &str = "128";

/// A figure, and which share of vblade's we want to have at least or at most.
#[derive(Clone, Copy)]
enum Goal {
    /// Processor time of a frame.
    Cpu(f64),
    /// Half of the frames are answered in this time.
    Median(f64),
    /// Frames in a second.
    Rate(f64),
    /// No frame is lost, and 99 of 100 are answered in 20 ms.
    NothingLost,
}

/// A load.
struct Case {
    title: &'static str,
    mtu: u32,
    sectors: u8,
    frames_per_request: u64,
    window: usize,
    machines: u16,
    writes: bool,
    /// On a disk, with what is acknowledged written to it; otherwise in memory.
    is_durable: bool,
    /// Nothing of the disk is in the server's memory at first. Keep it short, or all of it will be.
    is_cold: bool,
    goal: Goal,
}

const READS: Case = Case {
    title: "4 KiB reads, 64 frames in flight, MTU 1500",
    mtu: 1500,
    sectors: 2,
    frames_per_request: 4,
    window: 64,
    machines: 1,
    writes: false,
    is_durable: false,
    is_cold: false,
    goal: Goal::Cpu(0.74),
};

const CASES: &[Case] = &[
    READS,
    Case {
        title: "512 B reads, 16 frames in flight, MTU 1500",
        sectors: 1,
        frames_per_request: 1,
        window: 16,
        goal: Goal::Median(0.9),
        ..READS
    },
    Case {
        title: "8 KiB reads, 64 frames in flight, MTU 9000",
        mtu: 9000,
        sectors: 16,
        frames_per_request: 1,
        goal: Goal::Cpu(0.69),
        ..READS
    },
    Case {
        title: "8 KiB writes, 64 frames in flight, MTU 9000",
        mtu: 9000,
        sectors: 16,
        frames_per_request: 1,
        writes: true,
        goal: Goal::Cpu(0.69),
        ..READS
    },
    Case {
        title: "durable 4 KiB writes, 64 in flight, MTU 9000",
        mtu: 9000,
        sectors: 8,
        frames_per_request: 1,
        writes: true,
        is_durable: true,
        goal: Goal::Rate(20.0),
        ..READS
    },
    Case {
        title: "cold 4 KiB reads, 64 in flight, MTU 9000",
        mtu: 9000,
        sectors: 8,
        frames_per_request: 1,
        is_durable: true,
        is_cold: true,
        goal: Goal::Rate(2.0),
        ..READS
    },
    Case {
        title: "30 machines, 8 KiB writes, 16 frames in flight each, MTU 1500",
        frames_per_request: 8,
        window: 16,
        machines: 30,
        writes: true,
        goal: Goal::NothingLost,
        ..READS
    },
];

#[derive(Args)]
pub(crate) struct Aoe {
    /// Rounds; each server has its turn in each, and the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each load lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only loads whose title contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Measure this program, such as one of an earlier version, and build none
    #[arg(long, value_name = "PATH")]
    bootlace: Option<PathBuf>,
}

impl Default for Aoe {
    fn default() -> Self {
        Self { rounds: 3, seconds: 3, only: String::new(), bootlace: None }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Bootlace,
    Vblade,
}

/// What one run gave.
#[derive(Clone, Copy, Default)]
struct Figures {
    frames_per_second: f64,
    megabytes_per_second: f64,
    median_us: f64,
    slow_us: f64,
    cpu_us: f64,
    resent: f64,
}

impl Aoe {
    pub(crate) fn run(&self) -> Result<()> {
        let bootlace = program(self.bootlace.as_deref())?;
        let memory = image(Path::new("/dev/shm"))?;
        let disk = image(&build::target())?;
        println!(
            "share of vblade in brackets; processor time is the server's alone; 1 % of frames took \
             longer than \"slow\""
        );
        for case in CASES.iter().filter(|case| case.title.contains(&self.only)) {
            let folder = if case.is_durable { &disk } else { &memory };
            self.measure(&bootlace, case, &folder.path().join("disk"))?;
        }
        Ok(())
    }

    fn measure(&self, bootlace: &Path, case: &Case, image: &Path) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds.max(1) {
            say(&format!("{}: round {round} of {}", case.title, self.rounds));
            for (kind, runs) in [(Kind::Bootlace, &mut ours), (Kind::Vblade, &mut theirs)] {
                runs.push(self.load(bootlace, case, kind, image)?);
            }
        }
        let (ours, vblade) = (median_of(&ours), median_of(&theirs));
        println!("\n{} ({})", case.title, verdict(case.goal, &ours, &vblade));
        println!(
            "  {:9} {:>18} {:>6} {:>17} {:>9} {:>18} {:>6}",
            "", "frames/s", "MB/s", "median", "slow", "CPU a frame", "lost"
        );
        for (name, it) in [("bootlace", ours), ("vblade", vblade)] {
            println!(
                "  {name:9} {:>9.0} ({:>6.2}) {:>6.0} {:>6.0} us ({:>4.2}) {:>6.0} us {:>7.2} us \
                 ({:>4.2}) {:>6.0}",
                it.frames_per_second,
                it.frames_per_second / vblade.frames_per_second,
                it.megabytes_per_second,
                it.median_us,
                it.median_us / vblade.median_us,
                it.slow_us,
                it.cpu_us,
                it.cpu_us / vblade.cpu_us,
                it.resent,
            );
        }
        Ok(())
    }

    fn load(&self, bootlace: &Path, case: &Case, kind: Kind, image: &Path) -> Result<Figures> {
        let netns = Netns::create("aoe")?;
        let mtu = case.mtu;
        netns.ip(&format!("link add {SERVER} mtu {mtu} type veth peer name {CLIENT} mtu {mtu}"))?;
        netns.ip(&format!("link set {SERVER} up"))?;
        netns.ip(&format!("link set {CLIENT} up"))?;
        let folder = tempfile::tempdir()?;
        let mut command = match kind {
            Kind::Bootlace => netns.command(bootlace, Signal::SIGKILL),
            Kind::Vblade => netns.command("vblade", Signal::SIGKILL),
        };
        match kind {
            Kind::Bootlace => {
                command.arg("share").arg(image).args(["--aoe", &format!("{SERVER}:1.0")]);
            }
            Kind::Vblade => {
                command.args(["-b", BUFFERS]);
                command.args(case.is_durable.then_some("-s"));
                command.args(["1", "0", SERVER]).arg(image);
            }
        }
        let log = folder.path().join("log");
        let daemon = Daemon::start_detached("the AoE server", &mut command, &log)?;
        let load = Load {
            interface: CLIENT.into(),
            shelf: 1,
            slot: 0,
            initiators: case.machines,
            window: case.window,
            sectors: case.sectors,
            frames_per_request: case.frames_per_request,
            is_random: true,
            writes_percent: if case.writes { 100 } else { 0 },
            size_bytes: IMAGE_MIB << 20,
            verify: false,
            resend_after: Duration::from_millis(if case.is_durable { 2000 } else { 500 }),
            duration: Duration::from_secs(self.seconds),
        };
        if case.is_cold {
            let file = File::open(image)?;
            file.sync_all()?;
            nix::fcntl::posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        let before = cpu_seconds(daemon.id());
        let report = run_inside(&netns, &load)
            .with_context(|| format!("the AoE server said: {}", daemon.log()))?;
        Ok(figures(&report, cpu_seconds(daemon.id()) - before))
    }
}

/// Runs the load in a thread of that network namespace.
fn run_inside(netns: &Netns, load: &Load) -> Result<Report> {
    let path = PathBuf::from("/run/netns").join(netns.name());
    let inside = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<Report> {
            setns(File::open(&path)?, CloneFlags::CLONE_NEWNET)?;
            Ok(fakeclient::aoe_load::run(load)?)
        });
        thread.join()
    });
    inside.map_err(|_| anyhow::anyhow!("the load panicked"))?
}

fn figures(report: &Report, cpu_seconds: f64) -> Figures {
    let us = |share| report.times.quantile(share).as_secs_f64() * 1e6;
    Figures {
        frames_per_second: report.frames_per_second(),
        megabytes_per_second: report.bytes as f64 / report.elapsed.as_secs_f64() / 1e6,
        median_us: us(0.5),
        slow_us: us(0.99),
        cpu_us: cpu_seconds * 1e6 / report.frames.max(1) as f64,
        resent: report.resent as f64,
    }
}

/// Each figure's median by itself.
fn median_of(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median_figure(runs.iter().map(figure));
    Figures {
        frames_per_second: of(|run| run.frames_per_second),
        megabytes_per_second: of(|run| run.megabytes_per_second),
        median_us: of(|run| run.median_us),
        slow_us: of(|run| run.slow_us),
        cpu_us: of(|run| run.cpu_us),
        resent: of(|run| run.resent),
    }
}

fn verdict(goal: Goal, ours: &Figures, vblade: &Figures) -> String {
    let (wanted, is_met) = match goal {
        Goal::Cpu(most) => {
            (format!("at most {most:.2} of its CPU"), ours.cpu_us <= vblade.cpu_us * most)
        }
        Goal::Median(most) => {
            (format!("at most {most:.2} of its median"), ours.median_us <= vblade.median_us * most)
        }
        Goal::Rate(least) => (
            format!("at least {least:.0} times its rate"),
            ours.frames_per_second >= vblade.frames_per_second * least,
        ),
        Goal::NothingLost => (
            "no frame lost, slow ones below 20 ms".to_owned(),
            ours.resent < 1.0 && ours.slow_us < 20_000.0,
        ),
    };
    format!("wanted: {wanted}: {}", if is_met { "met" } else { "not met" })
}

/// A folder with a disk full of data.
fn image(parent: &Path) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir_in(parent)
        .with_context(|| format!("can't write in {}", parent.display()))?;
    let mut file = File::create(folder.path().join("disk"))?;
    let mebibyte: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    for _ in 0..IMAGE_MIB {
        file.write_all(&mebibyte)?;
    }
    file.sync_all()?;
    Ok(folder)
}
