//! How long a PC takes from power-on to its login prompt.

use super::peers::Peers;
use super::{median, program};
use crate::say;
use anyhow::{Result, ensure};
use clap::Args;
use lab::{Init, Lan, Pc, Recipe, Release, Site};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:00:00:01";
const NAME: &str = "pc-1";

/// A stage that takes longer has no end. The rival's kernel may wait for its disk for ever, and say so again and again.
const STAGE_MAX: Duration = Duration::from_secs(240);

/// Who says nothing for so long is stuck: on a busy machine a boot is silent for half a minute.
const SILENT_MAX: Duration = Duration::from_secs(90);

/// What the kernel says when a disk has not answered for two minutes.
const STUCK: &str = "blocked for more than 120 seconds";

/// Lines that tell where a boot hangs.
const LAST_LINES: usize = 6;

/// The disk of both servers: Debian with the initramfs scripts for NBD that the peers need.
pub(super) const RECIPE: Recipe = Recipe {
    release: Release::Debian12,
    init: Init::Systemd,
    packages: "nbd-client",
    script: r#"set -eu
ln -sf /dev/null "$1/etc/systemd/system/nbd@.service"
chroot "$1" update-initramfs -c -k all
"#,
};

/// What both say on the console, and what has been done when they do.
const MARKS: &[(&str, &str)] = &[
    ("firmware and loader", "Linux version"),
    ("kernel", "Run /init as init process"),
    ("initrd", "Welcome to "),
    ("system", " login: "),
];

#[derive(Args)]
pub(crate) struct Boot {
    /// The program to measure, in place of the one that this tree makes
    #[arg(long)]
    program: Option<PathBuf>,
    /// How often each boots; the median of each stage counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

impl Default for Boot {
    fn default() -> Self {
        Self { program: None, runs: 3 }
    }
}

/// One boot.
struct Run {
    /// How long each stage took, in the order of [`MARKS`], as far as it came.
    stages: Vec<Duration>,
    /// Why it came no further.
    hung: Option<String>,
}

impl Boot {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.program.as_deref())?;
        let image = RECIPE.image(say)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 1..=self.runs.max(1) {
            // In turns, so that a busy quarter of an hour hits both.
            say(&format!("boot {run} of {}: bootlace", self.runs));
            ours.push(told(boot_ours(&binary, &image)?));
            say(&format!("boot {run} of {}: dnsmasq, nbdkit, initramfs-tools", self.runs));
            theirs.push(told(boot_theirs(&image)?));
        }
        show(&ours, &theirs);
        ensure!(ours.iter().all(|run| run.hung.is_none()), "a boot from bootlace hung");
        Ok(())
    }
}

/// Says it if the boot hung.
fn told(run: Run) -> Run {
    if let Some(why) = &run.hung {
        say(&format!("it hung: {why}"));
    }
    run
}

fn boot_ours(binary: &Path, image: &Path) -> Result<Run> {
    let site = Site::builder().binary(binary).create(Lan::lay("bench")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", NAME, "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    let run = boot(site.lan())?;
    servers.stop()?;
    Ok(run)
}

fn boot_theirs(image: &Path) -> Result<Run> {
    let peers = Peers::start(image, MAC, NAME)?;
    boot(peers.lan())
}

fn boot(lan: &Lan) -> Result<Run> {
    let pc = Pc::builder(NAME).mac(MAC).start(lan)?;
    let mut run = Run { stages: Vec::new(), hung: None };
    let mut before = Duration::ZERO;
    for (stage, mark) in MARKS {
        if let Err(why) = wait(&pc, mark) {
            let last = pc.console().tail(LAST_LINES);
            run.hung = Some(format!("in the stage {stage:?}, {why}; it said last:\n{last}"));
            break;
        }
        let at = pc.console().time_of(mark).unwrap_or_default();
        run.stages.push(at.saturating_sub(before));
        before = at;
    }
    Ok(run)
}

/// Waits until the PC says this, or in words why that is not to be expected any more.
fn wait(pc: &Pc, mark: &str) -> Result<(), String> {
    let console = pc.console();
    let deadline = Instant::now() + STAGE_MAX;
    let mut n_said = console.text().len();
    loop {
        match console.wait_for_any(&[mark, STUCK], SILENT_MAX) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err("its kernel waits for the disk".to_owned()),
            Err(_) => {}
        }
        if console.has_ended() {
            return Err("the PC ended".to_owned());
        }
        let n_before = std::mem::replace(&mut n_said, console.text().len());
        if n_said == n_before {
            return Err(format!("silent for {} s", SILENT_MAX.as_secs()));
        }
        if Instant::now() >= deadline {
            return Err(format!("longer than {} s", STAGE_MAX.as_secs()));
        }
    }
}

