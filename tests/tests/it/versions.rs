//! Versions of an image under a machine that runs: released, retired, taken back, removed.

use crate::boot::{BOOT, COMMAND, MAC, QUICK, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Result, ensure};
use lab::{Lan, Need, Pc, PcSlots, Site, require};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Reads the whole system, from the disk and not from memory; then whether it is the second version, and errors of the disk.
const LOOK: &str = "sync; echo 3 > /proc/sys/vm/drop_caches; \
    find / -xdev -type f -exec cat {} + > /dev/null 2>&1; \
    ls /etc/second-version 2> /dev/null; dmesg | grep -ci 'i/o error'";

#[test]
fn a_machine_runs_on_while_its_image_changes_and_boots_what_is_released() {
    if can_boot("versions") && require("versions", &[Need::Program("debugfs")]) {
        versions().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn versions() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let folder = tempfile::tempdir()?;
    let first = QUICK.image(|text| eprintln!("{text}"))?;
    let second = marked(&first, folder.path())?;
    let site = Site::builder().create(Lan::lay("versions")?)?;
    let import = |path: &Path, state: &str| {
        let path = path.display().to_string();
        site.run(&["image", "import", &path, "--name", "debian", "--state", state])
    };
    import(&first, "released")?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
    let servers = site.up()?;
    let mut pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    up(&site, &pc)?;

    import(&second, "draft")?;
    site.run(&["room", "set", "r1"])?;
    site.run(&["machine", "set", "pc-1", "--room", "r1"])?;
    let told = site.run(&["image", "release", "debian/v2", "--ring", "r1"])?;
    ensure!(told.contains("it waits for pc-1 to be up with it"), "{told}");
    let changes = site.run(&["image", "changes", "debian/v2"])?;
    ensure!(changes.contains("from v1 to v2") && changes.contains("kernel: the same"), "{changes}");
    is_version(&pc, 1)?;
    let refused = site.run(&["image", "rm", "debian/v1", "--yes"]);
    let refused =
        refused.map_or_else(|error| format!("{error:#}"), |told| format!("removed: {told}"));
    ensure!(refused.contains("pc-1 runs it"), "{refused}");

    pc.console().send_line("reboot")?;
    up(&site, &pc)?;
    is_version(&pc, 2)?;
    let told = site.run(&["image", "ring", "ls"])?;
    ensure!(told.contains("1 of 1 machines were up with it"), "{told}");
    let told = site.run(&["image", "ring", "pass", "debian"])?;
    ensure!(told.contains("and it went to all"), "{told}");
    site.run(&["image", "retire", "debian/v1"])?;

    let told = site.run(&["image", "rollback", "debian", "--to", "1"])?;
    ensure!(
        told.contains("get v1 at their next boot") && told.contains("pc-1 still runs"),
        "{told}"
    );
    is_version(&pc, 2)?;
    pc.console().send_line("reboot")?;
    up(&site, &pc)?;
    is_version(&pc, 1)?;
    pc.console().send_line("poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;

    site.run(&["image", "rm", "debian/v2", "--yes"])?;
    ensure!(!site.root().join("var/lib/bootlace/images/debian/2").exists());
    let left = site.run(&["image", "ls"])?;
    ensure!(left.contains("debian") && !left.contains("retired"), "{left}");
    servers.stop()
}

/// Waits until the machine has booted, and logs in.
fn up(site: &Site, pc: &Pc) -> Result<()> {
    wait_for_login(pc, "pc-1")?;
    site.wait_for_stage("pc-1", "up", BOOT)?;
    pc.console().log_in(COMMAND)
}

fn is_version(pc: &Pc, version: u32) -> Result<()> {
    let found = pc.console().shell(LOOK, BOOT)?;
    let expected = if version == 2 { "/etc/second-version\n0" } else { "0" };
    ensure!(found.replace('\r', "") == expected, "version {version} was expected: {found:?}");
    Ok(())
}

/// The image with one file more.
fn marked(image: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("second.raw");
    let mut cp = Command::new("cp");
    lab::run(cp.args(["--sparse=always", "--reflink=auto"]).args([image, &copy]))?;
    std::fs::write(folder.join("mark"), "2\n")?;
    let mut debugfs = Command::new("debugfs");
    debugfs.current_dir(folder).args(["-w", "-R", "write mark /etc/second-version"]);
    lab::run(debugfs.arg(&copy))?;
    Ok(copy)
}
