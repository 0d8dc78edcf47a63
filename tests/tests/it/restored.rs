//! A site that comes back from its backup: whose disk is whose, and a new server boots the room again.

use crate::boot::{BOOT, COMMAND, MAC, OTHER_MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Result, ensure};
use lab::{Lan, Pc, PcSlots, Site};
use std::fs;
use std::time::{Duration, Instant};

/// Findings come with the next answer of the storage server.
const TOLD: Duration = Duration::from_secs(60);

#[test]
fn a_restored_site_gives_no_disk_to_another_pc_and_boots_on_a_new_server() {
    if can_boot("restored") {
        restored().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn restored() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("restored")?)?;
    let import = ["image", "import", image.to_str().unwrap_or_default(), "--name", "debian"];
    site.run(&import)?;
    let servers = site.up()?;
    let backups = tempfile::tempdir()?;
    let [first, last] =
        ["first", "last"].map(|name| backups.path().join(name).display().to_string());

    // Anna's PC keeps a disk; later its name is that of Bert's.
    add(&site, MAC)?;
    run_pc(&site, MAC, "echo anna > /root/whose; sync")?;
    site.run(&["backup", "create", &first])?;
    site.run(&["machine", "rm", "pc-1", "--yes"])?;
    add(&site, OTHER_MAC)?;
    let whose = "cat /root/whose 2>&1; echo bert > /root/whose; sync";
    let found = run_pc(&site, OTHER_MAC, whose)?;
    ensure!(!found.contains("anna"), "Bert has Anna's disk: {found}");
    servers.stop()?;

    // The database is of when Anna had that name.
    site.run(&["backup", "restore", "--replace", &first])?;
    let servers = site.up()?;
    let pc = Pc::builder("anna").mac(MAC).start(site.lan())?;
    wait_until(&site, "disk-of-another", true)?;
    let status = site.run(&["status"])?;
    for words in [MAC, OTHER_MAC, "take-over"] {
        ensure!(status.contains(words), "{words}: {status}");
    }
    ensure!(!pc.console().text().contains("pc-1 login:"), "Anna has Bert's disk");
    // She is to have it all the same, and waits no longer.
    fs::write(site.root().join("var/lib/bootlace/layers/pc-1/take-over"), "")?;
    let found = shell(&pc, "cat /root/whose")?;
    ensure!(found.contains("bert"), "{found}");
    drop(pc);
    wait_until(&site, "disk-of-another", false)?;
    site.run(&["backup", "create", &last])?;
    servers.stop()?;

    // The server's disk dies. On a new one are the backup and the image, and no layer.
    for folder in ["var", "run", "etc"] {
        fs::remove_dir_all(site.root().join(folder))?;
    }
    fs::create_dir_all(site.root().join("etc"))?;
    site.run(&["backup", "restore", &last])?;
    site.run(&import)?;
    let servers = site.up()?;
    wait_until(&site, "disk-missing", true)?;
    site.run(&["machine", "reset", "pc-1"])?;
    let found = run_pc(&site, MAC, "cat /root/whose 2>&1")?;
    ensure!(found.contains("No such file"), "{found}");
    let stages = site.wait_for_stage("pc-1", "up", BOOT)?;
    ensure!(stages.iter().all(|it| it.stage != "failed"), "{stages:#?}");
    servers.stop()
}

/// Adds a machine that keeps its disk.
fn add(site: &Site, mac: &str) -> Result<()> {
    let machine = ["machine", "set", "pc-1", "--mac", mac, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "persistent"]].concat()).map(drop)
}

/// Switches a PC on, runs a command there, and shuts it down. Returns what the command printed.
fn run_pc(site: &Site, mac: &str, command: &str) -> Result<String> {
    let mut pc = Pc::builder("pc-1").mac(mac).start(site.lan())?;
    let printed = shell(&pc, command)?;
    site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    Ok(printed)
}

fn shell(pc: &Pc, command: &str) -> Result<String> {
    wait_for_login(pc, "pc-1")?;
    pc.console().log_in(COMMAND)?;
    pc.console().shell(command, COMMAND)
}

/// Waits until there is a finding of this kind, or none any more.
fn wait_until(site: &Site, kind: &str, is_there: bool) -> Result<()> {
    let end = Instant::now() + TOLD;
    loop {
        let findings = site.browser().json("/api/v1/findings")?;
        let all = findings["findings"].as_array().map_or(&[][..], Vec::as_slice);
        if all.iter().any(|it| it["kind"] == kind) == is_there {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{kind} is to be there: {is_there}, but {findings:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
