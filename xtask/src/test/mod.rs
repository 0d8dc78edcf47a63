//! Everything that must be right before a change goes in.

mod job;
mod jobs;
mod report;
mod run;

use crate::deb::Package;
use crate::{build, lint, say, setup};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use lab::{Arm64, Container, Recipe, Release};
use nix::sys::statvfs::statvfs;
use std::process::ExitCode;

/// What all tests side by side write at most, in bytes: a full disk fails whoever comes next, and looks like something else.
const ROOM_BYTES: u64 = 6_000_000_000;

#[derive(Args)]
pub(crate) struct Test {
    /// Leave out the tests that take minutes (QEMU PCs)
    #[arg(long)]
    quick: bool,
    /// Leave out the lints
    #[arg(long)]
    no_lint: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

impl Test {
    /// Says on its last line how many tests have passed; fails if one has not.
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup()?;
        if !self.no_lint {
            lint::run()?;
        }
        let (binary, messages) = std::thread::scope(|scope| {
            // Beside the compiler, since it waits for the network most of the time.
            let images = scope.spawn(|| if self.quick { Ok(()) } else { make_images() });
            let built = build::run_with_tests();
            images.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            built
        })?;
        let jobs = jobs::all(&messages, self.filter.as_deref())?;
        if !self.quick {
            check_room()?;
        }
        say("testing");
        let package = if self.quick { None } else { Some(Package::of_tests().pack()?) };
        let mut environment = vec![("BOOTLACE_BIN", binary.as_os_str())];
        if let Some(package) = &package {
            environment.push(("BOOTLACE_DEB", package.as_os_str()));
            environment.push(("RUN_SLOW_TESTS", "1".as_ref()));
        }
        let outcomes = run::all(jobs, &environment)?;
        Ok(report::summary(&outcomes))
    }
}

fn check_room() -> Result<()> {
    let folder = std::env::temp_dir();
    let told = statvfs(&folder).with_context(|| format!("can't look at {}", folder.display()))?;
    let free = told.blocks_available().saturating_mul(told.fragment_size());
    ensure!(
        free >= ROOM_BYTES,
        "{} has {} MB free, and the tests need {} MB there: free some, or name another folder in TMPDIR",
        folder.display(),
        free / 1_000_000,
        ROOM_BYTES / 1_000_000
    );
    Ok(())
}

/// Makes all images and the server for the package side by side, so that no test's time limit includes it.
fn make_images() -> Result<()> {
    std::thread::scope(|scope| {
        let make = |recipe: Recipe| scope.spawn(move || recipe.image(say).map(drop));
        let mut makers = Vec::from(Recipe::all().map(make));
        if !build::inits_for_arm64().is_empty() {
            makers.push(scope.spawn(|| Arm64::make(say).map(drop)));
        }
        makers.push(scope.spawn(|| Container::prepare(Release::Debian12, say)));
        makers.into_iter().try_for_each(|maker| match maker.join() {
            Ok(made) => made,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
