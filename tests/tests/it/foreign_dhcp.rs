//! PCs boot in networks in which another DHCP server gives the addresses.

use crate::boot::{BOOT, MAC, OTHER_MAC, QUICK, can_boot, wait_for_login};
use crate::dhcp::start_dnsmasq;
use anyhow::{Context, Result, ensure};
use lab::{Client, Daemon, Firmware, Lan, Need, Pc, PcSlots, Site, require};

/// A site in this mode on a LAN where dnsmasq gives addresses from 10.77.0.10 on, with these further options.
struct Place {
    _dnsmasq: Daemon,
    _station: Client,
    servers: Daemon,
    site: Site,
}

impl Place {
    fn on(site: Site, dnsmasq: &[&str]) -> Result<Self> {
        let station = site.lan().add_client("dnsmasq", "52:54:00:00:00:09")?;
        station.netns().ip("address add 10.77.0.9/24 dev eth0")?;
        let dnsmasq = start_dnsmasq(&site, &station, dnsmasq)?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for (name, mac) in [("pc-1", MAC), ("pc-2", OTHER_MAC)] {
            site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
        }
        let servers = site.up()?;
        Ok(Self { _dnsmasq: dnsmasq, _station: station, servers, site })
    }

    fn power_on(&self, name: &str, mac: &str, firmware: Firmware) -> Result<Pc> {
        Pc::builder(name).mac(mac).firmware(firmware).start(self.site.lan())
    }

    /// The machine has booted with an address of the other server.
    fn has_booted(&self, pc: &Pc, name: &str) -> Result<()> {
        wait_for_login(pc, name)?;
        let stages = self.site.wait_for_stage(name, "handover", BOOT)?;
        let detail = |stage: &str| {
            let line = stages.iter().find(|line| line.stage == stage);
            line.map(|line| line.detail.as_str()).with_context(|| format!("no {stage}: {stages:?}"))
        };
        let (asked, has) = (detail("dhcp")?, detail("address")?);
        ensure!(asked.contains("10.77.0.1") && asked.contains("by another DHCP server"), "{asked}");
        ensure!(has.contains("by DHCP from 10.77.0.9"), "{has}");
        detail("loader")?;
        let view = self.site.browser().json(&format!("/api/v1/machines/{name}"))?;
        ensure!(view["is_proven"] == true, "the machine has not shown that it is itself: {view}");
        Ok(())
    }
}

#[test]
fn beside_a_dhcp_server_bios_and_uefi_pcs_boot_and_the_proxy_gives_no_address() {
    let needs = ["dnsmasq", "udhcpc"].map(Need::Program);
    if !can_boot("proxy") || !require("proxy", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(2)?;
        let site = Site::builder().network("mode = \"proxy\"").create(Lan::lay("proxy")?)?;
        let place = Place::on(site, &["--conf-file=/dev/null"])?;
        let bios = place.power_on("pc-1", MAC, Firmware::Bios)?;
        let uefi = place.power_on("pc-2", OTHER_MAC, Firmware::Uefi)?;
        place.has_booted(&bios, "pc-1")?;
        place.has_booted(&uefi, "pc-2")?;

        let client = place.site.lan().add_client("client", "52:54:00:00:00:07")?;
        let mut udhcpc = client.command("udhcpc");
        udhcpc.args(["-f", "-n", "-q", "-t", "5", "-i", "eth0", "-s", "/bin/true"]);
        let told = String::from_utf8_lossy(&udhcpc.output()?.stderr).into_owned();
        ensure!(told.contains("obtained from 10.77.0.9"), "{told}");
        let findings = place.site.browser().get("/api/v1/findings")?.body;
        ensure!(!findings.contains("second-dhcp"), "{findings}");
        place.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn where_another_server_names_the_loader_pcs_boot_without_dhcp_of_ours() {
    if !can_boot("external") || !require("external", &[Need::Program("dnsmasq")]) {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(2)?;
        let site = Site::builder().network("mode = \"external\"").create(Lan::lay("external")?)?;
        let recipe = site.root().join("recipe.conf");
        std::fs::write(&recipe, site.run(&["net", "recipe", "dnsmasq"])?)?;
        let place = Place::on(site, &["-C", &recipe.to_string_lossy()])?;
        // Who chooses nothing in a menu boots the image.
        place.site.run(&["machine", "set", "pc-1", "--menu", "image,local-disk,3s"])?;
        let bios = place.power_on("pc-1", MAC, Firmware::Bios)?;
        let uefi = place.power_on("pc-2", OTHER_MAC, Firmware::Uefi)?;
        place.has_booted(&bios, "pc-1")?;
        place.has_booted(&uefi, "pc-2")?;
        let seen = place.site.browser().get("/api/v1/machines/pc-1")?.body;
        ensure!(seen.contains("10.77.0.1"), "{seen}");
        place.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
