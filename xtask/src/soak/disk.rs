//! A machine's disk, used as its kernel and its keeper use it: what has no answer is asked again.

use super::block::BLOCK_BYTES;
use super::machine::{PATIENCE, Root};
use crate::booted::Booted;
use anyhow::{Result, bail, ensure};
use fakeclient::aoe_disk::{AoeDisk, Mishaps};
use fakeclient::machine_disk::{MachineDisk, MachineDiskError};
use lab::run;
use std::process::Command;
use std::time::{Duration, Instant};

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(300);

/// Where our blocks are on the disk.
pub(super) const FIRST_BYTE: u64 = 8 << 20;

pub(super) enum Disk {
    Nbd { booted: Booted, connection: Option<MachineDisk>, generation: u32 },
    Aoe(Box<AoeDisk>),
}

impl Disk {
    /// At the machine's place.
    pub(super) fn open(booted: &Booted, root: Root, seed: u64) -> Result<Self> {
        Ok(match root {
            Root::Nbd => Self::Nbd { booted: booted.clone(), connection: None, generation: 0 },
            Root::Aoe(address) => {
                Self::Aoe(Box::new(AoeDisk::open("eth0", booted.mac, address, seed, PATIENCE)?))
            }
        })
    }

    /// Writes a block: over AoE so that it lasts, over NBD so that it lasts when it is [flushed](Self::flush).
    pub(super) fn write(&mut self, block: usize, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Nbd { .. } => self.nbd(|disk| disk.write_only(offset(block), bytes)),
            Self::Aoe(disk) => Ok(disk.write(offset(block) / 512, bytes, PATIENCE)?),
        }
    }

    /// Makes what was written over this connection last.
    pub(super) fn flush(&mut self) -> Result<()> {
        match self {
            Self::Nbd { .. } => self.nbd(MachineDisk::flush),
            Self::Aoe(_) => Ok(()),
        }
    }

    /// Ends as a PC that loses its power while it writes a block over NBD; whether that was begun.
    pub(super) fn lose_power(&mut self, block: usize, bytes: &[u8]) -> Result<bool> {
        let connection = match self {
            Self::Nbd { connection, .. } => connection.take(),
            Self::Aoe(_) => None,
        };
        let begun = connection.map(|mut disk| {
            let is_begun = disk.write_and_leave(offset(block), bytes).is_ok();
            (disk, is_begun)
        });
        // Nobody hears how the kernel closes the connection.
        run(Command::new("ip").args(["link", "set", "eth0", "down"]))?;
        Ok(begun.is_some_and(|(disk, is_begun)| {
            disk.abandon();
            is_begun
        }))
    }

    pub(super) fn read(&mut self, block: usize) -> Result<Vec<u8>> {
        match self {
            Self::Nbd { .. } => self.nbd(|disk| disk.read(offset(block), BLOCK_BYTES as u32)),
            Self::Aoe(disk) => {
                Ok(disk.read(offset(block) / 512, BLOCK_BYTES as u64 / 512, PATIENCE)?)
            }
        }
    }

    /// Ends the connection by a TCP reset, in the middle of what it asks for.
    pub(super) fn reset(&mut self) {
        if let Self::Nbd { connection, .. } = self
            && let Some(mut disk) = connection.take()
        {
            // What was not read makes the kernel reset the connection.
            let _ = disk.ask_and_leave(16, 4096);
            std::thread::sleep(Duration::from_millis(20));
            disk.abandon();
        }
    }

    pub(super) fn mishaps(&self) -> Mishaps {
        match self {
            Self::Nbd { .. } => Mishaps::default(),
            Self::Aoe(disk) => disk.mishaps(),
        }
    }

    /// How often it connected.
    pub(super) fn n_connections(&self) -> u32 {
        match self {
            Self::Nbd { generation, .. } => *generation,
            Self::Aoe(_) => 0,
        }
    }

    /// Tries until it is done. A request that is answered with an error is the end: a machine's root would be read-only.
    fn nbd<T>(
        &mut self,
        work: impl Fn(&mut MachineDisk) -> Result<T, MachineDiskError>,
    ) -> Result<T> {
        let Self::Nbd { booted, connection, generation } = self else { bail!("no NBD disk") };
        let began = Instant::now();
        loop {
            let done = match connection {
                Some(disk) => work(disk),
                None => {
                    *generation += 1;
                    booted.disk_as(*generation).map(|disk| *connection = Some(disk)).and_then(
                        |()| connection.as_mut().map_or(Err(MachineDiskError::Request(0)), &work),
                    )
                }
            };
            match done {
                Err(MachineDiskError::Request(error)) => {
                    bail!("a request fails with NBD error {error}")
                }
                Err(error) => {
                    ensure!(began.elapsed() < PATIENCE, "no disk for {PATIENCE:?}: {error}");
                    if let Some(disk) = connection.take() {
                        disk.abandon();
                    }
                    std::thread::sleep(AGAIN);
                }
                Ok(done) => return Ok(done),
            }
        }
    }
}

fn offset(block: usize) -> u64 {
    FIRST_BYTE + (block * BLOCK_BYTES) as u64
}
