//! A boot that stops in a rescue shell: a person at the machine's console types a password and commands.

use crate::boot::{BOOT, COMMAND, MAC, can_boot};
use anyhow::{Context, Result, ensure};
use lab::{Firmware, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};
use serde_json::Value;
use std::time::{Duration, Instant};

/// From the last word in the shell to the machine's next stage, or its end.
const GO_ON: Duration = Duration::from_secs(60);

/// From what happens on the console to the same on the page.
const PAGE: Duration = Duration::from_secs(15);

/// Letters that passwords are made of, but not this one's.
const WRONG: &str = "bcdefghj";

#[test]
fn a_password_opens_a_rescue_shell_before_the_root_and_after_a_failure() {
    let name = "rescue";
    let needs = ["udhcpc", "curl", "busybox"].map(Need::Program);
    if can_boot(name) && require(name, &needs) {
        rescue(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn rescue(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    before_the_root(&site)?;
    after_a_failure(&site)?;
    servers.stop()
}

fn before_the_root(site: &Site) -> Result<()> {
    let password = ask(site)?;
    // By firmware and GRUB, which must load one archive more than usual.
    let pc = Pc::builder("pc-1").mac(MAC).firmware(Firmware::Bios).start(site.lan())?;
    let console = pc.console();
    console.wait_for("Password: ", BOOT)?;
    console.send_line(WRONG)?;
    console.wait_for("That is not the password of this boot.", COMMAND)?;
    console.wait_for("Password: ", COMMAND)?;
    log_in(&pc, &password)?;
    let seen = console.shell("ip address show dev eth0 || ip address; ls /dev/nbd0p1", COMMAND)?;
    ensure!(seen.contains("10.77.0.1") && !console.text().contains("attach:"), "{seen}");
    let view = wait_for_sentence(site, "the rescue shell is open on ttyS0")?;
    ensure!(view["rescue"]["password"] == password.as_str(), "{}", view["rescue"]);
    let page = site.browser().get("/machines/pc-1")?.body;
    ensure!(page.contains(&format!("the password is <code>{password}</code>")), "{page}");
    console.send_line("exit")?;
    console.wait_for("bootlace: rescue: the boot continues", COMMAND)?;
    console.wait_for("bootlace: mount: ", GO_ON)?;
    let known = site.run(&["machine", "hardware", "pc-1"])?;
    ensure!(known.contains("pci:"), "what the machine uploaded was not taken: {known}");
    Ok(())
}

fn after_a_failure(site: &Site) -> Result<()> {
    let password = ask(site)?;
    let mut pc = power_on(site, |index| index.replacen("/1 ", "/1 5.10.0-1-", 1))?;
    pc.console().wait_for("*** This machine can't start ***", BOOT)?;
    pc.console().wait_for("Password: ", GO_ON)?;
    log_in(&pc, &password)?;
    let cards = pc.console().shell("ls /sys/class/net", COMMAND)?;
    ensure!(cards == "lo", "{cards}");
    pc.console().send_line("exit")?;
    // QEMU ends where a PC restarts.
    pc.wait_for_off(GO_ON)
}

/// Waits until the machine's page says this, which it does a moment after the machine.
fn wait_for_sentence(site: &Site, text: &str) -> Result<Value> {
    let deadline = Instant::now() + PAGE;
    loop {
        let view = site.browser().json("/api/v1/machines/pc-1")?;
        if view["state"]["sentence"].as_str().is_some_and(|sentence| sentence.contains(text)) {
            return Ok(view);
        }
        ensure!(Instant::now() < deadline, "the page does not say {text:?}: {}", view["state"]);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Wants the shell; returns its password.
fn ask(site: &Site) -> Result<String> {
    let said = site.run(&["machine", "rescue", "pc-1"])?;
    let password =
        said.split_once("password: ").and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(password.context(said.clone())?.to_owned())
}

fn power_on(site: &Site, index: impl FnOnce(&str) -> String) -> Result<Pc> {
    let preboot = Preboot::start(site, MAC)?;
    let kernel = preboot.fetch()?.with_index(index)?;
    drop(preboot);
    Pc::builder("pc-1").mac(MAC).kernel(&kernel).extra(&["-no-reboot"]).start(site.lan())
}

fn log_in(pc: &Pc, password: &str) -> Result<()> {
    pc.console().send_line(password)?;
    pc.console().wait_for("rescue:/# ", COMMAND)
}
