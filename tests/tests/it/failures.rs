//! What goes wrong is said where the person is: on the machine's console and, as soon as it has an
//! address, on its page.

use crate::boot::wait_for_login;
use crate::machine_disk::with_disk;
use anyhow::{Context, Result, ensure};
use lab::{Daemon, Kernel, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, copy_with, require};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// From power-on to the first words of init, or to a shell: 6 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

/// From power-on to a system that has given up: 45 s on an idle machine.
const SYSTEM: Duration = Duration::from_secs(400);

/// init gives up some things only after a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// From a message on the console to the same on the page.
const PAGE: Duration = Duration::from_secs(15);

/// Longer than any of these tests waits: a machine that restarts would confuse them.
const REBOOT_SECONDS: u32 = 600;

const MAC: &str = "52:54:00:00:00:01";

/// A running site with the machine `pc-1`.
struct Room {
    storage: Option<Daemon>,
    servers: Daemon,
    site: Site,
    folder: tempfile::TempDir,
    slot: PcSlots,
}

fn can_be_in_a_room(name: &str) -> bool {
    let programs =
        ["qemu-system-x86_64", "mmdebstrap", "grub-mkimage", "udhcpc", "curl", "debugfs"];
    let needs: Vec<Need> =
        [Need::Root, Need::SlowTests].into_iter().chain(programs.map(Need::Program)).collect();
    require(name, &needs)
}

fn in_a_room(name: &str, test: impl FnOnce(&mut Room) -> Result<()>) {
    if !can_be_in_a_room(name) {
        return;
    }
    let mut room = Room::set_up(name).unwrap_or_else(|error| panic!("no room: {error:#}"));
    if let Err(error) = test(&mut room) {
        panic!("{error:#}");
    }
    room.servers.stop().expect("the boot server stops when it is asked to");
}

impl Room {
    fn set_up(name: &str) -> Result<Self> {
        let slot = PcSlots::take(1)?;
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        Self::with_image(name, slot, &image)
    }

    fn with_image(name: &str, slot: PcSlots, image: &Path) -> Result<Self> {
        let site = Site::builder()
            .kernel_args("console=tty0 console=ttyS0,115200 quiet")
            .boot(&format!("reboot_after_failure_seconds = {REBOOT_SECONDS}"))
            .create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"])?;
        let storage = Some(site.storage()?);
        let servers = site.serve()?;
        Ok(Self { storage, servers, site, folder: tempfile::tempdir()?, slot })
    }

    /// A boot of the machine up to its kernel.
    fn preboot(&self) -> Result<(Preboot, Kernel)> {
        let preboot = Preboot::start(&self.site, MAC)?;
        let kernel = preboot.fetch()?;
        Ok((preboot, kernel))
    }

    fn pc(&self, kernel: &Kernel, model: &str) -> Result<Pc> {
        Pc::builder("pc-1").mac(MAC).nic_model(model).kernel(kernel).start(self.site.lan())
    }

