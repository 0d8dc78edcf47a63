//! How fast the NBD server is, and what it costs, beside what else there is.

mod crowd;
mod servers;

use super::{median_figure, program};
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::Signal;
use servers::{Ground, Kind, Server};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const IMAGE_MIB: usize = 512;

/// A load. The names follow fio.
#[derive(Clone, Copy)]
struct Case {
    title: &'static str,
    over_unix: bool,
    rw: &'static str,
    block: &'static str,
    depth: u32,
    connections: u32,
    /// What we want of bootlace, as shares of nbdkit's: at least so many operations a second, at most
    /// so much processor time.
    wanted: (f64, f64),
}

const fn case(
    title: &'static str,
    (rw, block, depth, connections): (&'static str, &'static str, u32, u32),
    wanted: (f64, f64),
) -> Case {
    Case { title, over_unix: false, rw, block, depth, connections, wanted }
}

const fn over_unix(case: Case) -> Case {
    Case { over_unix: true, ..case }
}

const CASES: &[Case] = &[
    case("4 KiB reads, depth 1", ("randread", "4k", 1, 1), (1.67, 0.6)),
    case("4 KiB reads, depth 32", ("randread", "4k", 32, 1), (1.0, 0.5)),
    case("4 KiB reads, depth 32, 4 connections", ("randread", "4k", 32, 4), (1.6, 0.4)),
    case("4 KiB writes, depth 32, 4 connections", ("randwrite", "4k", 32, 4), (1.0, 0.5)),
    case("128 KiB reads, depth 8", ("read", "128k", 8, 1), (1.0, 0.8)),
    case("128 KiB reads, depth 8, 4 connections", ("read", "128k", 8, 4), (1.0, 0.8)),
    case("128 KiB writes, depth 8", ("write", "128k", 8, 1), (1.0, 0.8)),
    over_unix(case("Unix socket, 128 KiB reads, depth 8", ("read", "128k", 8, 1), (1.6, 0.4))),
    over_unix(case("Unix socket, 1 MiB reads, depth 4", ("read", "1m", 4, 1), (1.6, 0.4))),
];

#[derive(Args)]
pub(crate) struct Nbd {
    /// Rounds; each server has its turn in each, and the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each load lasts
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only loads whose title contains this; "crowd" is many clients at once
    #[arg(long, default_value = "")]
    only: String,
    /// Measure this program, such as one of an earlier version, and build none
    #[arg(long, value_name = "PATH")]
    bootlace: Option<PathBuf>,
}

impl Default for Nbd {
    fn default() -> Self {
        Self { rounds: 3, seconds: 5, only: String::new(), bootlace: None }
    }
}

/// What one run gave.
#[derive(Clone, Copy, Default)]
struct Figures {
    per_second: f64,
    megabytes_per_second: f64,
    latency_us: f64,
    cpu_us: f64,
}

impl Nbd {
    pub(crate) fn run(&self) -> Result<()> {
        let bootlace = program(self.bootlace.as_deref())?;
        let folder = tempfile::tempdir()?;
        let (image, _kept) = image()?;
        let ground = Ground {
            netns: lab::Netns::create("nbd")?,
            folder: folder.path().to_owned(),
            image,
            bootlace,
        };
        println!("share of nbdkit in brackets; processor time is the server's alone");
        for case in CASES.iter().filter(|case| case.title.contains(&self.only)) {
            self.measure(&ground, case)?;
        }
        if "crowd".contains(&self.only) {
            crowd::measure(&ground, self.seconds)?;
        }
        Ok(())
    }

    fn measure(&self, ground: &Ground, case: &Case) -> Result<()> {
        let mut runs: [Vec<Figures>; 4] = Default::default();
        for round in 1..=self.rounds.max(1) {
            say(&format!("{}: round {round} of {}", case.title, self.rounds));
            for (kind, runs) in Kind::ALL.into_iter().zip(&mut runs) {
                runs.push(self.load(ground, case, kind)?);
            }
        }
        let medians = runs.map(|runs| median_of(&runs));
        let nbdkit = medians[1];
        let (faster, cheaper) = case.wanted;
        println!("\n{} (wanted: {faster:.2} and {cheaper:.2})", case.title);
        println!("  {:12} {:>16} {:>8} {:>9} {:>17}", "", "op/s", "MB/s", "latency", "CPU a op");
        for (kind, it) in Kind::ALL.into_iter().zip(medians) {
            println!(
                "  {:12} {:>8.0} ({:>5.2}) {:>8.0} {:>6.0} us {:>6.1} us ({:>5.2})",
                kind.name(),
                it.per_second,
                it.per_second / nbdkit.per_second,
                it.megabytes_per_second,
                it.latency_us,
                it.cpu_us,
                it.cpu_us / nbdkit.cpu_us,
            );
        }
        Ok(())
    }

