//! PCs with Secure Boot and Microsoft's keys boot by the distribution's signed loader, with nothing to enrol; and PCs boot by
//! UEFI HTTP Boot.

use crate::boot::{BOOT, MAC, QUICK, can_boot};
use crate::ipxe::{FromMedium, with_medium};
use anyhow::{Result, ensure};
use lab::{
    Daemon, DhcpServer, Firmware, Lan, Need, OtherDhcp, Pc, PcSlots, Release, Site, SiteBuilder,
    require, signed_loader,
};
use serde_json::Value;

/// OVMF's own settings by which it leaves out PXE; else it tries that for two minutes before HTTP Boot.
const NO_PXE: [&str; 4] = [
    "-fw_cfg",
    "name=opt/org.tianocore/IPv4PXESupport,string=no",
    "-fw_cfg",
    "name=opt/org.tianocore/IPv6PXESupport,string=no",
];

struct Room {
    servers: Daemon,
    site: Site,
    _slot: PcSlots,
}

/// Runs the test in a room of its own, unless this machine can't.
fn in_a_room(name: &str, test: impl FnOnce(&Room) -> Result<()>) {
    let signed = [
        Need::File("/usr/lib/shim/shimx64.efi.signed"),
        Need::File("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
    ];
    if !can_boot(name) || !require(name, &signed) {
        return;
    }
    let room = Room::set_up(name, &Site::builder())
        .unwrap_or_else(|error| panic!("no room for {name}: {error:#}"));
    if let Err(error) = test(&room) {
        panic!("{error:#}");
    }
    room.servers.stop().expect("the servers stop when they are asked to");
}

impl Room {
    fn set_up(name: &str, site: &SiteBuilder) -> Result<Self> {
        let _slot = PcSlots::take(1)?;
        let image = QUICK.image(|text| eprintln!("{text}"))?;
        let site = site.create(Lan::lay(name)?)?;
        let imported =
            site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        ensure!(!imported.contains("no signature"), "Debian has signed its kernel: {imported}");
        let servers = site.up()?;
        site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
        Ok(Self { servers, site, _slot })
    }

    /// Boots the PC until its system is up; returns what its boot says of its loader, and the machine.
    fn boot(&self, pc: &Pc) -> Result<(String, Value)> {
        let stages = self.site.wait_for_stage("pc-1", "up", BOOT);
        println!("{}", pc.console().text());
        let stages = stages?;
        let detail = stages.iter().find(|line| line.stage == "loader").map(|line| &line.detail);
        let loader = detail.cloned().unwrap_or_default();
        println!("loader: {loader}; {}", self.site.run(&["net", "why", "pc-1"])?);
        Ok((loader, self.site.browser().json("/api/v1/machines/pc-1")?))
    }
}

#[test]
fn a_pc_with_secure_boot_boots_with_nothing_enrolled() {
    in_a_room("secure-boot", |room| {
        let pc = Pc::builder("pc-1").firmware(Firmware::UefiSecureBoot).start(room.site.lan())?;
        let (loader, machine) = room.boot(&pc)?;
        ensure!(
            loader.starts_with("shimx64.efi, ") && loader.contains("; grubx64.efi, "),
            "{loader}"
        );
        let text = pc.console().text();
        ensure!(
            text.contains("EFI stub: UEFI Secure Boot is enabled."),
            "the kernel knows nothing of it"
        );
        ensure!(machine["secure_boot"] == "on", "{machine}");
        ensure!(machine["loader"]["file"] == "shimx64.efi", "{machine}");
        let page = room.site.browser().get("/machines/pc-1")?;
        ensure!(page.body.contains("<dt>Secure Boot</dt><dd>on</dd>"), "{}", page.body);
        let why = room.site.run(&["net", "why", MAC])?;
        ensure!(why.contains("its Secure Boot was on in its last boot"), "{why}");
        Ok(())
    });
}

#[test]
fn a_pc_boots_by_uefi_http_boot() {
    in_a_room("http-boot", |room| {
        let pc = Pc::builder("pc-1").firmware(Firmware::Uefi).extra(&NO_PXE);
        let pc = pc.start(room.site.lan())?;
        let (loader, machine) = room.boot(&pc)?;
        ensure!(loader.contains(" by HTTP in "), "{loader}");
        ensure!(machine["firmware"] == "uefi-x64-http", "{machine}");
        // OVMF without keys.
        ensure!(machine["secure_boot"] == "setup", "{machine}");
        ensure!(machine["loader"]["file"] == "bl.efi", "ours is faster: {machine}");
        Ok(())
    });
}

/// The loader would ask that server for its files, if it were Debian 12's.
#[test]
fn beside_another_dhcp_server_a_pc_with_secure_boot_boots_by_debian_13_s_loader() {
    let name = "sb-proxy";
    if !can_boot(name) || !require(name, &[DhcpServer::Dnsmasq.need()]) {
        return;
    }
    let run = || -> Result<()> {
        let folder = signed_loader(Release::Debian13, |text| eprintln!("{text}"))?;
        let site = Site::builder()
            .network("mode = \"proxy\"")
            .boot(&format!("signed_loader = \"{}\"", folder.display()));
        let room = Room::set_up(name, &site)?;
        let _other = OtherDhcp::start(DhcpServer::Dnsmasq, &room.site, "")?;
        let pc = Pc::builder("pc-1").firmware(Firmware::UefiSecureBoot);
        let pc = pc.start(room.site.lan())?;
        let (loader, machine) = room.boot(&pc)?;
        ensure!(
            loader.starts_with("shimx64.efi, ") && loader.contains("; grubx64.efi, "),
            "{loader}"
        );
        ensure!(machine["secure_boot"] == "on", "{machine}");
        room.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_pc_with_secure_boot_boots_from_a_medium_where_dhcp_names_no_loader() {
    let name = "sb-medium";
    let needs = ["xorriso", "mformat"].map(Need::Program);
    if !can_boot(name)
        || !require(name, &needs)
        || !require(name, &[DhcpServer::Dnsmasq.need(), Need::File("/usr/lib/ipxe/ipxe.lkrn")])
    {
        return;
    }
    let run = || -> Result<()> {
        let room = Room::set_up(name, &Site::builder().network("mode = \"external\""))?;
        let _other = OtherDhcp::start(DhcpServer::Dnsmasq, &room.site, "")?;
        let medium = room.site.root().join("bootlace.iso");
        room.site.run(&["medium", "build", "--output", &medium.to_string_lossy()])?;
        let from = FromMedium {
            name: "pc-1",
            mac: MAC,
            firmware: Firmware::UefiSecureBoot,
            medium: &medium,
            is_stick: true,
        };
        let pc = with_medium(&from, &room.site)?;
        let (loader, machine) = room.boot(&pc)?;
        ensure!(loader == "it runs", "it comes from the medium: {loader}");
        ensure!(machine["secure_boot"] == "on", "{machine}");
        ensure!(machine["is_proven"] == true, "no host segment came: {machine}");
        room.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
