//! Fuzzing everything that reads foreign bytes.

use crate::build::{cargo, root, run_loudly};
use crate::say;
use anyhow::{Context, Result, ensure};
use clap::Args;

#[derive(Args)]
pub(crate) struct Fuzz {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    target: Option<String>,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            cargo(&["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()),
            "cargo-fuzz is not installed: cargo install cargo-fuzz"
        );
        for target in self.targets()? {
            say(&format!("fuzzing {target} for {} s", self.seconds));
            let mut fuzz = cargo(&["fuzz", "run", &target, "--"]);
            fuzz.arg(format!("-max_total_time={}", self.seconds));
            // The sanitizer's flags are for nightly compilers, unless a stable one is told otherwise.
            fuzz.env("RUSTC_BOOTSTRAP", "1");
            run_loudly(&mut fuzz, &format!("fuzzing {target}"))?;
        }
        Ok(())
    }

    fn targets(&self) -> Result<Vec<String>> {
        if let Some(target) = &self.target {
            return Ok(vec![target.clone()]);
        }
        let folder = root().join("fuzz/fuzz_targets");
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("can't read {}", folder.display()))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }
}
