//! The storage server dies under running machines, and they go on when it is back.

use crate::boot::{COMMAND, MAC, OTHER_MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Console, Lan, Need, Pc, PcSlots, Preboot, Site, require};
use std::time::Duration;

/// The kernel's AoE driver gives disks up after this time, unless it is told otherwise; NBD's, at once.
const OUTAGE: Duration = Duration::from_secs(185);

/// How long a machine may need to find its disk again; TCP is tried each two seconds, AoE each second.
const BACK: Duration = Duration::from_secs(60);

/// Writes and waits for the disk, for ever. The last line of `/run/load` says how much is done: it only grows,
/// so that a reader never meets it between being emptied and being written.
const LOAD: &str = "{ (n=0; while dd if=/dev/urandom of=/root/load bs=4k count=8 conv=fsync 2>/dev/null; \
                    do n=$((n+1)); echo $n >> /run/load; done; echo failed >> /run/load) & }";

#[test]
fn an_outage_of_the_storage_server_only_makes_machines_wait() {
    let needs = ["udhcpc", "curl"].map(Need::Program);
    if can_boot("outage") && require("outage", &needs) {
        outage().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn outage() -> Result<()> {
    let mut slots = PcSlots::take(2)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("outage")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let servers = site.serve()?;
    let storage = site.storage()?;
    let mut machines = Vec::new();
    for (name, mac, root) in [("over-nbd", MAC, "nbd"), ("over-aoe", OTHER_MAC, "aoe")] {
        let machine = ["machine", "set", name, "--mac", mac, "--image", "debian"];
        let settings = ["--root-kind", root, "--write-mode", "persistent"];
        site.run(&[&machine[..], &settings].concat())?;
        let kernel = Preboot::start(&site, mac)?.fetch()?;
        machines.push((name, Pc::builder(name).mac(mac).kernel(&kernel).start(site.lan())?));
    }
    for (name, pc) in &machines {
        wait_for_login(pc, name)?;
        pc.console().log_in(COMMAND)?;
        // As systemd-shutdown does it to everybody: what keeps the root must not be hit by it.
        pc.console().shell(
            "sh -c 'kill -STOP -1; sleep 2; kill -CONT -1'; echo 3 > /proc/sys/vm/drop_caches",
            COMMAND,
        )?;
        pc.console().shell(LOAD, COMMAND)?;
    }
    for (name, pc) in &machines {
        count(pc.console()).with_context(|| format!("{name} before the outage"))?;
    }

    storage.kill()?;
    slots.lend(|| std::thread::sleep(OUTAGE))?;
    let _storage = site.storage()?;

    for (name, pc) in &mut machines {
        check_goes_on(pc).with_context(|| format!("{name} after the outage"))?;
    }
    for (name, pc) in &mut machines {
        pc.console().send_line("poweroff")?;
        pc.wait_for_off(SHUTDOWN).with_context(|| format!("{name} at the end"))?;
    }
    servers.stop()
}

/// Writes that the load has done so far; waits until there is one.
fn count(console: &Console) -> Result<u64> {
    let text = console
        .shell("until [ -s /run/load ]; do sleep 0.1; done; tail -n 1 /run/load", COMMAND)?;
    text.trim().parse().with_context(|| format!("the load ended: {text:?}"))
}

fn check_goes_on(pc: &Pc) -> Result<()> {
    let console = pc.console();
    // The shell itself may have waited for the disk until now.
    console.shell("true", BACK)?;
    let before = count(console)?;
    console.shell("sleep 3", COMMAND)?;
    let after = count(console)?;
    ensure!(after > before, "nothing was written any more: {before}, {after}");
    let errors = console
        .shell("dmesg | grep -ci 'i/o error\\|remount.*read-only\\|aborting journal'", COMMAND)?;
    ensure!(errors.trim() == "0", "{}", console.shell("dmesg | tail -30", COMMAND)?);
    console.shell("echo written-after > /root/after && sync && cat /root/after", COMMAND)?;
    Ok(())
}
