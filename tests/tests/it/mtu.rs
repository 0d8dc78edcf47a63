//! Packets larger than usual: taken where the network carries them, and not where it only seems so.

use crate::boot::{BOOT, COMMAND, MAC, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};

#[test]
fn large_packets_are_taken_if_the_network_carries_them() {
    let name = "mtu";
    if can_boot(name) && require(name, &["udhcpc", "curl"].map(Need::Program)) {
        large_packets(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn large_packets(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder().network("mtu = 9000").create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;

    site.lan().set_mtu(9000, 1500)?;
    let pc = power_on(&site, "virtio-net-pci")?;
    let warning = "MTU 1500 instead of 9000: packets of 9000 bytes don't get to 10.77.0.1 and back";
    pc.console().wait_for(warning, BOOT)?;
    pc.console().wait_for("bootlace: mount: ", COMMAND)?;
    let address = address(&site)?;
    ensure!(address.contains(warning), "the page does not say it: {address}");
    drop(pc);

    site.lan().set_mtu(9000, 9000)?;
    let pc = power_on(&site, "virtio-net-pci,host_mtu=1500")?;
    pc.console().wait_for("MTU 1500 instead of 9000: the card refuses packets of 9000", BOOT)?;
    pc.console().wait_for("bootlace: mount: ", COMMAND)?;
    drop(pc);

    let pc = power_on(&site, "virtio-net-pci")?;
    wait_for_login(&pc, "pc-1")?;
    let reported = self::address(&site)?;
    ensure!(reported.ends_with(", MTU 9000"), "{reported}");
    pc.console().log_in(COMMAND)?;
    let mtu = pc.console().shell("cat /sys/class/net/e*/mtu", COMMAND)?;
    ensure!(mtu == "9000", "the system has changed it: {mtu}");
    servers.stop()
}

fn power_on(site: &Site, card: &str) -> Result<Pc> {
    let preboot = Preboot::start(site, MAC)?;
    let kernel = preboot.fetch()?;
    drop(preboot);
    Pc::builder("pc-1").mac(MAC).nic_model(card).kernel(&kernel).start(site.lan())
}

/// What the last boot reported when it had an address.
fn address(site: &Site) -> Result<String> {
    let stages = site.wait_for_stage("pc-1", "address", COMMAND)?;
    let line = stages.into_iter().rfind(|line| line.stage == "address");
    Ok(line.context("no address")?.detail)
}
