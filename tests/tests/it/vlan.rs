//! Machines in a VLAN whose packets carry tags, by a switch that lets nothing else through.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Preboot, Recipe, SERVER, Site, VlanSwitch, require};

const VLAN: u16 = 12;

#[test]
fn a_machine_in_a_vlan_boots_and_its_system_leaves_it_there() {
    let name = "vlan";
    if can_boot(name) && require(name, &["udhcpc", "curl", "vde_switch"].map(Need::Program)) {
        in_a_vlan(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn in_a_vlan(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder().network(&format!("vlan = {VLAN}")).create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;

    let kernel = Preboot::start(&site, MAC)?.fetch()?;
    let switch = VlanSwitch::start(site.lan(), VLAN)?;
    let mut pc = Pc::builder("pc-1").mac(MAC).behind(&switch).kernel(&kernel).start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().log_in(COMMAND)?;
    let seen = pc.console().shell("ip -o -4 address show scope global; ip -d link", COMMAND)?;
    let is_tagged =
        seen.contains("eth0.12    inet 10.77.0.") && seen.contains("vlan protocol 802.1Q id 12");
    ensure!(is_tagged, "{seen}");
    let ping =
        pc.console().shell(&format!("ping -c 1 -W 5 {SERVER} >&2 && echo heard"), COMMAND)?;
    ensure!(ping.ends_with("heard"), "{ping}");
    pc.console().send_line("systemctl poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    servers.stop()
}
