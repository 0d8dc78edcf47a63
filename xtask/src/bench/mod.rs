//! Measurements, always beside what people use today, in the same run on the same machine.

mod aoe;
mod boot;
mod boot_files;
mod dhcp;
mod http;
mod idle;
mod import;
mod init;
mod initrd;
mod nbd;
mod peers;
mod perfdhcp;
mod processes;
mod room;
mod storm;
mod tftp;

use crate::build;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

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
    /// A hundred PCs at once, with a disk that is slow to sync: stage reports beside DHCP answers
    Room(room::RoomBench),
    /// Memory, and processor time with 200 machines up that do nothing; and how soon a PC is answered when the server starts
    Idle(idle::Idle),
    /// Many PCs that fetch a boot file by TFTP at once, beside dnsmasq: how long it takes, and what is sent twice
    Tftp(tftp::Tftp),
    /// New PCs that get an address each second, beside Kea and dnsmasq
    Dhcp(dhcp::Dhcp),
    /// Import of a disk and of an archive, beside cp and tar
    Import(import::Import),
    /// PCs that fetch a boot file by HTTP at once, beside nginx
    Http(http::Http),
    /// A room of PCs that boots at once over a wire of 1 Gbit/s, and reads what a boot reads
    Storm(storm::Storm),
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
            Some(What::Room(bench)) => bench.run(),
            Some(What::Idle(bench)) => bench.run(),
            Some(What::Tftp(bench)) => bench.run(),
            Some(What::Dhcp(bench)) => bench.run(),
            Some(What::Import(bench)) => bench.run(),
            Some(What::Http(bench)) => bench.run(),
            Some(What::Storm(bench)) => bench.run(),
            None => {
                initrd::Initrd::default().run()?;
                println!();
                init::Init::default().run()?;
                println!();
                boot::Boot::default().run()?;
                println!();
                nbd::Nbd::default().run()?;
                println!();
                aoe::Aoe::default().run()?;
                println!();
                room::RoomBench::default().run()?;
                println!();
                idle::Idle::default().run()?;
                println!();
                tftp::Tftp::default().run()?;
                println!();
                dhcp::Dhcp::default().run()?;
                println!();
                import::Import::default().run()?;
                println!();
                http::Http::default().run()?;
                println!();
                storm::Storm::default().run()
            }
        }
    }
}

/// The program to measure: this one, or what is in the tree now.
fn program(path: Option<&Path>) -> Result<PathBuf> {
    match path {
        Some(path) => Ok(std::path::absolute(path)?),
        None => build::run_release(),
    }
}

/// The middle one; of two in the middle, the lower.
pub(crate) fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    middle(values.to_vec(), T::cmp)
}

/// The middle one of measured figures; of two in the middle, the lower; 0 of none.
fn median_figure(values: impl Iterator<Item = f64>) -> f64 {
    middle(values.collect(), f64::total_cmp).unwrap_or_default()
}

fn middle<T: Copy>(mut values: Vec<T>, order: impl FnMut(&T, &T) -> Ordering) -> Option<T> {
    values.sort_unstable_by(order);
    values.get(values.len().saturating_sub(1) / 2).copied()
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
