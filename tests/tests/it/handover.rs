//! The real system's network service neither takes the boot NIC down nor forgets its name servers, and
//! stopping the system always ends. Firmware and loader, the matter of `boot.rs`, are played by foreign
//! programs.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, can_boot, wait_for_login};
use crate::storage_network;
use anyhow::{Context, Result, ensure};
use lab::{Console, Lan, Need, Pc, PcSlots, Preboot, Recipe, SERVER, Site, require};
use std::time::Instant;

/// Name server of the site's settings; images have others.
const NAME_SERVER: &str = "10.77.0.53";

/// Seconds after which a network service has done to the NIC what it will: leases are asked for, and
/// waiting for an answer is over.
const SETTLED_SECONDS: u32 = 20;

/// Boots after the first: `MORE_BOOTS`, for a long test.
fn more_boots() -> u32 {
    std::env::var("MORE_BOOTS").ok().and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Over which network the disk comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Boot,
    /// By a card of its own; the boot NIC is left alone all the same.
    Storage,
}

fn check(name: &str, recipe: &Recipe, service: &str, over: Over) {
    if can_boot(name) && require(name, &[Need::Program("udhcpc"), Need::Program("curl")]) {
        lives_through(name, recipe, service, over).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn lives_through(name: &str, recipe: &Recipe, service: &str, over: Over) -> Result<()> {
    let mut slot = PcSlots::take(1)?;
    let image = recipe.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().name_server(NAME_SERVER);
    let site = match over {
        Over::Boot => site.create(Lan::lay(name)?)?,
        Over::Storage => site
            .network(storage_network::SETTING)
            .storage("nbd_addresses = [\"10.20.0.1\"]")
            .create(storage_network::lay(name)?)?,
    };
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    let settings = ["--root-kind", "nbd", "--write-mode", "persistent"];
    site.run(&[&machine[..], &settings].concat())?;
    let servers = site.up()?;

    let mut pc = power_on(&site, over)?;
    let console = pc.console().clone();
    slot.lend(|| settle(&console))??;
    check_network(&console, service, over).context("in the first boot")?;
    // As an upgrade of its package does it.
    console.shell(&format!("systemctl restart {service}; sleep 5"), COMMAND)?;
    check_network(&console, service, over).with_context(|| format!("{service} was restarted"))?;
    console.shell("echo mine > /root/mine; sync", COMMAND)?;
    stop(&mut pc, "reboot")?;

    // What the service has kept of the first boot must not harm the next one.
    for n in 1..=more_boots() {
        let mut pc = power_on(&site, over)?;
        let console = pc.console().clone();
        let kept = console.shell("cat /root/mine", COMMAND)?;
        ensure!(kept == "mine", "what was written before the reboot is not there: {kept:?}");
        slot.lend(|| settle(&console))??;
        check_network(&console, service, over).with_context(|| format!("in boot {}", n + 1))?;
        stop(&mut pc, if n % 2 == 1 { "poweroff" } else { "reboot" })?;
    }
    servers.stop()
}

/// Lets the network service do what it will.
fn settle(console: &Console) -> Result<()> {
    console.shell(&format!("sleep {SETTLED_SECONDS}"), COMMAND).map(drop)
}

/// Boots to a root shell.
fn power_on(site: &Site, over: Over) -> Result<Pc> {
    let started = Instant::now();
    let kernel = Preboot::start(site, MAC)?.fetch()?;
    // Another boot of the same kernel in QEMU would not be seen by the boot server.
    let mut arguments = vec!["-no-reboot".to_owned()];
    if over == Over::Storage {
        let card = ("storage", "52:54:00:00:10:01", storage_network::VIRTIO);
        arguments.extend(storage_network::card(site.lan(), card, "br1")?);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let pc = Pc::builder("pc-1").mac(MAC).kernel(&kernel).extra(&arguments).start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    println!("to the login prompt: {:.1} s", started.elapsed().as_secs_f64());
    let stages = site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().log_in(COMMAND)?;
    // Each kernel must unpack what comes behind the initrd.
    let address = stages.iter().find(|line| line.stage == "address").context("no address")?;
    ensure!(!address.detail.contains("host segment"), "{}", address.detail);
    Ok(pc)
}

/// The service runs, and all is as the initrd has left it.
fn check_network(console: &Console, service: &str, over: Over) -> Result<()> {
    let state = console.shell(&format!("systemctl is-active {service}"), COMMAND)?;
    ensure!(state == "active", "{service} is {state}");
    let addresses = console.shell("ip -o -4 address show scope global", COMMAND)?;
    let (n_addresses, storage) = match over {
        Over::Boot => (1, ""),
        Over::Storage => (2, "eth1    inet 10.20.0."),
    };
    let is_whole = addresses.lines().count() == n_addresses
        && addresses.contains("eth0    inet 10.77.0.")
        && addresses.contains(storage)
        && addresses.lines().all(|line| line.contains("valid_lft forever"));
    ensure!(is_whole, "a NIC has no longer the address that it had: {addresses:?}");
    let resolver = console.shell("grep nameserver /etc/resolv.conf", COMMAND)?;
    ensure!(resolver == format!("nameserver {NAME_SERVER}"), "the name servers are {resolver:?}");
    let ping = console.shell(&format!("ping -c 1 -W 5 {SERVER} >&2 && echo heard"), COMMAND)?;
    ensure!(ping.ends_with("heard"), "the boot server is not heard: {ping}");
    let read = console.shell(
        "echo 3 > /proc/sys/vm/drop_caches; dd if=/usr/bin/bash of=/dev/null 2>/dev/null && echo read",
        COMMAND,
    )?;
    ensure!(read == "read", "the root disk does not answer: {read}");
    Ok(())
}

fn check_without_systemd(name: &str, recipe: &Recipe) {
    if can_boot(name) && require(name, &[Need::Program("udhcpc"), Need::Program("curl")]) {
        lives_without_systemd(name, recipe).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Asks the system to `reboot` or `poweroff`, either of which ends the PC.
fn stop(pc: &mut Pc, verb: &str) -> Result<()> {
    let asked = Instant::now();
    pc.console().send_line(&format!("systemctl {verb}"))?;
    pc.wait_for_off(SHUTDOWN).with_context(|| format!("after {verb}"))?;
    println!("{verb} took {:.1} s", asked.elapsed().as_secs_f64());
    let text = pc.console().text();
    ensure!(
        text.contains(&format!("bootlace: root unmounted; {verb}")),
        "{}",
        pc.console().tail(20)
    );
    Ok(())
}

/// A system without systemd: it runs, and ends, with nothing lost.
fn lives_without_systemd(name: &str, recipe: &Recipe) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = recipe.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "persistent"]].concat())?;
    let servers = site.up()?;
    for (verb, before) in [("reboot", 0), ("poweroff", 1)] {
        let mut pc = power_on(&site, Over::Boot)?;
        let console = pc.console().clone();
        let kept = console
            .shell("cat /root/mine 2>/dev/null | wc -l; echo more >> /root/mine", COMMAND)?;
        ensure!(kept == before.to_string(), "{kept} lines were kept, not {before}");
        let recovered = console.shell("dmesg | grep -c 'recovery complete'", COMMAND)?;
        ensure!(recovered == "0", "the file system was not unmounted at the last stop");
        let host_name = console.shell("cat /proc/sys/kernel/hostname", COMMAND)?;
        ensure!(host_name == "pc-1", "the host name is {host_name:?}");
        // Once by the boot server, once by itself.
        if verb == "reboot" {
            site.run(&["machine", "power", "pc-1", verb])?;
        } else {
            console.send_line(verb)?;
        }
        pc.wait_for_off(SHUTDOWN).with_context(|| format!("after {verb}"))?;
    }
    servers.stop()
}

#[test]
fn network_manager_keeps_the_boot_nic() {
    check("handover-nm", &Recipe::NETWORK_MANAGER, "NetworkManager", Over::Storage);
}

#[test]
fn ifupdown_keeps_the_boot_nic() {
    check("handover-ifup", &Recipe::IFUPDOWN, "networking", Over::Boot);
}

#[test]
fn debian_13_keeps_the_boot_nic() {
    check("handover-13", &Recipe::DEBIAN_13, "systemd-networkd", Over::Storage);
}

#[test]
fn openrc_runs_and_ends() {
    check_without_systemd("handover-rc", &Recipe::OPENRC);
}

#[test]
fn busybox_runs_and_ends() {
    check_without_systemd("handover-bb", &Recipe::BUSYBOX);
}
