//! PCs boot in networks in which another DHCP server gives the addresses.

use crate::boot::{BOOT, MAC, OTHER_MAC, QUICK, can_boot, wait_for_login};
use crate::storage_network;
use anyhow::{Context, Result, ensure};
use lab::{
    Authority, Daemon, DhcpServer, Firmware, Lan, Need, OtherDhcp, Pc, PcSlots, SERVER, Site,
    require,
};

/// A site on a LAN where another server gives the addresses.
struct Place {
    other: OtherDhcp,
    servers: Daemon,
    site: Site,
    /// The first PC has a card in the storage network.
    has_storage: bool,
    _slots: PcSlots,
}

impl Place {
    /// The site is in this mode; `recipe`, by its name, is what the other server is told.
    fn lay(name: &str, mode: &str, server: DhcpServer, recipe: Option<&str>) -> Result<Self> {
        let builder = Site::builder().network(&format!("mode = \"{mode}\""));
        Self::on(builder.create(Lan::lay(name)?)?, server, recipe)
    }

    fn on(site: Site, server: DhcpServer, recipe: Option<&str>) -> Result<Self> {
        let _slots = PcSlots::take(2)?;
        let told = recipe.map(|recipe| site.run(&["net", "recipe", recipe])).transpose()?;
        let other = OtherDhcp::start(server, &site, &told.unwrap_or_default())?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        for (name, mac) in [("pc-1", MAC), ("pc-2", OTHER_MAC)] {
            site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
        }
        let servers = site.up()?;
        Ok(Self { other, servers, site, has_storage: false, _slots })
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
        let pc = Pc::builder(name).mac(mac).firmware(firmware);
        if !self.has_storage || name != "pc-1" {
            return pc.start(self.site.lan());
        }
        let storage = ("storage", "52:54:00:00:10:01", storage_network::VIRTIO);
        let storage = storage_network::card(self.site.lan(), storage, storage_network::BRIDGE)?;
        let storage: Vec<&str> = storage.iter().map(String::as_str).collect();
        pc.extra(&storage).start(self.site.lan())
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
fn beside(place: &Place) -> Result<()> {
    place.both_boot()?;
    let client = place.site.lan().add_client("client", "52:54:00:00:00:07")?;
    let mut udhcpc = client.command("udhcpc");
    udhcpc.args(["-f", "-n", "-q", "-t", "5", "-i", "eth0", "-s", "/bin/true"]);
    let told = String::from_utf8_lossy(&udhcpc.output()?.stderr).into_owned();
    ensure!(told.contains("obtained from 10.77.0.9"), "{told}");
    let findings = place.site.browser().get("/api/v1/findings")?.body;
    ensure!(!findings.contains("second-dhcp"), "{findings}");
    Ok(())
}

/// Disks of a storage network, encrypted: who has a card there has its own number, though another server gave it that; who has none
/// boots all the same.
fn over_storage(name: &str, server: DhcpServer) -> Result<()> {
    let files = tempfile::tempdir()?;
    let authority = Authority::new("the school")?;
    authority.trust(files.path())?;
    authority.issue_for(files.path(), "server", &[SERVER, storage_network::STORAGE])?;
    let network = format!("mode = \"proxy\"\n{}", storage_network::SETTING);
    let builder = Site::builder().network(&network).storage(&storage_network::tls(files.path()));
    let site = builder.create(storage_network::lay(name)?)?;
    let place = Place { has_storage: true, ..Place::on(site, server, None)? };
    beside(&place)?;
    for (name, wanted) in
        [("pc-1", [storage_network::STORAGE, "as 10.20.0.14"]), ("pc-2", [SERVER, "NBD"])]
    {
        let stages = place.site.stages(name)?;
        let attach = stages.iter().find(|line| line.stage == "attach").context("no disk")?;
        let is_over = wanted.iter().all(|wanted| attach.detail.contains(wanted));
        ensure!(is_over, "{name}: {attach:?}");
    }
    ensure!(place.servers.log().contains("tls=\"TLSv1_3\""), "{}", place.servers.log());
    place.servers.stop()
}

#[test]
fn beside_dnsmasq_bios_and_uefi_pcs_boot_and_the_proxy_gives_no_address() {
    let server = DhcpServer::Dnsmasq;
    check("proxy", server, || over_storage("proxy", server));
}

#[test]
fn beside_kea_bios_and_uefi_pcs_boot_and_the_proxy_gives_no_address() {
    let server = DhcpServer::Kea;
    check("proxy-kea", server, || {
        let place = Place::lay("proxy-kea", "proxy", server, None)?;
        beside(&place)?;
        place.servers.stop()
    });
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
