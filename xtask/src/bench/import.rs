//! How long an import takes, beside what copies or unpacks the same bytes and understands nothing of them.

use super::{median, program};
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use lab::Recipe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Import {
    /// How often each is done; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A raw disk with a root on the whole of it; without, the small Debian of the demo
    #[arg(long)]
    disk: Option<PathBuf>,
    /// The program to measure, instead of what is in the tree
    #[arg(long)]
    binary: Option<PathBuf>,
}

impl Default for Import {
    fn default() -> Self {
        Self { runs: 5, disk: None, binary: None }
    }
}

impl Import {
    pub(crate) fn run(&self) -> Result<()> {
        let binary = program(self.binary.as_deref())?;
        let disk = match &self.disk {
            Some(disk) => disk.clone(),
            None => Recipe::default().image(say)?,
        };
        // On the disk of the images, and not in memory.
        let folder = tempfile::Builder::new().prefix("import-").tempdir_in("/var/tmp")?;
        let folder = folder.path();
        let archive = folder.join("files.tar");
        pack(&disk, folder, &archive)?;
        let megabytes = std::fs::metadata(&archive)?.len() as f64 / 1e6;
        println!(
            "{}, {megabytes:.0} MB of files; each ends when all is on the disk",
            disk.display()
        );
        println!("{:28} {:>8} {:>8} {:>8}", "", "s", "ratio", "goal");

        let copy = folder.join("copy.raw");
        let copied = self.median(&mut || {
            let _ = std::fs::remove_file(&copy);
            lab::run(Command::new("cp").args(["--sparse=always"]).args([&disk, &copy]))?;
            sync(&copy)
        })?;
        let imported = self.median(&mut || import(&binary, folder, &disk))?;
        line("cp --sparse=always", copied, None);
        line("import of the disk", imported, Some((copied, 0.8)));

        let files = folder.join("files");
        let unpacked = self.median(&mut || {
            let _ = std::fs::remove_dir_all(&files);
            std::fs::create_dir(&files)?;
            lab::run(Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&files))?;
            sync(&files)
        })?;
        let imported = self.median(&mut || import(&binary, folder, &archive))?;
        line("tar -x", unpacked, None);
        line("import of the archive", imported, Some((unpacked, 0.5)));
        Ok(())
    }

    /// The first time is for the caches.
    fn median(&self, act: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..=self.runs.max(1) {
            let begun = Instant::now();
            act()?;
            times.push(begun.elapsed());
        }
        median(&times[1..]).context("nothing was measured")
    }
}

/// Imports into a site of its own, and ends with a version that machines can boot.
fn import(binary: &Path, folder: &Path, source: &Path) -> Result<()> {
    let root = tempfile::Builder::new().prefix("site-").tempdir_in(folder)?;
    let mut command = Command::new(binary);
    command.arg("--root").arg(root.path()).args(["image", "import"]).arg(source);
    lab::run(command.args(["--name", "measured"]))
}

/// All files of a disk as an archive.
fn pack(disk: &Path, folder: &Path, archive: &Path) -> Result<()> {
    let mounted = folder.join("mounted");
    std::fs::create_dir(&mounted)?;
    lab::run(Command::new("mount").args(["-o", "loop,ro,noload"]).args([disk, &mounted]))?;
    let packed = lab::run(
        Command::new("tar")
            .args(["--xattrs", "--numeric-owner", "--one-file-system", "-cf"])
            .arg(archive)
            .arg("-C")
            .arg(&mounted)
            .arg("."),
    );
    lab::run(Command::new("umount").arg(&mounted))?;
    packed
}

fn sync(path: &Path) -> Result<()> {
    lab::run(Command::new("sync").arg("--file-system").arg(path))
}

fn line(name: &str, took: Duration, beside: Option<(Duration, f64)>) {
    let seconds = took.as_secs_f64();
    match beside {
        None => println!("{name:28} {seconds:8.2}"),
        Some((other, goal)) => {
            let ratio = other.as_secs_f64() / seconds;
            println!("{name:28} {seconds:8.2} {ratio:7.2}x {goal:7.1}x");
        }
    }
}
