//! A root on LVM, made by LVM's own programs, of which init makes a device without them.

use crate::boot::{BOOT, COMMAND, MAC, SHUTDOWN, can_boot, wait_for_login};
use anyhow::{Context, Result, ensure};
use lab::{Kernel, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts a root into a group as an installer and an administrator make it: the root was extended when another volume lay
/// behind it already. `$1`: the disk, `$2`: the root's file system, `$3`: that of /home.
const MAKE: &str = r#"set -eu
truncate -s 1300M "$1"
# One partition from sector 2048 to the end, of the type of LVM.
entry='\000\000\000\000\216\000\000\000\000\010\000\000\000\230\050\000'
printf "$entry" | dd of="$1" bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
device=$(losetup -f --show --offset 1048576 "$1")
trap 'losetup -d $device' EXIT
do_lvm() { "$@" --config "devices { filter = [\"a|^$device\$|\", \"r|.*|\"] use_devicesfile = 0 }" </dev/null; }
do_lvm pvcreate -q $device
do_lvm vgcreate -q vg-0 $device
new="lvcreate -q --driverloaded n -an -Zn -Wn -y"
do_lvm $new -l 100 -n root vg-0
do_lvm $new -l 8 -n home vg-0
do_lvm lvextend -q --driverloaded n -l 256 vg-0/root
# Extents of 4 MiB behind the first MiB.
dd if="$2" of="$device" bs=1M count=400 seek=1 conv=sparse,notrunc status=none
dd if="$3" of="$device" bs=1M seek=401 conv=sparse,notrunc status=none
dd if="$2" of="$device" bs=1M skip=400 seek=433 conv=sparse,notrunc status=none
"#;

/// What the package dmsetup has for udev: systems on LVM have it.
const UDEV: [&str; 4] = [
    "/sbin/dmsetup",
    "/lib/udev/rules.d/55-dm.rules",
    "/lib/udev/rules.d/60-persistent-storage-dm.rules",
    "/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1",
];

#[test]
fn a_root_on_lvm_boots_without_the_programs_of_lvm() {
    let programs = ["lvcreate", "losetup", "debugfs", "udhcpc"];
    if can_boot("lvm") && require("lvm", &programs.map(Need::Program)) {
        lvm().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn lvm() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let folder = tempfile::tempdir()?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let disk = disk(folder.path(), &image)?;
    let site = Site::builder()
        .kernel_args("console=tty0 console=ttyS0,115200 quiet")
        .create(Lan::lay("lvm")?)?;
    site.run(&["image", "import", &disk.to_string_lossy(), "--name", "debian"])?;
    let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
    site.run(&[&machine[..], &["--write-mode", "persistent"]].concat())?;
    let servers = site.up()?;

    let mut pc = power_on(&site, |_| {})?;
    wait_for_login(&pc, "pc-1")?;
    let console = pc.console().clone();
    console.log_in(COMMAND)?;
    let shell = |command: &str| console.shell(command, COMMAND);
    let found =
        shell("findmnt -no SOURCE /; findmnt -no SOURCE /home; cat /sys/block/dm-*/dm/name")?;
    let expected = "/dev/mapper/vg--0-root\n/dev/mapper/vg--0-home\nvg--0-root\nvg--0-home";
    ensure!(found.replace('\r', "") == expected, "{found:?}");
    shell("echo kept > /home/file; echo mine > /root/file; sync")?;
    let failed = shell("systemctl --failed --no-legend --plain")?;
    ensure!(failed.is_empty(), "{failed}");
    console.send_line("systemctl poweroff")?;
    pc.wait_for_off(SHUTDOWN)?;
    ensure!(console.text().contains("bootlace: root unmounted; poweroff"), "{}", console.tail(20));

    // Over AoE, with changes in memory, from the image again. A shell is enough.
    site.run(&["machine", "set", "pc-1", "--root-kind", "aoe", "--write-mode", "ram"])?;
    let pc = power_on(&site, |kernel| kernel.command_line += " init=/bin/sh")?;
    pc.console().wait_for("\n# ", BOOT)?;
    let said = pc
        .console()
        .shell("cat /root/file; mount -o ro,noload /dev/vg-0/home /home && ls /home", COMMAND)?;
    ensure!(said.contains("No such file") && said.ends_with("lost+found"), "{said:?}");
    drop(pc);
    servers.stop()
}

fn power_on(site: &Site, change: impl FnOnce(&mut Kernel)) -> Result<Pc> {
    let mut kernel = Preboot::start(site, MAC)?.fetch()?;
    ensure!(
        kernel.command_line.contains(" bootlace.logical_volume=vg-0/root"),
        "{}",
        kernel.command_line
    );
    change(&mut kernel);
    Pc::builder("pc-1").mac(MAC).kernel(&kernel).start(site.lan())
}

/// The disk of a system that mounts a second logical volume.
pub(crate) fn disk(folder: &Path, image: &Path) -> Result<PathBuf> {
    let [root, home, disk] = ["root", "home", "disk"].map(|name| folder.join(name));
    run(Command::new("cp").arg("--sparse=always").args([image, &root]))?;
    run(Command::new("mkfs.ext4").args(["-q"]).arg(&home).arg("32M"))?;
    let fstab = folder.join("fstab");
    std::fs::write(
        &fstab,
        "/dev/mapper/vg--0-root / ext4 defaults 0 1\n/dev/mapper/vg--0-home /home ext4 defaults 0 2\n",
    )?;
    let mut script = format!("rm /etc/fstab\nwrite {} /etc/fstab\n", fstab.display());
    for path in UDEV {
        let place = std::fs::canonicalize(path).with_context(|| format!("no {path} here"))?;
        // Below /usr, as in Debian.
        script += &format!("write {0} {0}\nset_inode_field {0} mode 0100755\n", place.display());
    }
    let commands = folder.join("commands");
    std::fs::write(&commands, script)?;
    run(Command::new("debugfs").arg("-w").arg("-f").arg(&commands).arg(&root))?;
    run(Command::new("sh").args(["-c", MAKE, "sh"]).args([&disk, &root, &home]))?;
    Ok(disk)
}