    /// Waits until the machine's page says this of its state.
    fn page_says(&self, word: &str, text: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let view = self.site.browser().json("/api/v1/machines/pc-1")?;
            let sentence = view["state"]["sentence"].as_str().context("no sentence")?;
            if view["state"]["word"] == word && sentence.contains(text) {
                let page = self.site.browser().get("/machines/pc-1")?.body;
                ensure!(
                    page.contains(&text.replace('\'', "&#39;")),
                    "the API says it, but not the page: {page}"
                );
                println!("the page says: {sentence}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the page does not say {text:?}: {}", view["state"]);
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The first bytes of the prepared disk are replaced by these; then the machine starts and must
    /// fail with `what`, and say that `remedy` helps.
    fn check_disk(&self, bytes: &[u8], what: &str, remedy: &str) -> Result<()> {
        let (preboot, kernel) = self.preboot()?;
        with_disk(&preboot, &kernel, "pc-1", |disk| Ok(disk.write_start(bytes)?))?;
        drop(preboot);
        let pc = self.pc(&kernel, "virtio-net-pci")?;
        expect_failure(&pc, what, remedy, BOOT)?;
        self.page_says("failed", what, PAGE)?;
        let screen = pc.console().text();
        let code = screen.lines().find_map(|line| line.strip_prefix("  Code:"));
        let code = code.context("no code")?.trim().split(',').next().unwrap_or_default().to_owned();
        self.page_says("failed", &format!("(code {code}): "), PAGE)?;
        self.log_has_all_that_was_said(&screen)
    }

    /// Waits until the log of this boot has each line of init that the screen has, in their order.
    fn log_has_all_that_was_said(&self, screen: &str) -> Result<()> {
        let is_inits = |line: &&str| {
            ["bootlace: ", "  What ", "  Code: "].iter().any(|start| line.starts_with(start))
        };
        // What comes after the code is said when the log has gone.
        let end = screen.find("  Code: ").context("no code")?;
        let end = screen[end..].find('\n').map_or(screen.len(), |length| end + length);
        let said: Vec<&str> = screen[..end].lines().filter(is_inits).collect();
        ensure!(said.len() > 8, "init has said little: {said:?}");
        let deadline = Instant::now() + PAGE;
        loop {
            let log = self.site.run(&["machine", "log", "pc-1"]).unwrap_or_default();
            let mut lines =
                log.lines().filter_map(|line| line.split_once("] ").map(|(_, text)| text));
            let missing = said.iter().find(|said| !lines.any(|line| line == **said));
            let Some(missing) = missing else {
                return ensure_kernel_spoke(&log);
            };
            ensure!(
                Instant::now() < deadline,
                "the log lacks {missing:?}, or has it too late: {log}"
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

fn ensure_kernel_spoke(log: &str) -> Result<()> {
    ensure!(log.contains("Linux version"), "the log is not the kernel's: {log}");
    Ok(())
}

/// Waits for the failure on the console.
fn expect_failure(pc: &Pc, what: &str, remedy: &str, timeout: Duration) -> Result<()> {
    let console = pc.console();
    console.wait_for("*** This machine can't start ***", timeout)?;
    console.wait_for(&format!("restarts in {REBOOT_SECONDS} s"), BOOT)?;
    let text = console.text();
    println!("{}", console.tail(8));
    let line = |label: &str| {
        let label = format!("  {label}:");
        text.lines().find_map(|line| line.strip_prefix(&label)).unwrap_or_default().to_owned()
    };
    let (happened, helps) = (line("What happened"), line("What helps"));
    ensure!(happened.contains(what), "what happened is not {what:?} but {happened:?}");
    ensure!(helps.contains(remedy), "what helps is not {remedy:?} but {helps:?}");
    Ok(())
}

#[test]
fn a_disk_that_is_no_system_is_explained() {
    in_a_room("disk", |room| {
        room.check_disk(
            &vec![0; 1 << 20],
            "on /dev/nbd0: it is empty",
            "reset the machine's disk",
        )?;
        room.check_disk(
            &damaged_start()?,
            "/dev/nbd0: it is damaged, ",
            "reset the machine's disk",
        )?;
        let folder = room.folder.path();
        room.check_disk(&file_system(folder, None)?, "no /sbin/init", "installed Linux")?;
        room.check_disk(
            &file_system(folder, Some(0o644))?,
            "/sbin/init of the root disk can't be started: it is not executable",
            "repair the image",
        )?;
        // Then the system was handed over to already.
        room.check_disk(
            &file_system(folder, Some(0o755))?,
            "can't start /sbin/init of the image",
            "the interpreter that it names in its beginning, is missing",
        )
    });
}

#[test]
fn an_initrd_that_does_not_fit_is_explained() {
    in_a_room("drivers", |room| {
        let (preboot, kernel) = room.preboot()?;
        drop(preboot);
        // The card has no driver, so that only the console can say it.
        let without = kernel.with_index(|index| without_module(index, "e1000"))?;
        let pc = room.pc(&without, "e1000")?;
        pc.console()
            .wait_for("waiting for the network card 52:54:00:00:00:01: PCI 8086:100e", BOOT)?;
        let what = " has no driver in this initrd";
        let remedy = "an image whose kernel has a driver";
        room.slot.lend(|| expect_failure(&pc, what, remedy, PATIENCE))??;
        drop(pc);

        let foreign = kernel.with_index(|index| index.replacen("/1 ", "/1 5.10.0-1-", 1))?;
        let pc = room.pc(&foreign, "virtio-net-pci")?;
        let what = "the initrd is for kernel 5.10.0-1-";
        expect_failure(&pc, what, "use kernel and initrd of the same image", BOOT)
    });
}

fn without_module(index: &str, name: &str) -> String {
    let mut is_kept = true;
    let mut keep = |line: &&str| {
        if let Some(module) = line.strip_prefix("module ") {
            is_kept = module.split(' ').next() != Some(name);
        }
        is_kept
    };
    index.lines().filter(|line| keep(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cable_that_is_out_is_waited_for() {
    in_a_room("cable", |room| {
        let (preboot, kernel) = room.preboot()?;
        drop(preboot);
        let mut pc = room.pc(&kernel, "e1000")?;
        pc.execute("set_link", &json!({ "name": "nic0", "up": false }))?;
        pc.console().wait_for("no link on eth0 for 5 s: is the cable plugged in", BOOT)?;
        pc.execute("set_link", &json!({ "name": "nic0", "up": true }))?;
        let stages = room.site.wait_for_stage("pc-1", "handover", BOOT)?;
        let link = stages.iter().find(|line| line.stage == "link").context("no link")?;
        ensure!(link.detail.contains("s without a link"), "the page does not say it: {link:?}");
        Ok(())
    });
}

#[test]
fn a_storage_server_that_is_down_is_waited_for() {
    in_a_room("storage", |room| {
        let (preboot, kernel) = room.preboot()?;
        drop(preboot);
        room.storage.take().context("the storage server runs")?.stop()?;
        let pc = room.pc(&kernel, "virtio-net-pci")?;
        let waiting = "waiting for the storage server 10.77.0.1:10809: the machine is there, but no \
                       storage server runs on it";
        pc.console().wait_for(waiting, BOOT)?;
        room.page_says("waiting", waiting, PAGE)?;
        room.storage = Some(room.site.storage()?);
        room.site.wait_for_stage("pc-1", "handover", BOOT).map(drop)
    });
}

#[test]
fn a_disk_that_the_storage_server_refuses_is_explained() {
    in_a_room("refused", |room| {
        let (preboot, mut kernel) = room.preboot()?;
        drop(preboot);
        let line = kernel.command_line.replace(":pc-1", ":pc-2");
        ensure!(line != kernel.command_line, "no export in {line}");
        kernel.command_line = line;
        let pc = room.pc(&kernel, "virtio-net-pci")?;
        let what = "the storage server 10.77.0.1:10809 does not give the disk pc-2";
        pc.console().wait_for(what, BOOT)?;
        room.page_says("waiting", what, PAGE)?;
        let remedy = "look at the storage server's log";
        room.slot.lend(|| expect_failure(&pc, what, remedy, PATIENCE))??;
        room.page_says("failed", what, PAGE)
    });
}

/// The start of the image without the group descriptors of its file system.
fn damaged_start() -> Result<Vec<u8>> {
    let image = Recipe::default().image(|_| ())?;
    let mut start = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open(image)?, &mut start)?;
    start[4096..].fill(0);
    Ok(start)
}

/// A small root file system whose init, if it has one, names an interpreter that is not there.
fn file_system(folder: &Path, init_mode: Option<u32>) -> Result<Vec<u8>> {
    let (file, tree) = (folder.join("file-system"), folder.join("tree"));
    for name in ["dev", "proc", "run", "sbin", "sys"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    if let Some(mode) = init_mode {
        let init = tree.join("sbin/init");
        std::fs::write(&init, "#!/usr/bin/missing\n")?;
        std::fs::set_permissions(&init, std::fs::Permissions::from_mode(mode))?;
    }
    std::fs::File::create(&file)?.set_len(8 << 20)?;
    let mut make = std::process::Command::new("mkfs.ext4");
    lab::run(make.args(["-q", "-F", "-d"]).arg(&tree).arg(&file))?;
    Ok(std::fs::read(&file)?)
}

#[test]
fn a_system_in_emergency_mode_is_no_system_that_starts() {
    if !can_be_in_a_room("emergency") {
        return;
    }
    let run = || -> Result<()> {
        let slot = PcSlots::take(1)?;
        let folder = tempfile::tempdir()?;
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        let copy = folder.path().join("image");
        // Of the PC where it was installed.
        let fstab = "UUID=5dc6f2a4-gone /srv/data ext4 x-systemd.device-timeout=2 0 2\n\
                     UUID=ABCD-0001 /boot/efi vfat x-systemd.device-timeout=2 0 1\n\
                     UUID=0a1b-gone none swap sw,x-systemd.device-timeout=2 0 0\n";
        copy_with(&image, &copy, "/etc/fstab", fstab)?;
        let room = Room::with_image("emergency", slot, &copy)?;
        let (preboot, kernel) = room.preboot()?;
        drop(preboot);
        let pc = room.pc(&kernel, "virtio-net-pci")?;
        let why =
            "its system is in emergency mode, its /etc/fstab wants UUID=5dc6f2a4-gone at /srv/data";
        room.page_says("failed", why, SYSTEM)?;
        let deadline = Instant::now() + PAGE;
        while !room.site.run(&["machine", "log", "pc-1"]).is_ok_and(|log| log.contains("handover"))
        {
            ensure!(Instant::now() < deadline, "the log of the boot has not come");
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(pc);
        comes_up_with_a_fix(&room).context("with files laid over the image")?;
        room.servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

/// What hurts is told, and with the files that are laid over the same version the machine is up.
fn comes_up_with_a_fix(room: &Room) -> Result<()> {
    let told = room.site.run(&["image", "check", "debian", "--json"])?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let harms = told["harms"].as_array().context("no harms")?.iter();
    let of_fstab: Vec<(&str, u64)> = harms
        .filter(|harm| harm["path"] == "/etc/fstab")
        .filter_map(|harm| Some((harm["check"].as_str()?, harm["line"].as_u64()?)))
        .collect();
    ensure!(
        of_fstab == [("fstab-mount", 1), ("fstab-mount", 2), ("fstab-swap", 3)],
        "what hurts: {told:#}"
    );
    println!("{}", room.site.run(&["image", "check", "debian"])?);
    let fixed = room.site.run(&["image", "fix", "debian"])?;
    ensure!(fixed.contains("/etc/fstab (file; fstab-mount, fstab-swap)"), "{fixed}");
    let page = room.site.browser().get("/images/debian/1")?.body;
    ensure!(page.contains("● fixed") && page.contains("# Bootlace (fstab-mount): "), "{page}");

    let (preboot, kernel) = room.preboot()?;
    drop(preboot);
    let pc = room.pc(&kernel, "virtio-net-pci")?;
    let stages = room.site.wait_for_stage("pc-1", "up", SYSTEM)?;
    let handover = stages.iter().find(|line| line.stage == "handover").context("no handover")?;
    ensure!(handover.detail.contains("files laid over: "), "{}", handover.detail);
    ensure!(!handover.detail.contains("not laid over"), "{}", handover.detail);
    let console = pc.console();
    wait_for_login(&pc, "pc-1")?;
    console.log_in(SYSTEM)?;
    let fstab = console.shell("stat -c '%a %U' /etc/fstab; cat /etc/fstab", SYSTEM)?;
    let lines: Vec<&str> = fstab.lines().map(str::trim_end).collect();
    // As it is in the image.
    ensure!(lines.first() == Some(&"644 root"), "{fstab}");
    ensure!(
        lines[1..].len() == 3
            && lines[1..].iter().all(|line| line.starts_with("# Bootlace (fstab-")),
        "{fstab}"
    );
    let undone = room.site.run(&["image", "fix", "debian", "--none"])?;
    ensure!(undone.contains("nothing is laid over it any more"), "{undone}");
    Ok(())
}
