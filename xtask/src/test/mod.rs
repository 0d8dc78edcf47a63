//! Everything that must be right before a change goes in.

use crate::build::{self, cargo, run_loudly};
use crate::{lint, say, setup};
use anyhow::Result;
use clap::Args;
use lab::Recipe;

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
    pub(crate) fn run(self) -> Result<()> {
        setup()?;
        if !self.no_lint {
            lint::run()?;
        }
        let binary = build::run()?;
        if !self.quick {
            make_images()?;
        }
        say("testing");
        let mut test = cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"]);
        if let Some(filter) = &self.filter {
            test.arg(filter);
        }
        test.env("BOOTLACE_BIN", binary);
        if !self.quick {
            test.env("RUN_SLOW_TESTS", "1");
        }
        // Its summary stays the last thing on the screen.
        run_loudly(&mut test, "cargo test")
    }
}

/// Makes all images side by side, so that no test's time limit includes it.
fn make_images() -> Result<()> {
    std::thread::scope(|scope| {
        let make = |recipe: Recipe| scope.spawn(move || recipe.image(say));
        let makers = Recipe::all().map(make);
        makers.into_iter().try_for_each(|maker| match maker.join() {
            Ok(made) => made.map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
