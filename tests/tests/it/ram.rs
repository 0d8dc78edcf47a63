//! Write mode `ram`: what a machine writes stays in its memory, and is gone with it.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Kernel, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};
use std::time::{Duration, Instant};

/// From the machine's own warning to the page.
const PAGE: Duration = Duration::from_secs(10);

#[test]
fn what_a_machine_writes_to_its_memory_never_reaches_the_server() {
    let needs = [Need::Program("udhcpc"), Need::Program("curl")];
    if can_boot("ram") && require("ram", &needs) {
        ram().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn ram() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 quiet")
        .boot("ram = \"64M\"")
        .create(Lan::lay("ram")?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "ram"]].concat())?;
    let servers = site.up()?;

    let mut pc = power_on(&site, |_| {})?;
    wait_for_login(&pc, "pc-1")?;
    let console = pc.console().clone();
    console.log_in(COMMAND)?;
    // As with `quiet`, of which the test's own shell makes silence.
    console.shell("dmesg -n err", COMMAND)?;
    let root = console.shell("findmnt -no FSTYPE /", COMMAND)?;
    ensure!(root == "overlay", "the root is {root:?}");
    // The machine's warning may come in the middle of what a command prints.
    let write =
        "echo mine > /root/mine && sync && dd if=/dev/zero of=/root/big bs=1M count=54 status=none";
    console.shell(write, COMMAND)?;
    page_says(&site, 80..95)?;
    ensure!(
        console.text().contains("bootlace: the memory for changes is 8"),
        "{}",
        console.tail(5)
    );
    ensure!(console.shell("cat /root/mine", COMMAND)? == "mine");
    let full =
        console.shell("dd if=/dev/zero of=/root/more bs=1M status=none; echo goes-on", COMMAND)?;
    ensure!(full.contains("No space left on device") && full.contains("goes-on"), "{full}");
    page_says(&site, 100..101)?;
    let warning = "bootlace: the memory for changes is 100 % full";
    ensure!(console.text().contains(warning), "{}", console.tail(5));
    let status = site.browser().json("/api/v1/status")?;
    ensure!(status["findings"].to_string().contains("100 % full"), "{status}");
    console.send_line("systemctl poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    ensure!(console.text().contains("bootlace: root unmounted; poweroff"), "{}", console.tail(20));
    nothing_written(&site)?;

    // Over AoE, which knows no disks without writes. A shell is enough.
    site.run(&["machine", "set", "pc-1", "--root-kind", "aoe"])?;
    let pc = power_on(&site, |kernel| kernel.command_line += " init=/bin/sh")?;
    pc.console().wait_for("\n# ", BOOT)?;
    let left = pc.console().shell("cat /root/mine; echo other > /root/other; ls /root", COMMAND)?;
    ensure!(left.contains("No such file") && left.ends_with("other"), "{left:?}");
    nothing_written(&site)?;
    drop(pc);
    servers.stop()
}

fn power_on(site: &Site, change: impl FnOnce(&mut Kernel)) -> Result<Pc> {
    let mut kernel = Preboot::start(site, MAC)?.fetch()?;
    change(&mut kernel);
    Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(site.lan())
}

/// Waits until the page says how full the machine's memory is.
fn page_says(site: &Site, percent: std::ops::Range<u64>) -> Result<()> {
    let deadline = Instant::now() + PAGE;
    loop {
        let view = site.browser().json("/api/v1/machines/pc-1")?;
        let used = view["ram_used_percent"].as_u64();
        if let Some(used) = used.filter(|used| percent.contains(used)) {
            let page = site.browser().get("/machines/pc-1")?.body;
            let sentence = format!("Its memory for changes is {used} % full");
            ensure!(page.contains(&sentence), "the API says it, but not the page: {page}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{used:?} % is not in {percent:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn nothing_written(site: &Site) -> Result<()> {
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    let export = &view["export"];
    let written = export["counters"]["written_bytes"].as_u64().context("no counters")?;
    ensure!(written == 0 && export["layer_bytes"] == 0, "{export}");
    ensure!(export["counters"]["errors"] == 0, "something tried to write: {export}");
    Ok(())
}
