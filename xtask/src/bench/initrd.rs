//! How long an initrd takes, and how big it is.

use super::median;
use crate::{build, say};
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the kernel package is kept between runs.
const CACHE: &str = "/var/cache/bootlace-lab";

/// A PC with one common card.
const FIT: &str = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00\n";

/// What is built, with what we want at most: seconds and megabytes.
struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    seconds_max: f64,
    megabytes_max: f64,
}

/// The cache is filled by a run that does not count. A package is decoded in any case, which no cache
/// shortens; an imported image is read like a folder.
const CASES: [Case; 3] = [
    Case {
        name: "package, nothing cached",
        arguments: &["--kernel-package", "package.deb", "--no-cache"],
        seconds_max: 3.0,
        megabytes_max: 16.0,
    },
    Case {
        name: "folder",
        arguments: &["--modules", "package"],
        seconds_max: 0.2,
        megabytes_max: 16.0,
    },
    Case {
        name: "folder, fitted",
        arguments: &["--modules", "package", "--fit", "fit"],
        seconds_max: 0.2,
        megabytes_max: 1.5,
    },
];

#[derive(Args)]
pub(crate) struct Initrd {
    /// How often each is built; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

impl Default for Initrd {
    fn default() -> Self {
        Self { runs: 5 }
    }
}

impl Initrd {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = build::run_release()?;
        let package = kernel_package()?;
        let folder = tempfile_dir()?;
        std::fs::write(folder.path().join("fit"), FIT)?;
        std::os::unix::fs::symlink(&package, folder.path().join("package.deb"))?;
        let mut unpack = Command::new("dpkg-deb");
        lab::run(unpack.current_dir(&folder).args(["--extract", "package.deb", "package"]))?;
        println!("initrd of {}", package.file_name().unwrap_or_default().display());
        println!("{:24} {:>8} {:>8} {:>8} {:>8}", "", "s", "goal", "MB", "goal");
        for case in &CASES {
            let build = || -> Result<Duration> {
                let start = Instant::now();
                let mut command = Command::new(&binary);
                command.current_dir(&folder).args(["initrd", "build", "--root", "site"]);
                lab::run(command.args(case.arguments).args(["--output", "initrd.img"]))?;
                Ok(start.elapsed())
            };
            // Once before, for the caches, ours and the kernel's.
            build()?;
            let times: Vec<Duration> =
                (0..self.runs.max(1)).map(|_| build()).collect::<Result<_>>()?;
            let seconds = median(&times).unwrap_or_default().as_secs_f64();
            let megabytes = std::fs::metadata(folder.path().join("initrd.img"))?.len() as f64 / 1e6;
            let Case { name, seconds_max, megabytes_max, .. } = case;
            println!(
                "{name:24} {seconds:8.2} {seconds_max:8.1} {megabytes:8.2} {megabytes_max:8.1}"
            );
        }
        Ok(())
    }
}

fn tempfile_dir() -> Result<tempfile::TempDir> {
    tempfile::tempdir().context("can't make a temporary folder")
}

/// Debian's newest kernel package, downloaded once.
fn kernel_package() -> Result<PathBuf> {
    let query = ["--no-all-versions", "show", "linux-image-amd64"];
    let text = lab::text_of(Command::new("apt-cache").args(query).env("LC_ALL", "C"))?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("Depends: ")?.split([' ', ',']).next())
        .context("apt-cache does not say which kernel linux-image-amd64 is")?;
    let prefix = format!("{name}_");
    std::fs::create_dir_all(CACHE)?;
    let find = || {
        std::fs::read_dir(CACHE).ok()?.flatten().map(|entry| entry.path()).find(|path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&prefix) && file.ends_with(".deb")
        })
    };
    if let Some(path) = find() {
        return Ok(path);
    }
    say(&format!("downloading {name}, kept for the next time"));
    // As root apt downloads as the user _apt, which may not write here.
    let options = ["-q", "-o", "APT::Sandbox::User=root", "download", name];
    lab::run(Command::new("apt-get").args(options).current_dir(Path::new(CACHE)))?;
    find().context("apt-get has downloaded no kernel package")
}
