//! `cargo xtask deb`: the Debian package.

mod crowd;
mod package;
mod prove;
mod tree;

pub(crate) use package::Package;

use crate::{build, say};
use anyhow::Result;
use clap::Args;
use lab::Release;
use std::path::Path;

#[derive(Args)]
pub(crate) struct Deb {
    /// Pack what `cargo xtask build` makes, in a hurry, as the tests do
    #[arg(long)]
    debug: bool,
    /// Try it on Debian 12 and 13: install, configure, boot a PC, upgrade and downgrade under load, purge
    #[arg(long)]
    prove: bool,
}

impl Deb {
    pub(crate) fn run(self) -> Result<()> {
        lab::install(lab::PACKAGING, say)?;
        let (package, program) = if self.debug {
            (Package::of_tests(), build::run()?)
        } else {
            (Package::of_release(), build::run_release()?)
        };
        let path = package.pack()?;
        let size = path.metadata()?.len() as f64 / (1 << 20) as f64;
        say(&format!("{} has {size:.1} MiB", path.display()));
        if self.prove { prove(&path, &program) } else { Ok(()) }
    }
}

/// Tells in a table what was seen on each release.
fn prove(package: &Path, program: &Path) -> Result<()> {
    crate::setup()?;
    let on = |release| prove::on(release, package, program);
    let seen = [on(Release::Debian12)?, on(Release::Debian13)?];
    println!("| step | Debian 12 | Debian 13 |\n|---|---|---|");
    let [on_12, on_13] = seen;
    for ((step, on_12), (_, on_13)) in on_12.into_iter().zip(on_13) {
        println!("| {step} | {on_12} | {on_13} |");
    }
    Ok(())
}
