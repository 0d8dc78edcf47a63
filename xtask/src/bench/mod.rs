//! Measurements, always beside what people use today, in the same run on the same machine.

mod aoe;
mod boot;
mod init;
mod initrd;
mod nbd;
mod peers;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Time and size of an initrd for all wired NICs of Debian's kernel package
    Initrd(initrd::Initrd),
    /// Time from the kernel's start to the real system's init, beside initramfs-tools and dracut
    Init(init::Init),
    /// Power-on to login prompt in QEMU, with the share of each stage
    Boot(boot::Boot),
    /// Speed and processor time of the NBD server, beside nbdkit, qemu-nbd and nbd-server
    Nbd(nbd::Nbd),
    /// Speed and processor time of the AoE server, beside vblade
    Aoe(aoe::Aoe),
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        crate::setup()?;
        match self.what {
            Some(What::Initrd(bench)) => bench.run(),
            Some(What::Init(bench)) => bench.run(),
            Some(What::Boot(bench)) => bench.run(),
            Some(What::Nbd(bench)) => bench.run(),
            Some(What::Aoe(bench)) => bench.run(),
            None => {
                initrd::Initrd::default().run()?;
                println!();
                init::Init::default().run()?;
                println!();
                boot::Boot::default().run()?;
                println!();
                nbd::Nbd::default().run()?;
                println!();
                aoe::Aoe::default().run()
            }
        }
    }
}

/// The middle one; of two in the middle, the lower.
fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// The same for what has no whole order by itself; 0 of none.
fn median_figure(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[2, 1]), Some(1));
        assert_eq!(median::<u8>(&[]), None);
    }
}
