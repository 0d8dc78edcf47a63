//! A PC that has a disk of its own becomes an image: its disk is read over the network, and nothing is written to it.

use crate::boot::{COMMAND, MAC, QUICK, can_boot, wait_for_login};
use anyhow::{Context, Result, bail, ensure};
use lab::{Lan, Need, Pc, PcSlots, SERVER, Site, require, run, text_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a PC in QEMU has sent half a gigabyte, and until that is a version.
const CAPTURED: Duration = Duration::from_secs(240);

/// Puts a system on a disk as an installer does it: the root in the first partition, `/srv` on XFS in the second. `$1`: the disk, `$2`: its root,
/// `$3`: its `/srv`.
const MAKE: &str = r#"set -eu
truncate -s 1400M "$1"
entry='\000\000\000\000\203\000\000\000\000\010\000\000\000\000\040\000'
entry="$entry"'\000\000\000\000\203\000\000\000\000\010\040\000\000\240\011\000'
printf "$entry" | dd of="$1" bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
dd if="$2" of="$1" bs=1M seek=1 conv=sparse,notrunc status=none
dd if="$3" of="$1" bs=1M seek=1025 conv=sparse,notrunc status=none
"#;

#[test]
fn the_disk_of_a_pc_becomes_an_image_and_stays_as_it_is() {
    let programs = ["debugfs", "mkfs.xfs", "curl"];
    if can_boot("captures") && require("captures", &programs.map(Need::Program)) {
        captures().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn captures() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let folder = tempfile::tempdir()?;
    let disk = disk(folder.path(), &image)?;
    let site = Site::builder().create(Lan::lay("captures")?)?;
    site.run(&["image", "import", &image.display().to_string(), "--name", "debian"])?;
    // It boots nothing of this server otherwise.
    site.run(&["machine", "set", "pc-1", "--mac", MAC])?;
    let servers = site.up()?;
    let order = ["image", "capture", "office", "--machine", "pc-1", "--off", "--fix"];
    let told = site.run(&order)?;
    ensure!(told.contains("pc-1 is captured at its next boot, as office"), "{told}");
    refused(&site, &order, "is to be captured already")?;
    refused(&site, &["image", "edit", "debian", "--machine", "pc-1"], "to be captured already")?;
    refused(&site, &["image", "rm", "debian/v1", "--yes"], "is captured by its kernel")?;
    site.run(&["image", "capture", "--cancel", "pc-1"])?;
    refused(&site, &["image", "capture", "--cancel", "pc-1"], "is not to be captured")?;

    // Its plug was pulled: the journal would have to be written back, which would change its disk.
    mark(&disk, "needs_recovery")?;
    let before = sum(&disk)?;
    site.run(&order)?;
    let pc = power_on(&site, &disk)?;
    pc.console().wait_for("This machine can't be captured; nothing on its disks", CAPTURED)?;
    pc.console().wait_for("sda1 was not shut down: its journal is not empty", COMMAND)?;
    let job = ended_job(&site)?;
    ensure!(job["state"] == "failed", "{job:#}");
    ensure!(
        job["told"].as_str().is_some_and(|it| it.contains("sda1 was not shut down")),
        "{job:#}"
    );
    drop(pc);
    ensure!(sum(&disk)? == before, "its disk was changed");
    ensure!(site.run(&["image", "capture"])?.contains("No PC is to be captured"));

    mark(&disk, "-needs_recovery")?;
    let before = sum(&disk)?;
    site.run(&order)?;
    let mut pc = power_on(&site, &disk)?;
    pc.console().wait_for("bootlace: capture: sends", CAPTURED)?;
    nobody_else_sends(&site)?;
    pc.wait_for_off(CAPTURED)?;
    let console = pc.console().text();
    for said in ["sda1 (ext4", "sda2 (xfs", "left out: /swapfile", "switches itself off"] {
        ensure!(console.contains(said), "no {said}: {}", pc.console().tail(40));
    }
    drop(pc);
    ensure!(sum(&disk)? == before, "its disk was changed");
    let job = ended_job(&site)?;
    ensure!(job["state"] == "done", "{job:#}\n{}", servers.log());
    let told = job["told"].as_str().unwrap_or_default();
    ensure!(told.starts_with("office/v1 made of what is on pc-1"), "{job:#}");
    if let [Some(begun), Some(ended)] =
        ["begun_unix_ms", "ended_unix_ms"].map(|it| job[it].as_u64())
    {
        eprintln!("captured in {} ms", ended.saturating_sub(begun));
    }

    // The same PC, without its disk.
    site.run(&["machine", "set", "pc-1", "--image", "office"])?;
    let pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    wait_for_login(&pc, "pc-1").context("it does not boot from what was captured")?;
    pc.console().log_in(COMMAND)?;
    let found = "cat /srv/data; stat -c '%h %s %b' /root/holes; stat -c %h /root/twice; readlink /root/link; ls /swapfile";
    let found = pc.console().shell(found, COMMAND)?.replace('\r', "");
    let lines: Vec<&str> = found.lines().collect();
    ensure!(lines.first() == Some(&"on XFS"), "{found:?}");
    ensure!(lines.get(1).is_some_and(|it| it.starts_with("1 104857600 ")), "{found:?}");
    ensure!(lines.get(2) == Some(&"2") && lines.get(3) == Some(&"/etc/fstab"), "{found:?}");
    ensure!(found.contains("No such file"), "{found:?}");
    drop(pc);
    servers.stop()
}

/// Who has no order, and not the secret of its boot, sends nothing.
fn nobody_else_sends(site: &Site) -> Result<()> {
    let url = format!("http://{SERVER}/capture/1/{}", "0".repeat(32));
    let mut curl = site.lan().netns().command("curl", Signal::SIGKILL);
    let status = text_of(curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args([
        "-X",
        "PUT",
        "--data-binary",
        "x",
        &url,
    ]))?;
    ensure!(status.trim() == "403", "{status}");
    Ok(())
}

fn power_on(site: &Site, disk: &Path) -> Result<Pc> {
    let drive = format!("file={},format=raw,if=ide", disk.display());
    Pc::builder("pc-1").mac(MAC).extra(&["-drive", &drive, "-boot", "order=n"]).start(site.lan())
}

/// The newest job when it has ended.
fn ended_job(site: &Site) -> Result<Value> {
    let end = Instant::now() + CAPTURED;
    loop {
        let jobs: Value = serde_json::from_str(&site.run(&["job", "ls", "--json"])?)?;
        let newest = jobs.get(0).filter(|job| job["kind"] == "image-capture").cloned();
        match newest {
            Some(job) if !job["ended_unix_ms"].is_null() => return Ok(job),
            _ if Instant::now() > end => bail!("it has not ended: {jobs:#}"),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn refused(site: &Site, command: &[&str], why: &str) -> Result<()> {
    match site.run(command) {
        Ok(told) => bail!("{command:?} was done: {told}"),
        Err(error) if format!("{error:#}").contains(why) => Ok(()),
        Err(error) => Err(error.context(format!("{command:?}, and not as {why:?}"))),
    }
}

fn sum(disk: &Path) -> Result<String> {
    text_of(Command::new("sha256sum").arg(disk))
}

/// Sets or clears a feature of the root.
fn mark(disk: &Path, feature: &str) -> Result<()> {
    let request = format!("feature {feature}");
    let place = format!("{}?offset=1048576", disk.display());
    run(Command::new("debugfs").args(["-w", "-R", &request, &place]))
}

/// The disk of a system that mounts a second partition, swaps to a file, and has files of several kinds.
fn disk(folder: &Path, image: &Path) -> Result<PathBuf> {
    let path = |name: &str| folder.join(name);
    let [root, srv, disk] = ["root", "srv", "disk"].map(path);
    run(Command::new("cp").arg("--sparse=always").args([image, &root]))?;
    let put = |name: &str, content: &str| -> Result<String> {
        std::fs::write(path(name), content)?;
        Ok(path(name).display().to_string())
    };
    let fstab = "/dev/sda1 / ext4 defaults 0 1\nLABEL=srv /srv xfs defaults 0 2\n/swapfile none swap sw 0 0\n\
                 UUID=0f0f-0f0f /boot/efi vfat umask=0077 0 1\n";
    let (fstab, data) = (put("fstab", fstab)?, put("data", "on XFS\n")?);
    let holes = std::fs::File::create(path("holes"))?;
    std::os::unix::fs::FileExt::write_all_at(&holes, b"end", (100 << 20) - 3)?;
    let holes = path("holes").display().to_string();
    let commands = put(
        "commands",
        &format!(
            "rm /etc/fstab\nwrite {fstab} /etc/fstab\nwrite {holes} /root/holes\nwrite {data} /root/twice\nln /root/twice \
             /root/other\nset_inode_field /root/twice links_count 2\nsymlink /root/link /etc/fstab\nwrite {data} /swapfile\n"
        ),
    )?;
    run(Command::new("debugfs").args(["-w", "-f", &commands]).arg(&root))?;
    let proto = put("proto", &format!("/\n0 0\nd--755 0 0\ndata ---644 0 0 {data}\n$\n"))?;
    std::fs::File::create(&srv)?.set_len(308 << 20)?;
    run(Command::new("mkfs.xfs").args(["-q", "-L", "srv", "-p", &proto]).arg(&srv))?;
    run(Command::new("sh").args(["-c", MAKE, "sh"]).args([&disk, &root, &srv]))?;
    Ok(disk)
}
