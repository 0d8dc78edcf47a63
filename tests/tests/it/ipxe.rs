//! iPXE as loader, and media that boot PCs whose firmware can't.

use crate::boot::{BOOT, MAC, OTHER_MAC, QUICK, can_boot, wait_for_login};
use crate::dhcp::start_dnsmasq;
use anyhow::{Context, Result, ensure};
use lab::{Firmware, Lan, Need, Pc, PcSlots, Preboot, SERVER, Site, require};
use std::path::Path;

const MACHINES: [(&str, &str); 2] = [("pc-1", MAC), ("pc-2", OTHER_MAC)];

fn add_machines(site: &Site) -> Result<()> {
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    for (name, mac) in MACHINES {
        site.run(&["machine", "set", name, "--mac", mac, "--image", "debian"])?;
    }
    Ok(())
}

/// What the machine's boot had of a stage.
fn detail(site: &Site, name: &str, stage: &str) -> Result<String> {
    let stages = site.wait_for_stage(name, "handover", BOOT)?;
    let line = stages.iter().find(|line| line.stage == stage);
    Ok(line.with_context(|| format!("no {stage}: {stages:?}"))?.detail.clone())
}

#[test]
fn pcs_that_are_to_have_ipxe_boot_by_its_script() {
    let needs = [Need::File("/usr/lib/ipxe/snponly.efi")];
    if !can_boot("ipxe") || !require("ipxe", &needs) {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(2)?;
        let site = Site::builder().boot("loader = \"ipxe\"").verbose().create(Lan::lay("ipxe")?)?;
        add_machines(&site)?;
        let checked = site.run(&["check"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(checked.contains("iPXE for PCs that are to have it"), "{checked}");
        let servers = site.up()?;
        // iPXE in the card's ROM goes on by the script at once; EDK2 loads iPXE first.
        let bios = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
        let uefi = Pc::builder("pc-2").mac(OTHER_MAC).firmware(Firmware::Uefi).start(site.lan())?;
        // In its menu somebody chooses nothing.
        site.run(&["machine", "set", "pc-1", "--menu", "image,local-disk,3s"])?;
        wait_for_login(&bios, "pc-1").with_context(|| servers.log())?;
        wait_for_login(&uefi, "pc-2").with_context(|| servers.log())?;
        let log = servers.log();
        for loader in ["Some(IpxeScript)", "Some(IpxeUefi)"] {
            ensure!(log.contains(&format!("loader={loader}")), "{loader}: {log}");
        }
        for (name, _) in MACHINES {
            detail(&site, name, "kernel")?;
            let view = site.browser().json(&format!("/api/v1/machines/{name}"))?;
            ensure!(view["is_proven"] == true, "no host segment came: {view}");
        }
        let why = site.run(&["net", "why", "pc-2"])?;
        ensure!(why.contains("snponly.efi") && why.contains("loader says \"ipxe\""), "{why}");
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

/// Boots from a stick or a CD first.
pub(crate) fn with_medium(pc: &FromMedium<'_>, site: &Site) -> Result<Pc> {
    let FromMedium { name, mac, firmware, medium, is_stick } = *pc;
    let drive = format!("if=none,id=medium,format=raw,readonly=on,file={}", medium.display());
    let device = match is_stick {
        true => "usb-storage,drive=medium,bootindex=0",
        false => "ide-cd,drive=medium,bootindex=0",
    };
    let mut extra = vec!["-drive", &drive, "-device", device];
    if is_stick {
        extra.splice(0..0, ["-device", "qemu-xhci"]);
    }
    Pc::builder(name).mac(mac).firmware(firmware).extra(&extra).start(site.lan())
}

/// A PC that boots from a stick or a CD.
pub(crate) struct FromMedium<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) firmware: Firmware,
    pub(crate) medium: &'a Path,
    pub(crate) is_stick: bool,
}

#[test]
fn a_medium_boots_pcs_beside_another_dhcp_server() {
    let needs = ["dnsmasq", "xorriso", "mformat"].map(Need::Program);
    if !can_boot("medium")
        || !require("medium", &needs)
        || !require("medium", &[Need::File("/usr/lib/ipxe/ipxe.lkrn")])
    {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(2)?;
        let site =
            Site::builder().network("mode = \"proxy\"").verbose().create(Lan::lay("medium")?)?;
        let station = site.lan().add_client("dnsmasq", "52:54:00:00:00:09")?;
        station.netns().ip("address add 10.77.0.9/24 dev eth0")?;
        let _dnsmasq = start_dnsmasq(&site, &station, &["--conf-file=/dev/null"])?;
        add_machines(&site)?;
        let medium = site.root().join("bootlace.iso");
        site.run(&["medium", "build", "--output", &medium.to_string_lossy()])?;
        let servers = site.up()?;
        let medium = medium.as_path();
        let [(bios, bios_mac), (uefi, uefi_mac)] = MACHINES;
        let of =
            |name, mac, firmware, is_stick| FromMedium { name, mac, firmware, medium, is_stick };
        let stick = with_medium(&of(bios, bios_mac, Firmware::Bios, true), &site)?;
        let cd = with_medium(&of(uefi, uefi_mac, Firmware::Uefi, false), &site)?;
        wait_for_login(&stick, bios).with_context(|| servers.log())?;
        wait_for_login(&cd, uefi).with_context(|| servers.log())?;
        let loader = detail(&site, bios, "loader")?;
        ensure!(loader == "it runs", "it loaded more than a script: {loader}");
        for name in [bios, uefi] {
            let view = site.browser().json(&format!("/api/v1/machines/{name}"))?;
            ensure!(view["is_proven"] == true, "no host segment came: {view}");
        }
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_loader_from_a_medium_begins_its_boot_by_saying_that_it_runs() {
    if require("medium-tells", &["udhcpc", "curl"].map(Need::Program)) {
        a_loader_tells().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Firmware of a medium's PC asks nobody: GRUB asks for an address as any program does.
fn a_loader_tells() -> Result<()> {
    let site = Site::builder().create(Lan::lay("medium-tells")?)?;
    add_machines(&site)?;
    let _storage = site.storage()?;
    let servers = site.serve()?;
    let pc = Preboot::plug_in(&site, MAC)?;
    pc.starts_from_medium()?;
    let tells = |mac: &str| format!("{SERVER}/grub/pc/start/x86_64-efi/{mac}");
    let stages = |name: &str| -> Result<Vec<String>> {
        let view = site.browser().json(&format!("/api/v1/machines/{name}"))?;
        let stages = view["boot"]["stages"].as_array().cloned().unwrap_or_default();
        Ok(stages.iter().filter_map(|it| it["stage"].as_str().map(str::to_owned)).collect())
    };

    let waits = pc.config()?;
    ensure!(waits.contains("its firmware never asked this server for an address"), "{waits}");
    // By HTTP any user of a running system could say it, and of another NIC anybody.
    let by_http = pc.curl(&format!("http://{}", tells(MAC)), "-");
    ensure!(by_http.is_err(), "{by_http:?}");
    let mistaken = pc.curl(&format!("tftp://{}", tells(OTHER_MAC)), "-")?;
    ensure!(mistaken.contains(&format!("{MAC} answers at its address")), "{mistaken}");
    ensure!(stages("pc-1")?.is_empty() && stages("pc-2")?.is_empty());

    for power_on in 1..=2 {
        let noted = pc.curl(&format!("tftp://{}", tells(MAC)), "-")?;
        ensure!(noted.contains("Noted"), "{noted}");
        ensure!(stages("pc-1")? == ["dhcp", "loader"], "{power_on}: {:?}", stages("pc-1")?);
        let kernel = pc.load()?;
        ensure!(kernel.command_line.contains("bootlace.host=pc-1"), "{}", kernel.command_line);
    }
    servers.stop()
}
