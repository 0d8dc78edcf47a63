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

/// What we want to be better than: issue 2, "Speed to watch".
const TIME_MAX: Duration = Duration::from_secs(3);
const SIZE_MAX: u64 = 16_000_000;

#[derive(Args)]
pub(crate) struct Initrd {
    /// How often it is built; the median counts
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
        let output = folder.path().join("initrd.img");
        let mut times = Vec::new();
        for _ in 0..self.runs.max(1) {
            let start = Instant::now();
            let mut command = Command::new(&binary);
            command.args(["initrd", "build", "--kernel-package"]).arg(&package);
            lab::run(command.arg("--output").arg(&output))?;
            times.push(start.elapsed());
        }
        let size = std::fs::metadata(&output)?.len();
        let time = median(&times).unwrap_or_default();
        println!("initrd of {}", package.file_name().unwrap_or_default().display());
        println!("  time  {:6.2} s   wanted: at most {} s", time.as_secs_f64(), TIME_MAX.as_secs());
        let (size, wanted) = (size as f64 / 1e6, SIZE_MAX as f64 / 1e6);
        println!("  size  {size:6.2} MB  wanted: at most {wanted} MB");
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