fn show(ours: &[Run], theirs: &[Run]) {
    println!("power-on to login prompt, QEMU without KVM, root over NBD, seconds");
    println!(
        "{:22} {:>8} {:>7} {:>8} {:>7} {:>7}",
        "", "bootlace", "share", "peers", "share", "ratio"
    );
    let sums = [ours, theirs].map(|runs| median_of(runs.iter().filter_map(Run::whole)));
    let line = |name: &str, times: [Option<Duration>; 2]| {
        let [ours, theirs] = times.map(|time| time.map(|time| time.as_secs_f64()));
        let cell = |time: Option<f64>, sum: Option<Duration>| {
            let time_text = time.map_or("hung".to_owned(), |time| format!("{time:.1}"));
            let share = time.zip(sum).map(|(time, sum)| 100.0 * time / sum.as_secs_f64().max(1e-3));
            let share = share.map_or("".to_owned(), |share| format!("{share:.0}%"));
            format!("{time_text:>8} {share:>7}")
        };
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs.max(1e-3));
        let ratio = ratio.map_or("".to_owned(), |ratio| format!("{ratio:.2}"));
        println!("{name:22} {} {} {ratio:>7}", cell(ours, sums[0]), cell(theirs, sums[1]));
    };
    for (index, (name, _)) in MARKS.iter().enumerate() {
        line(name, [ours, theirs].map(|runs| stage_of(runs, index)));
    }
    line("all", sums);
    println!(
        "peers: dnsmasq, GRUB by TFTP, nbdkit, initramfs-tools with nbd-client; same image (wanted: 0.60)"
    );
    for (name, runs) in [("bootlace", ours), ("peers", theirs)] {
        let n_hung = runs.iter().filter(|run| run.hung.is_some()).count();
        if n_hung > 0 {
            println!(
                "{name}: {n_hung} of {} boots hung and are not in it, but for the stages before",
                runs.len()
            );
        }
    }
}

impl Run {
    /// From power-on to the login prompt.
    fn whole(&self) -> Option<Duration> {
        self.hung.is_none().then(|| self.stages.iter().sum())
    }
}

/// How long a stage took, of those that came to its end; the median.
fn stage_of(runs: &[Run], index: usize) -> Option<Duration> {
    median_of(runs.iter().filter_map(|run| run.stages.get(index).copied()))
}

fn median_of(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    median(&times.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_that_hung_counts_as_far_as_it_came() {
        let run = |seconds: &[u64], hung: Option<&str>| Run {
            stages: seconds.iter().map(|&it| Duration::from_secs(it)).collect(),
            hung: hung.map(str::to_owned),
        };
        let runs = [run(&[1, 2, 3, 4], None), run(&[3, 4], Some("silent"))];
        assert_eq!(stage_of(&runs, 1), Some(Duration::from_secs(2)));
        assert_eq!(stage_of(&runs, 2), Some(Duration::from_secs(3)));
        assert_eq!(
            runs.iter().filter_map(Run::whole).collect::<Vec<_>>(),
            [Duration::from_secs(10)]
        );
        assert_eq!(stage_of(&runs[1..], 2), None);
    }
}