    fn load(&self, ground: &Ground, case: &Case, kind: Kind) -> Result<Figures> {
        let server = Server::start(ground, kind, case.over_unix)?;
        let before = server.cpu_seconds();
        let load = (case.rw, case.block, case.depth);
        let mut fio = fio(ground, &server, &["fio"], load, case.connections);
        fio.arg(format!("--runtime={}", self.seconds));
        let said = lab::text_of(&mut fio)?;
        // A process for each connection ends a moment later.
        std::thread::sleep(Duration::from_millis(200));
        let cpu_seconds = server.cpu_seconds() - before;
        figures(&said, cpu_seconds)
    }
}

/// fio, started by `program`, as so many clients with a load of this kind, block and depth.
fn fio(
    ground: &Ground,
    server: &Server,
    program: &[&str],
    (rw, block, depth): (&str, &str, u32),
    n_clients: u32,
) -> Command {
    let mut fio = ground.netns.command(program[0], Signal::SIGKILL);
    fio.args(&program[1..]).args(["--name=load", "--ioengine=nbd", "--time_based"]);
    fio.args(["--group_reporting", "--output-format=json", "--thread"]);
    fio.args(["--randrepeat=0", "--norandommap"]);
    fio.arg(format!("--uri={}", server.uri)).arg(format!("--size={IMAGE_MIB}m"));
    fio.arg(format!("--rw={rw}")).arg(format!("--bs={block}"));
    fio.arg(format!("--iodepth={depth}")).arg(format!("--numjobs={n_clients}"));
    fio
}

/// What fio says of all clients together.
fn job(said: &str) -> Result<serde_json::Value> {
    // Warnings may precede it.
    let json = said.find('{').map_or("", |at| &said[at..]);
    let mut report: serde_json::Value =
        serde_json::from_str(json).with_context(|| format!("fio said: {said}"))?;
    let job = report.pointer_mut("/jobs/0").with_context(|| format!("fio said: {said}"))?;
    Ok(job.take())
}

fn figures(said: &str, cpu_seconds: f64) -> Result<Figures> {
    let job = job(said)?;
    let mut figures = Figures::default();
    let mut count = 0.0;
    for direction in ["read", "write"] {
        let of =
            |pointer: &str| job[direction].pointer(pointer).and_then(serde_json::Value::as_f64);
        let total = of("/total_ios").unwrap_or_default();
        if total > 0.0 {
            count += total;
            figures.per_second += of("/iops").unwrap_or_default();
            figures.megabytes_per_second += of("/bw_bytes").unwrap_or_default() / 1e6;
            figures.latency_us = of("/clat_ns/mean").unwrap_or_default() / 1e3;
        }
    }
    anyhow::ensure!(count > 0.0, "fio did nothing: {said}");
    figures.cpu_us = cpu_seconds * 1e6 / count;
    Ok(figures)
}

/// Each figure's median by itself.
fn median_of(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median_figure(runs.iter().map(figure));
    Figures {
        per_second: of(|run| run.per_second),
        megabytes_per_second: of(|run| run.megabytes_per_second),
        latency_us: of(|run| run.latency_us),
        cpu_us: of(|run| run.cpu_us),
    }
}

/// A file full of data in memory, so that no disk is measured; it is removed with the second value.
fn image() -> Result<(PathBuf, tempfile::TempDir)> {
    let folder = tempfile::tempdir_in("/dev/shm").context("no tmpfs on /dev/shm")?;
    let path = folder.path().join("disk");
    let mut file = File::create(&path)?;
    let mebibyte: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    for _ in 0..IMAGE_MIB {
        file.write_all(&mebibyte)?;
    }
    Ok((path, folder))
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn fio_s_report_is_read() {
        let said = "note: x\n{\"jobs\":[{\"read\":{\"total_ios\":1000,\"iops\":200.0,\"bw_bytes\":819200,\
                    \"clat_ns\":{\"mean\":5000.0}},\"write\":{\"total_ios\":0}}]}";
        let it = figures(said, 0.01).unwrap();
        assert_eq!((it.per_second, it.latency_us, it.cpu_us), (200.0, 5.0, 10.0));
        assert!(figures("{\"jobs\":[]}", 1.0).is_err());
    }
}
