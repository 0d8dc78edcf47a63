//! PCs with roots on servers that are not ours: NFS-Ganesha, tgt, nbdkit and vblade.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{
    Daemon, ISCSI_LUN, ISCSI_TARGET, IscsiTarget, Lan, NFS_FOLDER, Need, NfsServer, Pc, PcSlots,
    Preboot, Recipe, SERVER, Site, require, run, text_of,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A running site with the machine `pc-1`, whose kernel is the image's.
struct Room {
    servers: Daemon,
    site: Site,
    image: PathBuf,
    folder: tempfile::TempDir,
    slot: PcSlots,
}

fn in_a_room(name: &str, server: &'static str, test: impl FnOnce(&mut Room) -> Result<()>) {
    let programs =
        ["qemu-system-x86_64", "mmdebstrap", "grub-mkimage", "udhcpc", "curl", "debugfs", server];
    let needs: Vec<Need> =
        [Need::Root, Need::SlowTests].into_iter().chain(programs.map(Need::Program)).collect();
    if !require(name, &needs) {
        return;
    }
    let mut room = Room::set_up(name).unwrap_or_else(|error| panic!("no room: {error:#}"));
    if let Err(error) = test(&mut room) {
        panic!("{error:#}");
    }
    room.servers.stop().expect("the servers stop when they are asked to");
}

impl Room {
    fn set_up(name: &str) -> Result<Self> {
        let slot = PcSlots::take(1)?;
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        let site = Site::builder()
            .kernel_args("console=tty0 console=ttyS0,115200 quiet")
            .create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        // No storage server: these machines need none.
        let servers = site.serve()?;
        Ok(Self { servers, site, image, folder: tempfile::tempdir()?, slot })
    }

    /// Starts `pc-1` with this root.
    fn power_on(&self, url: &str, settings: &[&str]) -> Result<Pc> {
        let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
        self.site.run(&[&machine[..], &["--root-url", url], settings].concat())?;
        let kernel = Preboot::start(&self.site, MAC)?.fetch()?;
        Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(self.site.lan())
    }
}

#[test]
fn a_root_over_nfs_is_waited_for_and_kept() {
    in_a_room("nfs", "ganesha.nfsd", |room| {
        let nfs = NfsServer::prepare(&room.image, room.folder.path())?;
        let mut pc = room.power_on(&format!("nfs://{SERVER}{NFS_FOLDER}"), &[])?;
        let waiting = format!(
            "waiting for the NFS server {SERVER}:2049: the machine is there, but no NFS server runs on it"
        );
        pc.console().wait_for(&waiting, BOOT)?;
        let server = nfs.start(room.site.lan())?;
        wait_for_login(&pc, "pc-1")?;
        let console = pc.console().clone();
        console.log_in(COMMAND)?;
        let root = console.shell("findmnt -no SOURCE,FSTYPE,OPTIONS /", COMMAND)?;
        ensure!(root.contains("nfs4") && root.contains("vers=4.2"), "the root is {root:?}");
        console.shell("echo mine > /root/kept; sync", COMMAND)?;
        let kept = std::fs::read_to_string(nfs.tree().join("root/kept"))?;
        ensure!(kept == "mine\n", "the server has {kept:?}");
        console.send_line("systemctl poweroff")?;
        console.wait_for("bootlace: root unmounted; poweroff", SHUTDOWN)?;
        pc.wait_for_off(SHUTDOWN)?;

        // By NFS 3, read-only: the next one begins where that one ended, and leaves nothing.
        let url = format!("nfs://{SERVER}{}?vers=3,ro", nfs.tree().display());
        let pc = room.power_on(&url, &["--kernel-args", "init=/bin/sh"])?;
        pc.console().wait_for("NFS 3 ", BOOT)?;
        pc.console().wait_for("\n# ", BOOT)?;
        let path = "export PATH=/usr/sbin:/usr/bin; dmesg -n emerg";
        let said = pc.console().shell(
            &format!("{path}; findmnt -no FSTYPE /; cat /root/kept; echo lost > /root/lost && echo written"),
            COMMAND,
        )?;
        ensure!(said.contains("overlay") && said.contains("mine"), "{said:?}");
        ensure!(said.contains("written"), "{said:?}");
        ensure!(!nfs.tree().join("root/lost").exists(), "it was written to the server");
        server.stop().context("the NFS server stops")
    });
}

/// tgt does not stop for as long as a session is open, as which a machine that is off counts.
fn cut_off(server: Daemon) -> Result<()> {
    kill(Pid::from_raw(server.id().try_into()?), Signal::SIGKILL)?;
    drop(server);
    Ok(())
}

/// How long the target is away; the kernel gives disks up after 120 s, unless it is told otherwise.
const OUTAGE: Duration = Duration::from_secs(20);

/// How long a machine may need to find its disk again.
const BACK: Duration = Duration::from_secs(60);

