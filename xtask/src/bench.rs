//! bench
use anyhow::Result;
use clap::Args;
#[derive(Args)]
pub(crate) struct Bench;
impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        Ok(())
    }
}
