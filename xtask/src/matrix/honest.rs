//! Machines that boot as usual: in software, and in QEMU.

use crate::bench::median;
use crate::booted::{Named, SERVER_IP, load};
use anyhow::{Context, Result};
use lab::{Pc, Preboot, Site};
use std::time::{Duration, Instant};

/// These boot one after the other before the attack.
pub(super) const BEFORE: [Named; 3] = [
    Named { machine: "before-1", mac: "52:54:00:00:00:01" },
    Named { machine: "before-2", mac: "52:54:00:00:00:02" },
    Named { machine: "before-3", mac: "52:54:00:00:00:03" },
];

/// And these during it.
pub(super) const MEANWHILE: [Named; 3] = [
    Named { machine: "meanwhile-1", mac: "52:54:00:00:00:11" },
    Named { machine: "meanwhile-2", mac: "52:54:00:00:00:12" },
    Named { machine: "meanwhile-3", mac: "52:54:00:00:00:13" },
];

/// These in QEMU, without an attack and during one.
pub(super) const PCS: [Named; 2] = [
    Named { machine: "pc-before", mac: "52:54:00:00:00:08" },
    Named { machine: "pc-meanwhile", mac: "52:54:00:00:00:09" },
];

/// What a system reads of its disk until it is up, about.
const READ_BYTES: u64 = 32 << 20;

/// Bytes of a request.
const PART_BYTES: u32 = 1 << 20;

/// From power-on to the end.
const PC_TIMEOUT: Duration = Duration::from_secs(600);

/// Boots them all. Returns how long they took from the first DISCOVER to the acknowledged report that the system is up; the
/// median.
pub(super) fn boot_all(site: &Site, machines: &[Named]) -> Result<Duration> {
    let times = machines.iter().map(|named| {
        let context = || format!("{} does not boot", named.machine);
        boot(site, *named).with_context(context)
    });
    let times = times.collect::<Result<Vec<_>>>()?;
    median(&times).context("nobody boots")
}

/// All that a machine fetches and does until it is up.
fn boot(site: &Site, named: Named) -> Result<Duration> {
    let preboot = Preboot::plug_in(site, named.mac)?;
    let began = Instant::now();
    preboot.power_on()?;
    for file in ["bl.0", "grub/grub.cfg"] {
        preboot.curl(&format!("tftp://{SERVER_IP}/{file}"), "/dev/null")?;
    }
    let booted = load(&preboot, named)?;
    let time = preboot.client().netns().inside(|| {
        let mut disk = booted.disk()?;
        for offset in (0..READ_BYTES).step_by(PART_BYTES as usize) {
            disk.read(offset, PART_BYTES)?;
        }
        let mut speaker = booted.speaker()?;
        speaker.report_up()?;
        let time = began.elapsed();
        speaker.stops()?;
        Ok(time)
    })?;
    Ok(time)
}

/// Boots a PC. Returns how long it took from power-on until its system was up.
pub(super) fn boot_pc(site: &Site, named: Named) -> Result<Duration> {
    let began = Instant::now();
    let _pc = Pc::builder(named.machine).mac(named.mac).start(site.lan())?;
    site.wait_for_stage(named.machine, "up", PC_TIMEOUT)?;
    Ok(began.elapsed())
}