/// What a machine does whose disk is on a server that comes late and goes away: it waits, finds its root in `device`, and loses nothing.
fn survives_an_outage(
    room: &mut Room,
    url: &str,
    waits_for: &str,
    device: &str,
    start: impl Fn(&Lan) -> Result<Daemon>,
) -> Result<()> {
    let mut pc = room.power_on(url, &[])?;
    pc.console().wait_for(&format!("waiting for the {waits_for}: "), BOOT)?;
    let server = start(room.site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    let console = pc.console().clone();
    console.log_in(COMMAND)?;
    let root = console.shell("findmnt -no SOURCE,FSTYPE /", COMMAND)?;
    ensure!(root.contains(device) && root.contains("ext4"), "the root is {root:?}");

    cut_off(server)?;
    console.send_line("dd if=/dev/urandom of=/root/kept bs=1M count=4 conv=fsync; echo done-$?")?;
    room.slot.lend(|| std::thread::sleep(OUTAGE))?;
    ensure!(!console.text().contains("done-0"), "it has written to nobody");
    let server = start(room.site.lan())?;
    console.wait_for("done-0", BACK)?;
    let log = console.shell("dmesg | grep -ci 'i/o error'", COMMAND)?;
    ensure!(log == "0", "there were errors: {}", console.shell("dmesg | tail -30", COMMAND)?);
    console.send_line("systemctl poweroff")?;
    console.wait_for("bootlace: root unmounted; poweroff", SHUTDOWN)?;
    pc.wait_for_off(SHUTDOWN)?;
    cut_off(server)
}

#[test]
fn a_root_over_iscsi_survives_an_outage_of_its_target() {
    in_a_room("iscsi", "tgtd", |room| {
        let target = IscsiTarget::prepare(&room.image, room.folder.path())?;
        let url = format!("iscsi://{SERVER}/{ISCSI_TARGET}/{ISCSI_LUN}");
        let waits_for = format!("iSCSI server {SERVER}:3260");
        survives_an_outage(room, &url, &waits_for, "/dev/sda", |lan| target.start(lan))
    });
}

/// As the disk of a server stands on LVM, and LVM in it.
#[test]
fn a_logical_volume_on_a_foreign_nbd_server_survives_an_outage() {
    if !require("other-nbd", &["lvcreate", "losetup"].map(Need::Program)) {
        return;
    }
    in_a_room("other-nbd", "nbdkit", |room| {
        let disk = crate::lvm::disk(room.folder.path(), &room.image)?;
        let url = format!("nbd://{SERVER}:10810/fedora?lv=vg-0/root");
        let waits_for = format!("NBD server {SERVER}:10810");
        let log = room.folder.path().join("nbdkit.log");
        survives_an_outage(room, &url, &waits_for, "/dev/mapper/vg--0-root", |lan| {
            let mut nbdkit = lan.netns().command("nbdkit", Signal::SIGKILL);
            nbdkit.args(["--foreground", "--port", "10810", "--ipaddr", SERVER, "file"]);
            // Under any name.
            Daemon::start_detached("nbdkit", nbdkit.arg(&disk), &log)
        })
    });
}

#[test]
fn a_foreign_aoe_target_has_the_root() {
    in_a_room("other-aoe", "vblade", |room| {
        let disk = room.folder.path().join("aoe.raw");
        run(Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([room.image.as_os_str(), disk.as_os_str()]))?;
        let shell = ["--kernel-args", "init=/bin/sh"];
        let pc = room.power_on("aoe://7.3", &shell)?;
        pc.console().wait_for("waiting for AoE target 7.3 on eth0: does a target have", BOOT)?;
        let target = room.site.lan().add_client("target", "52:54:00:99:00:01")?;
        let start = |disk: &Path| {
            // For this machine only.
            let mut vblade = target.netns().command("vblade", Signal::SIGKILL);
            vblade.args(["-m", MAC, "7", "3", "eth0"]).arg(disk);
            Daemon::start_detached("vblade", &mut vblade, &room.folder.path().join("vblade.log"))
        };
        let vblade = start(&disk)?;
        let says = |pc: &Pc, command: &str| {
            pc.console().wait_for("\n# ", BOOT)?;
            let path = "export PATH=/usr/sbin:/usr/bin; dmesg -n emerg";
            pc.console().shell(&format!("{path}; {command}"), COMMAND)
        };
        let said =
            says(&pc, "findmnt -no SOURCE /; mount -o remount,rw /; echo mine > /root/kept; sync")?;
        ensure!(said.contains("/dev/etherd/e7.3"), "{said:?}");
        drop(pc);

        // Written to memory only.
        let pc = room.power_on("aoe://7.3?ro", &shell)?;
        let said = says(&pc, "findmnt -no FSTYPE /; cat /root/kept; rm /root/kept && echo gone")?;
        ensure!(said.contains("overlay") && said.contains("mine"), "{said:?}");
        ensure!(said.contains("gone"), "{said:?}");
        drop(pc);
        cut_off(vblade)?;
        let kept = text_of(Command::new("debugfs").args(["-R", "cat /root/kept"]).arg(&disk))?;
        ensure!(kept.trim() == "mine", "the target has {kept:?}");
        Ok(())
    });
}
