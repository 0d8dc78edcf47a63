//! PCs boot in networks in which another DHCP server gives the addresses.

use crate::boot::{BOOT, MAC, OTHER_MAC, QUICK, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Daemon, DhcpServer, Firmware, Lan, Need, OtherDhcp, Pc, PcSlots, Site, require};

/// A site on a LAN where another server gives the addresses.
struct Place {
    other: OtherDhcp,
    servers: Daemon,
    site: Site,
    _slots: PcSlots,
}

impl Place {
    /// The site is in this mode; `recipe`, by its name, is what the other server is told.
    fn lay(name: &str, mode: &str, server: DhcpServer, recipe: Option<&str>) -> Result<Self> {
        let _slots = PcSlots::take(2)?;
        let site =
            Site::builder().network(&format!("mode = \"{mode}\"")).create(Lan::lay(name)?)?;
        let told = recipe.map(|recipe| site.run(&["net", "recipe", recipe])).transpose()?;
        let other = OtherDhcp::start(server, &site, &told.unwrap_or_default())?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for (name, mac) in [("pc-1", MAC), ("pc-2", OTHER_MAC)] {
            site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
        }
        let servers = site.up()?;
        Ok(Self { other, servers, site, _slots })
    }

    /// A PC with BIOS and one with UEFI boot.
    fn both_boot(&self) -> Result<()> {
        let bios = self.power_on("pc-1", MAC, Firmware::Bios)?;
        let uefi = self.power_on("pc-2", OTHER_MAC, Firmware::Uefi)?;
        for (pc, name) in [(&bios, "pc-1"), (&uefi, "pc-2")] {
            let told = || format!("{name}; the other server says:\n{}", self.other.log());
            self.has_booted(pc, name).with_context(told)?;
        }
        Ok(())
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

/// Runs the test, unless this machine can't.
fn check(name: &str, server: DhcpServer, test: impl FnOnce() -> Result<()>) {
    if can_boot(name) && require(name, &[server.need(), Need::Program("udhcpc")]) {
        test().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Beside this server, which nobody has told of us, PCs boot, and we give no address to anybody.
fn beside(name: &str, server: DhcpServer) -> Result<()> {
    let place = Place::lay(name, "proxy", server, None)?;
    place.both_boot()?;
    let client = place.site.lan().add_client("client", "52:54:00:00:00:07")?;
    let mut udhcpc = client.command("udhcpc");
    udhcpc.args(["-f", "-n", "-q", "-t", "5", "-i", "eth0", "-s", "/bin/true"]);
    let told = String::from_utf8_lossy(&udhcpc.output()?.stderr).into_owned();
    ensure!(told.contains("obtained from 10.77.0.9"), "{told}");
    let findings = place.site.browser().get("/api/v1/findings")?.body;
    ensure!(!findings.contains("second-dhcp"), "{findings}");
    place.servers.stop()
}

#[test]
fn beside_dnsmasq_bios_and_uefi_pcs_boot_and_the_proxy_gives_no_address() {
    let server = DhcpServer::Dnsmasq;
    check("proxy", server, || beside("proxy", server));
}

#[test]
fn beside_kea_bios_and_uefi_pcs_boot_and_the_proxy_gives_no_address() {
    let server = DhcpServer::Kea;
    check("proxy-kea", server, || beside("proxy-kea", server));
}

#[test]
fn where_dnsmasq_names_the_loader_pcs_boot_without_dhcp_of_ours() {
    let server = DhcpServer::Dnsmasq;
    check("external", server, || {
        let place = Place::lay("external", "external", server, Some("dnsmasq"))?;
        // Who chooses nothing in a menu boots the image.
        place.site.run(&["machine", "set", "pc-1", "--menu", "image,local-disk,3s"])?;
        place.both_boot()?;
        let seen = place.site.browser().get("/api/v1/machines/pc-1")?.body;
        ensure!(seen.contains("10.77.0.1"), "{seen}");
        place.servers.stop()
    });
}

#[test]
fn where_kea_or_isc_dhcpd_names_the_loader_pcs_boot() {
    for (name, server, recipe) in
        [("ext-kea", DhcpServer::Kea, "kea"), ("ext-isc", DhcpServer::Isc, "isc")]
    {
        check(name, server, || {
            let place = Place::lay(name, "external", server, Some(recipe))?;
            place.both_boot()?;
            place.servers.stop()
        });
    }
}
