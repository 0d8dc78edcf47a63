//! A room of PCs that is switched on at once, over a wire of 1 Gbit/s: how long until all are up, and how long a read takes.

mod pc;
mod place;
mod trace;

use super::processes::memory_max;
use super::program;
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use fakeclient::Histogram;
use pc::{Orders, Ran};
use place::{Place, WIRE_BYTES_PER_SECOND};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trace::Trace;

/// A desktop that gets nothing for so long looks as if it hung.
const STALL: Duration = Duration::from_secs(1);

/// So many times as long as the wire needs may most of the PCs take.
const WIRE_TIMES: f64 = 2.5;

#[derive(Args)]
pub(crate) struct Storm {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// PCs that are switched on at once, 100 at most
    #[arg(long, default_value_t = 60)]
    pcs: usize,
    /// So many of them write all the time, too, in the second part
    #[arg(long, default_value_t = 30)]
    writers: usize,
    /// Only the second part
    #[arg(long)]
    only_writing: bool,
    /// What each reads of its disk until it is up, in MB
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Boots a PC in QEMU, and writes what it reads of its disk to this file, in place of all else
    #[arg(long)]
    record: Option<PathBuf>,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            program: None,
            pcs: 60,
            writers: 30,
            only_writing: false,
            megabytes: 400,
            record: None,
        }
    }
}

impl Storm {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        if let Some(path) = &self.record {
            return trace::record(&binary, path);
        }
        let trace = Trace::recorded()?;
        println!(
            "{} PCs at once, each up when it has read {} MB by a boot's trace ({}); one wire of 1 Gbit/s to the servers",
            self.pcs,
            self.megabytes,
            trace.said()
        );
        println!(
            "{:>9} | {:>10} {:>12} {:>12} {:>12} | {:>9} {:>9} {:>9} {:>7} | {:>12} | {:>12} {:>12}",
            "",
            "wire alone",
            "half are up",
            "95 % are up",
            "all are up",
            "read p50",
            "p99",
            "longest",
            "> 1 s",
            "written",
            "boot server",
            "storage"
        );
        let parts = if self.only_writing { &[self.writers][..] } else { &[0, self.writers] };
        for &n_writers in parts {
            self.part(&binary, &trace, n_writers)?;
        }
        Ok(())
    }

    /// One line of the table.
    fn part(&self, binary: &Path, trace: &Trace, n_writers: usize) -> Result<()> {
        let place = Place::start(binary, self.pcs, trace.needs(self.megabytes * 1_000_000))?;
        let reads = trace.scaled(self.megabytes * 1_000_000, place.data());
        let orders = Orders { reads: &reads, n_writers };
        say(&format!("{} PCs, {n_writers} of which write", self.pcs));
        let all = pc::switch_on(&place, &orders);
        let mut times: Vec<Duration> = all.iter().map(|ran| ran.took).collect();
        times.sort_unstable();
        let share = |share: f64| {
            times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1]
                .as_secs_f64()
        };
        let mut latencies = Histogram::default();
        all.iter().for_each(|ran| latencies.add_all(&ran.latencies));
        let of = |of: fn(&Ran) -> u64| all.iter().map(of).sum::<u64>();
        let wire = of(|ran| ran.n_read) as f64 / WIRE_BYTES_PER_SECOND;
        let longest = all.iter().map(|ran| ran.longest).max().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mib = |id: u32| memory_max(id).map(|bytes| bytes >> 20);
        println!(
            "{:>9} | {wire:8.0} s {:10.0} s {:6.0} s {:.1}x {:10.0} s | {:6.0} ms {:6.0} ms {:6.0} ms {:7} | {:9} MB | {:8} MiB {:8} MiB",
            if n_writers == 0 { "reads".to_owned() } else { format!("{n_writers} write") },
            share(0.5),
            share(0.95),
            share(0.95) / wire,
            share(1.0),
            ms(latencies.quantile(0.5)),
            ms(latencies.quantile(0.99)),
            ms(longest),
            of(|ran| ran.n_stalls),
            of(|ran| ran.n_written) / 1_000_000,
            mib(place.boot_server())?,
            mib(place.storage())?,
        );
        if share(0.95) > WIRE_TIMES * wire || longest > STALL {
            println!(
                "  wanted: 95 % up in {WIRE_TIMES} x the wire's time, and no read longer than {} s",
                STALL.as_secs()
            );
        }
        let log = place.stop()?;
        let odd = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
        for line in odd.take(10) {
            println!("  {line}");
        }
        all.into_iter().find_map(|ran| ran.failed).map_or(Ok(()), Err).context("a PC is not up")
    }
}
