//! `cargo xtask dist`: what a release consists of.

mod crates;
mod licenses;
mod sbom;
mod verify;

pub(crate) use crates::Crates;
pub(crate) use licenses::text as licenses;
pub(crate) use sbom::text as sbom;

use crate::build::{self, Place};
use crate::say;
use anyhow::{Context, Result};
use clap::Args;
use lab::text_of;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs of a release: those that are in each, and those for arm64 that this machine can build.
pub(crate) fn programs() -> Vec<String> {
    let always = ["bootlace", "bootlace-init", "bootlace-init-tls"].map(str::to_owned);
    always.into_iter().chain(build::inits_for_arm64()).collect()
}

/// All licenses in one file, and the bill of materials.
const LICENSES: &str = "THIRD-PARTY-LICENSES.txt";
const SBOM: &str = "bootlace.cdx.json";

/// The checksums of all other files.
const SUMS: &str = "SHA256SUMS";

#[derive(Args)]
pub(crate) struct Dist {
    /// Build a copy of the source in another folder, too, and fail if a program has other bytes
    #[arg(long)]
    verify: bool,
}

impl Dist {
    pub(crate) fn run(self) -> Result<()> {
        let folder = make(&Place::here())?;
        say(&format!("the release is in {}", folder.display()));
        if self.verify { verify::run(&folder) } else { Ok(()) }
    }
}

/// Builds a release, and puts its files into a folder.
fn make(place: &Place) -> Result<PathBuf> {
    build::release(place)?;
    let folder = place.target.join("dist");
    fs::create_dir_all(&folder)?;
    for name in programs() {
        copy(&place.target.join("release").join(&name), &folder.join(&name))?;
    }
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&place.root.join(name), &folder.join(name))?;
    }
    let crates = Crates::find(place)?;
    fs::write(folder.join(LICENSES), licenses(&crates)?)?;
    fs::write(folder.join(SBOM), sbom(&crates)?)?;
    fs::write(folder.join(SUMS), sums(&folder)?)?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("can't copy {}", from.display())).map(drop)
}

/// The checksums of all files in the folder, as `sha256sum --check` reads them.
fn sums(folder: &Path) -> Result<String> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<_>>()?;
    names.retain(|name| name != SUMS);
    names.sort();
    let sums = text_of(Command::new("sha256sum").args(names).current_dir(folder))?;
    Ok(sums + "\n")
}
