//! A machine with two network cards: each has its address, and the disk is the machine's.

use crate::boot::{BOOT, COMMAND, MAC, OTHER_MAC, QUICK, can_boot};
use crate::dhcp::Udhcpc;
use anyhow::{Context, Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Preboot, Site, require};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a BIOS says when it asks for an address.
const FIRMWARE: [&str; 4] = ["-x", "0x5d:0000", "-V", "PXEClient:Arch:00000:UNDI:002001"];

#[test]
fn firmware_with_two_cards_gets_an_address_for_each() {
    let name = "two-cards";
    let needs = ["grub-mkimage", "udhcpc"].map(Need::Program);
    if require(name, &[Need::Root]) && require(name, &needs) {
        two_addresses(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn two_addresses(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["machine", "set", "lab-07", "--mac", MAC, "--add-mac", OTHER_MAC])?;
    let servers = site.up()?;
    let cards = [site.lan().add_client("port", MAC)?, site.lan().add_client("dock", OTHER_MAC)?];
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let clients =
        [Udhcpc::new(&cards[0], folders[0].path())?, Udhcpc::new(&cards[1], folders[1].path())?];
    let mut address_of: [Option<String>; 2] = [None, None];
    // Both ask at once, and again.
    for round in 0..2 {
        let told: Vec<Result<BTreeMap<String, String>>> = std::thread::scope(|scope| {
            let asking: Vec<_> =
                clients.iter().map(|client| scope.spawn(|| client.ask(&FIRMWARE))).collect();
            asking.into_iter().map(|it| it.join().expect("it does not panic")).collect()
        });
        for (told, known) in told.into_iter().zip(&mut address_of) {
            let told = told?;
            let address = told.get("ip").context("no address")?;
            ensure!(told["lease"] != "300", "a card of a machine is no stranger: {told:?}");
            ensure!(known.as_ref().is_none_or(|known| known == address), "round {round}: {told:?}");
            *known = Some(address.clone());
        }
    }
    ensure!(address_of[0] != address_of[1], "both have {address_of:?}");
    let view = site.browser().json("/api/v1/machines/lab-07")?;
    let nics = view["nics"].as_array().context("no nics")?;
    let addresses: Vec<_> = nics.iter().map(|nic| nic["address"].as_str()).collect();
    ensure!(addresses == address_of.each_ref().map(Option::as_deref), "{view}");
    let discovered = site.browser().json("/api/v1/discovered")?;
    ensure!(discovered.as_array().is_some_and(Vec::is_empty), "{discovered}");
    drop(cards);
    servers.stop()
}

#[test]
fn a_second_card_is_known_by_the_uuid_that_firmware_sends() {
    let name = "uuid";
    let needs = ["grub-mkimage", "udhcpc"].map(Need::Program);
    if require(name, &[Need::Root]) && require(name, &needs) {
        probable_machine(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn probable_machine(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["machine", "set", "lab-07", "--mac", MAC])?;
    let servers = site.up()?;
    // Option 97: kind 0, and b9a7c1de-52f0-11ec-8d3f-0242ac130003 in the byte order of SMBIOS.
    let uuid = ["-x", "0x61:00dec1a7b9f052ec118d3f0242ac130003"];
    for (purpose, mac) in [("port", MAC), ("dock", OTHER_MAC)] {
        let card = site.lan().add_client(purpose, mac)?;
        let folder = tempfile::tempdir()?;
        Udhcpc::new(&card, folder.path())?.ask(&[&FIRMWARE[..], &uuid].concat())?;
    }
    let view = site.browser().json("/api/v1/machines/lab-07")?;
    ensure!(view["uuid"] == "b9a7c1de-52f0-11ec-8d3f-0242ac130003", "{view}");
    let discovered = site.browser().json("/api/v1/discovered")?;
    ensure!(discovered[0]["mac"] == OTHER_MAC, "{discovered}");
    ensure!(discovered[0]["probable_machine"] == "lab-07", "{discovered}");
    let list = site.run(&["machine", "ls"])?;
    let command = format!("machine set lab-07 --add-mac {OTHER_MAC}");
    // As it works when it is typed.
    let whole = format!("bootlace --root {} {command}", site.root().display());
    ensure!(list.contains(&whole), "{list}");
    let words: Vec<&str> = command.split(' ').collect();
    site.run(&words)?;
    // The server sees within a second what another process has changed.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let view = site.browser().json("/api/v1/machines/lab-07")?;
        if view["other_macs"][0] == OTHER_MAC {
            ensure!(view["boot"]["mac"] == OTHER_MAC, "its boot is the machine's now: {view}");
            return servers.stop();
        }
        ensure!(Instant::now() < deadline, "{view}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_pc_boots_from_one_card_then_from_the_other_and_has_the_same_disk() {
    let name = "second-nic";
    if can_boot(name) && require(name, &["udhcpc", "curl"].map(Need::Program)) {
        one_disk(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn one_disk(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
        .create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "persistent"]].concat())?;
    let servers = site.up()?;

    let pc = boot(&site, MAC)?;
    let written = "mount -o remount,rw / && echo from the port >/witness && sync && cat /witness";
    ensure!(pc.console().shell(written, COMMAND)?.ends_with("from the port"));
    drop(pc);

    // Over AoE the storage server must answer the other card.
    for root in ["nbd", "aoe"] {
        site.run(&["machine", "set", "pc-1", "--add-mac", OTHER_MAC, "--root-kind", root])?;
        let pc = boot(&site, OTHER_MAC)?;
        let read = pc.console().shell("cat /witness", COMMAND)?;
        ensure!(read.ends_with("from the port"), "over {root}: {read}");
        let cards = pc.console().shell("ls /sys/class/net", COMMAND)?;
        ensure!(cards.contains("eth1") || cards.split_whitespace().count() >= 3, "{cards}");
    }

    let view = site.browser().json("/api/v1/machines/pc-1")?;
    ensure!(view["boot"]["mac"] == OTHER_MAC, "{view}");
    let page = site.browser().get("/machines/pc-1")?.body;
    let first = format!("<td data-label=\"From\"><code>{MAC}</code></td>");
    ensure!(page.contains(&first), "the page forgets the boot from the other card: {page}");
    servers.stop()
}

/// Boots a PC with both cards from this one, to a shell.
fn boot(site: &Site, mac: &str) -> Result<Pc> {
    let started = Instant::now();
    let other = if mac == MAC { OTHER_MAC } else { MAC };
    let kernel = Preboot::start(site, mac)?.fetch()?;
    let netdev = format!("tap,id=n1,ifname={},script=no,downscript=no", site.lan().add_tap()?);
    let device = format!("virtio-net-pci,netdev=n1,mac={other},romfile=");
    let pc = Pc::builder("pc-1")
        .mac(mac)
        .kernel(&kernel)
        .extra(&["-netdev", &netdev, "-device", &device])
        .start(site.lan())?;
    pc.console().wait_for(" attach: ", BOOT)?;
    pc.console().wait_for("\n# ", BOOT)?;
    pc.console().shell("dmesg -n emerg", Duration::from_secs(60))?;
    println!("from {mac}: {:.1} s to the shell", started.elapsed().as_secs_f64());
    Ok(pc)
}
