//! The disk of a machine that is about to boot, seen as the machine sees it.

use anyhow::{Context, Result};
use fakeclient::machine_disk::MachineDisk;
use lab::{Kernel, Preboot, SERVER};

/// Where the storage server gives disks over NBD.
const NBD_PORT: u16 = 10809;

/// Does something with the disk of `machine` in the boot that has fetched `kernel`, at the machine's place.
pub(crate) fn with_disk<T: Send>(
    preboot: &Preboot,
    kernel: &Kernel,
    machine: &str,
    work: impl FnOnce(&mut MachineDisk) -> Result<T> + Send,
) -> Result<T> {
    let mut words = kernel.command_line.split(' ');
    let boot = words.find_map(|word| word.strip_prefix("bootlace.boot=")).context("no boot")?;
    let (boot, token) = (boot.parse()?, preboot.secret()?.parse().ok().context("no token")?);
    let server = format!("{SERVER}:{NBD_PORT}").parse()?;
    preboot.client().netns().inside(|| {
        let mut disk = MachineDisk::open(server, machine, boot, token)?;
        work(&mut disk)
    })
}
