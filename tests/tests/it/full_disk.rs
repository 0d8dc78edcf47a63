//! The disk with the state and the machines' layers is full.

use crate::boot::can_boot;
use crate::machine_disk::with_disk;
use anyhow::{Context, Result, ensure};
use lab::{Client, Lan, Need, Preboot, Recipe, Site, SmallDisk, require};
use std::process::Command;
use std::time::{Duration, Instant};

fn wait_until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A PC that nobody has seen gets an address; returns it.
fn address_of(client: &Client, number: u8) -> Result<String> {
    client.netns().ip("link set eth0 down")?;
    client.netns().ip(&format!("link set eth0 address 52:54:00:00:00:{number:02x}"))?;
    client.netns().ip("link set eth0 up")?;
    let mut udhcpc = client.command("udhcpc");
    udhcpc.args(["-f", "-n", "-q", "-i", "eth0", "-t", "5", "-T", "2", "-s", "/bin/true"]);
    // Nobody else than firmware is given one.
    udhcpc.args(["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"]);
    let output = udhcpc.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find_map(|line| line.split_once("lease of ").map(|(_, rest)| rest));
    let address = line.and_then(|rest| rest.split([' ', ',']).next());
    Ok(address.with_context(|| format!("no address: {said}"))?.to_owned())
}

#[test]
fn a_full_disk_keeps_no_address_from_a_pc_and_no_server_from_starting() {
    let name = "a_full_disk_keeps_no_address";
    if !require(name, &[Need::Root, Need::Program("udhcpc"), Need::Program("grub-mkimage")]) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay("full")?)?;
        let state = site.root().join("var/lib/bootlace");
        let disk = SmallDisk::mount(&state, "64m")?;
        let servers = site.serve()?;
        let client = site.lan().add_client("client", "52:54:00:00:00:01")?;
        let reserve = state.join("state.reserve");
        let lies_there = || -> Result<String> {
            let listed = Command::new("ls").arg("-lRs").arg(&state).output()?;
            Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
        };
        wait_until("a reserve", || Ok(reserve.exists()))?;
        let is_found = || -> Result<bool> {
            let told = site.browser().json("/api/v1/findings")?;
            let findings = told["findings"].as_array().context("no list")?;
            Ok(findings.iter().any(|finding| finding["kind"] == "state-disk-full"))
        };
        ensure!(!is_found()?, "there is room");

        disk.fill()?;
        let mut addresses = Vec::new();
        for number in 1..=6 {
            let address = address_of(&client, number);
            addresses.push(address.with_context(|| format!("the log:\n{}", servers.log()))?);
        }
        wait_until("a finding", is_found)?;
        servers.stop()?;

        // What was the log of the database is others' room now.
        disk.fill()?;
        let before = lies_there()?;
        let had_log = state.join("state.db-wal").exists();
        let servers = site.serve()?;
        for (number, address) in (1..=6).zip(&addresses) {
            ensure!(address_of(&client, number)? == *address, "PC {number} had {address}");
        }
        if had_log && reserve.exists() {
            // What had not found its place in the database is there now, and has left room for these few.
            disk.fill()?;
        } else {
            ensure!(
                !reserve.exists(),
                "it started without any room?\n{before}\n{}\n{}",
                lies_there()?,
                servers.log()
            );
        }
        wait_until("a finding", is_found)?;

        std::fs::remove_file(disk.filler())?;
        wait_until("a new reserve", || Ok(reserve.exists()))?;
        wait_until("the end of the finding", || Ok(!is_found()?))?;
        servers.stop()?;
        drop(disk);
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// The machine is told in its loader, and its page tells, that the disk is full.
fn waits_for_room(site: &Site, preboot: &Preboot, machine: &str) -> Result<()> {
    wait_until("what the loader shows", || Ok(preboot.config()?.contains("is full")))?;
    let page = site.browser().get(&format!("/machines/{machine}"))?.body;
    ensure!(page.contains("It waits in the loader") && page.contains("is full"), "{page}");
    Ok(())
}

/// The machine boots, and reads its disk.
fn boots(preboot: &Preboot, machine: &str) -> Result<()> {
    let kernel = preboot.fetch()?;
    with_disk(preboot, &kernel, machine, |disk| Ok(disk.read_start(4096)?)).map(drop)
}

#[test]
fn a_boot_on_a_full_disk_waits_for_room_if_it_needs_some() {
    let name = "fullboot";
    if can_boot(name) && require(name, &["udhcpc", "curl"].map(Need::Program)) {
        boot_on_a_full_disk(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

fn boot_on_a_full_disk(name: &str) -> Result<()> {
    let site = Site::builder().create(Lan::lay(name)?)?;
    let state = site.root().join("var/lib/bootlace");
    let disk = SmallDisk::mount(&state, "64m")?;
    disk.lies_outside("images", &site.root().join("images"))?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machines = [("discard", 1), ("persistent", 2), ("ram", 3)];
    let mac = |number: i32| format!("52:54:00:00:00:0{number}");
    for (mode, number) in machines {
        let set = ["machine", "set", mode, "--mac", &mac(number), "--image", "debian"];
        site.run(&[&set[..], &["--write-mode", mode]].concat())?;
    }
    let servers = site.up()?;
    wait_until("a reserve", || Ok(state.join("state.reserve").exists()))?;
    // The first boot has the initrd built.
    boots(&Preboot::start(&site, &mac(3))?, "ram")?;

    disk.fill()?;
    boots(&Preboot::start(&site, &mac(3))?, "ram").context("it needs no room")?;
    for (mode, number) in &machines[..2] {
        let preboot = Preboot::start(&site, &mac(*number))?;
        waits_for_room(&site, &preboot, mode).with_context(|| format!("in mode {mode}"))?;
        std::fs::remove_file(disk.filler())?;
        boots(&preboot, mode).with_context(|| format!("{mode} when there is room again"))?;
        drop(preboot);
        disk.fill()?;
        // What it has is enough: its own layer, or the room of its former one.
        let again = Preboot::start(&site, &mac(*number))?;
        boots(&again, mode).with_context(|| format!("{mode} once more on the full disk"))?;
    }
    servers.stop()?;
    drop(disk);
    Ok(())
}
