//! A storage server with two addresses: machines move over when one is lost, and boot when it is away.

use crate::boot::{BOOT, COMMAND, MAC, can_boot};
use anyhow::{Result, ensure};
use lab::{Console, Lan, Need, Pc, PcSlots, Preboot, Recipe, SERVER, Site, require};
use std::time::Duration;

/// The preferred address. Its prefix makes it independent of the server's other one.
const FIRST: &str = "10.77.0.9";

/// A server that went silent is given up after 5 s.
const MOVE: Duration = Duration::from_secs(40);

#[test]
fn a_machine_goes_on_by_the_other_address_of_its_storage_server() {
    let needs = ["udhcpc", "curl"].map(Need::Program);
    if can_boot("two-addresses") && require("two-addresses", &needs) {
        two_addresses().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn two_addresses() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let lan = Lan::lay("two-addresses")?;
    lan.netns().ip(&format!("address add {FIRST}/32 dev br0"))?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .storage(&format!("nbd_addresses = [\"{FIRST}\", \"{SERVER}\"]"))
        .create(lan)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let mut servers = site.up()?;

    let pc = boot(&site, FIRST)?;
    // So it proves itself at both addresses.
    servers.wait_for_log("has_key=true", COMMAND)?;
    pc.console().shell("dmesg -n err", COMMAND)?;
    site.lan().netns().ip(&format!("address del {FIRST}/32 dev br0"))?;
    pc.console().send_line("echo 3 >/proc/sys/vm/drop_caches; cksum /usr/bin/perl")?;
    let back = format!(" ms, from {SERVER}:10809");
    pc.console().wait_for(&back, MOVE)?;
    reads(pc.console())?;
    drop(pc);

    let pc = boot(&site, SERVER)?;
    reads(pc.console())?;
    drop(pc);
    servers.stop()
}

/// Boots to a shell; the disk must come from this address.
fn boot(site: &Site, from: &str) -> Result<Pc> {
    let kernel = Preboot::start(site, MAC)?.fetch()?;
    let pc = Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(site.lan())?;
    pc.console().wait_for(&format!("attach: NBD {from}:10809 pc-1"), BOOT)?;
    pc.console().wait_for("\n# ", BOOT)?;
    Ok(pc)
}

fn reads(console: &Console) -> Result<()> {
    let read = console.shell("echo 3 >/proc/sys/vm/drop_caches; cksum /bin/sh", COMMAND)?;
    ensure!(read.ends_with("/bin/sh"), "{read}");
    Ok(())
}
