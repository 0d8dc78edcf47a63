//! Boots in software, up to the kernel, and what a machine then has in hand.

use anyhow::{Context, Result};
use fakeclient::machine_disk::{MachineDisk, MachineDiskError};
use fakeclient::speaker::Speaker;
use initcfg::Token;
use lab::Preboot;
use std::net::{Ipv4Addr, SocketAddr};
use wire::Mac;

/// The servers' address.
pub(crate) const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Where the storage server gives disks over NBD.
pub(crate) const NBD_PORT: u16 = 10809;

/// Who boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) machine: &'static str,
    pub(crate) mac: &'static str,
}

/// What a boot has got from the boot server.
#[derive(Clone)]
pub(crate) struct Booted {
    pub(crate) machine: &'static str,
    pub(crate) mac: Mac,
    pub(crate) boot: u64,
    pub(crate) token: Token,
}

/// Boots up to the kernel.
pub(crate) fn load(preboot: &Preboot, of: Named) -> Result<Booted> {
    let kernel = preboot.load()?;
    let mut words = kernel.command_line.split(' ');
    let boot = words.find_map(|word| word.strip_prefix("bootlace.boot=")).context("no boot")?;
    let token = preboot.secret()?.parse().ok().context("no token")?;
    Ok(Booted { machine: of.machine, mac: of.mac.parse()?, boot: boot.parse()?, token })
}

impl Booted {
    /// Opens the disk. In the machine's namespace.
    pub(crate) fn disk(&self) -> Result<MachineDisk> {
        let server = SocketAddr::from((SERVER_IP, NBD_PORT));
        Ok(MachineDisk::open(server, self.machine, self.boot, self.token)?)
    }

    /// Opens the disk as the connection of this number, once. In the machine's namespace.
    pub(crate) fn disk_as(&self, generation: u32) -> Result<MachineDisk, MachineDiskError> {
        let server = SocketAddr::from((SERVER_IP, NBD_PORT));
        MachineDisk::open_as(server, self.machine, self.boot, self.token, generation)
    }

    /// Its voice. In the machine's namespace.
    pub(crate) fn speaker(&self) -> Result<Speaker> {
        Ok(Speaker::connect(SERVER_IP, self.mac, self.boot, self.token)?)
    }
}
