//! How long a PC takes from power-on to its login prompt.

use super::median;
use super::peers::Peers;
use crate::{build, say};
use anyhow::Result;
use clap::Args;
use lab::{Init, Lan, Pc, Recipe, Release, Site};
use std::path::Path;
use std::time::Duration;

const MAC: &str = "52:54:00:00:00:01";
const NAME: &str = "pc-1";
const BOOT: Duration = Duration::from_secs(400);

/// The disk of both servers: Debian with the initramfs scripts for NBD that the peers need.
const RECIPE: Recipe = Recipe {
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
    /// How often each boots; the median of each stage counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

impl Default for Boot {
    fn default() -> Self {
        Self { runs: 3 }
    }
}

/// How long each stage took, in the order of [`MARKS`].
type Stages = Vec<Duration>;

impl Boot {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = build::run_release()?;
        let image = RECIPE.image(say)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 1..=self.runs.max(1) {
            // In turns, so that a busy quarter of an hour hits both.
            say(&format!("boot {run} of {}: bootlace", self.runs));
            ours.push(boot_ours(&binary, &image)?);
            say(&format!("boot {run} of {}: dnsmasq, nbdkit, initramfs-tools", self.runs));
            theirs.push(boot_theirs(&image)?);
        }
        show(&ours, &theirs);
        Ok(())
    }
}

fn boot_ours(binary: &Path, image: &Path) -> Result<Stages> {
    let site = Site::builder().binary(binary).create(Lan::lay("bench")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", NAME, "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    let stages = boot(site.lan())?;
    servers.stop()?;
    Ok(stages)
}

fn boot_theirs(image: &Path) -> Result<Stages> {
    let peers = Peers::start(image, MAC, NAME)?;
    boot(peers.lan())
}

fn boot(lan: &Lan) -> Result<Stages> {
    let pc = Pc::builder(NAME).mac(MAC).start(lan)?;
    let mut stages = Vec::new();
    let mut before = Duration::ZERO;
    for (_, mark) in MARKS {
        pc.console().wait_for(mark, BOOT)?;
        let at = pc.console().time_of(mark).unwrap_or_default();
        stages.push(at.saturating_sub(before));
        before = at;
    }
    Ok(stages)
}

fn show(ours: &[Stages], theirs: &[Stages]) {
    let middle = |runs: &[Stages], index: usize| {
        let times: Vec<Duration> = runs.iter().filter_map(|run| run.get(index).copied()).collect();
        median(&times).unwrap_or_default().as_secs_f64()
    };
    let column = |runs: &[Stages]| -> Vec<f64> {
        (0..MARKS.len()).map(|index| middle(runs, index)).collect()
    };
    let (ours, theirs) = (column(ours), column(theirs));
    let (our_sum, their_sum) = (ours.iter().sum::<f64>(), theirs.iter().sum::<f64>());
    println!("power-on to login prompt, QEMU without KVM, root over NBD, seconds");
    println!(
        "{:22} {:>8} {:>7} {:>8} {:>7} {:>7}",
        "", "bootlace", "share", "peers", "share", "ratio"
    );
    let line = |name: &str, ours: f64, theirs: f64| {
        let (our_share, their_share) = (100.0 * ours / our_sum, 100.0 * theirs / their_sum);
        println!(
            "{name:22} {ours:8.1} {our_share:6.0}% {theirs:8.1} {their_share:6.0}% {:7.2}",
            theirs / ours.max(0.001)
        );
    };
    for (index, (name, _)) in MARKS.iter().enumerate() {
        line(name, ours[index], theirs[index]);
    }
    line("all", our_sum, their_sum);
    println!("peers: dnsmasq, GRUB by TFTP, nbdkit, initramfs-tools with nbd-client; same image");
}
