//! An image is changed by booting it: what one machine leaves on its disk becomes the next version for all.

use crate::boot::{BOOT, COMMAND, MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, bail, ensure};
use lab::{Lan, Need, Pc, PcSlots, Site, require};
use std::process::Command;
use std::time::{Duration, Instant};

/// After its plug was pulled, how long the storage server may believe that a machine runs.
const SILENT: Duration = Duration::from_secs(90);

/// Of what `seq 200000` prints.
const NUMBERS_SHA256: &str = "5af7b95208fdcff454bab3f5eddf567a688a3796c703d4fef91072e38645c062";

#[test]
fn what_one_machine_changes_becomes_the_next_version() {
    if can_boot("edits") {
        edits().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn edits() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("edits")?)?;
    site.run(&["image", "import", &image.display().to_string(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    let told = site.run(&["image", "edit", "debian", "--machine", "pc-1"])?;
    ensure!(told.contains("pc-1 changes debian/v1") && told.contains("Switch pc-1 on"), "{told}");
    refused(&site, &["image", "publish", "debian"], "has not booted since")?;
    refused(&site, &["image", "edit", "debian", "--machine", "pc-1"], "changes debian/v1 already")?;
    refused(&site, &["image", "rm", "debian/v1", "--yes"], "pc-1 changes it")?;

    // It restarts in between.
    let pc = up(&site, "to change it")?;
    pc.console().shell("rm /etc/motd; seq 200000 > /srv/numbers; sync", COMMAND)?;
    refused(&site, &["image", "publish", "debian"], "still runs")?;
    pc.console().send_line("reboot")?;
    wait_for_login(&pc, "pc-1")?;
    pc.console().log_in(COMMAND)?;
    let kept =
        pc.console().shell("tail -n 1 /srv/numbers; echo late > /srv/late; sync", COMMAND)?;
    ensure!(kept.trim() == "200000", "{kept:?}");
    // Its plug is pulled. What it goes back from is not published.
    drop(pc);
    site.run(&["machine", "snapshot", "pc-1", "--note", "before"])?;
    site.run(&["machine", "rollback", "pc-1", "--to", "1"])?;
    let refused = published(&site);
    let refused = refused.map_or_else(|error| format!("{error:#}"), |told| format!("done: {told}"));
    ensure!(refused.contains("is to go back to snapshot 1"), "{refused}");
    site.run(&["machine", "rollback", "pc-1", "--undo"])?;
    site.run(&["machine", "reset", "pc-1"])?;
    self::refused(&site, &["image", "publish", "debian"], "is to be empty at its next boot")?;
    site.run(&["machine", "reset", "pc-1", "--undo"])?;
    let told = published(&site)?;
    ensure!(told.contains("debian: version 2 made of what pc-1 has changed"), "{told}");
    ensure!(site.run(&["image", "edit"])?.contains("No image is being changed"));

    // What it boots otherwise, without a disk of its own.
    let mut pc = up(&site, "with what was changed")?;
    let found = "cat /srv/late; sha256sum < /srv/numbers; ls /etc/motd; rm -r /srv/numbers";
    let found = pc.console().shell(found, COMMAND)?;
    let is_there = found.starts_with("late") && found.contains(NUMBERS_SHA256);
    ensure!(is_there && found.contains("No such file"), "{found:?}");
    pc.console().send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;

    // Thrown away, it leaves nothing.
    site.run(&["image", "edit", "debian/v1", "--machine", "pc-1"])?;
    let told = site.run(&["image", "edit"])?;
    // The second version was there before.
    ensure!(told.contains("debian/v1") && !told.contains("v2"), "{told}");
    let told = site.run(&["image", "discard", "debian"])?;
    ensure!(told.contains("is thrown away"), "{told}");
    let left = site.run(&["image", "ls"])?;
    ensure!(left.contains("debian") && !left.contains("v3"), "{left}");
    servers.stop()
}

#[test]
fn a_command_on_the_server_changes_an_image() {
    let needs = [Need::Root, Need::SlowTests, Need::Program("systemd-nspawn")];
    if require("edits-shell", &needs) {
        shell().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn shell() -> Result<()> {
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay("edits-shell")?)?;
    site.run(&["image", "import", &image.display().to_string(), "--name", "debian"])?;
    // Not in the namespace of the site, where `ip netns exec` has hidden the control groups.
    let change = |script: &str| -> Result<String> {
        let mut command = Command::new(lab::bootlace_binary()?);
        command.arg("--root").arg(site.root()).args(["image", "shell", "debian"]);
        let done = command.args(["--state", "test", "--", "/bin/sh", "-c", script]).output()?;
        let told = [done.stdout, done.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        ensure!(done.status.success(), "{told}");
        Ok(told)
    };
    let told = change("dpkg --print-architecture; id -u > /srv/who; ls /proc/1 > /dev/null")?;
    ensure!(told.contains("amd64") && told.contains("debian: version 2"), "{told}");
    let told = change("touch /var/log/looked /var/cache/looked; cat /srv/who")?;
    ensure!(told.contains("no version was made"), "{told}");
    let failed = change("touch /srv/half; exit 3");
    let failed = failed.map_or_else(|error| format!("{error:#}"), |told| format!("done: {told}"));
    ensure!(failed.contains("the command has ended with 3"), "{failed}");
    let left = site.run(&["image", "ls"])?;
    ensure!(left.contains("test") && !left.contains("v3"), "{left}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains("bootlace-shell"), "{mounts}");
    let disk = site.root().join("var/lib/bootlace/images/debian/2/disk.raw");
    let mut debugfs = Command::new("debugfs");
    let read = debugfs.args(["-R", "cat /srv/who"]).arg(&disk).output()?;
    ensure!(read.stdout == b"0\n", "{:?}", String::from_utf8_lossy(&read.stderr));
    Ok(())
}

/// Waits until the machine has booted, and logs in.
fn up(site: &Site, what: &str) -> Result<Pc> {
    let pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    wait_for_login(&pc, "pc-1").context(what.to_owned())?;
    site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().log_in(COMMAND)?;
    Ok(pc)
}

fn refused(site: &Site, command: &[&str], why: &str) -> Result<()> {
    match site.run(command) {
        Ok(told) => bail!("{command:?} was done: {told}"),
        Err(error) if format!("{error:#}").contains(why) => Ok(()),
        Err(error) => Err(error.context(format!("{command:?}, and not as {why:?}"))),
    }
}

/// Publishes it as soon as nobody believes any more that the machine runs.
fn published(site: &Site) -> Result<String> {
    let end = Instant::now() + SILENT;
    loop {
        match site.run(&["image", "publish", "debian", "--note", "numbers"]) {
            Err(error) if format!("{error:#}").contains("still runs") && Instant::now() < end => {
                std::thread::sleep(Duration::from_secs(1));
            }
            told => return told,
        }
    }
}
