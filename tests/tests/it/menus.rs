//! PCs go on from the loader to a disk of their own.

use crate::boot::{MAC, OTHER_MAC};
use anyhow::{Context, Result, ensure};
use lab::{Firmware, Lan, Need, Pc, PcSlots, Site, require};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the systems on the disks say.
const STARTED: &str = "STARTED FROM THE DISK";

/// Firmware, loader and disk take seconds.
const SOON: Duration = Duration::from_secs(90);

/// A disk whose first sector writes [`STARTED`] to the serial port.
fn bios_disk(folder: &Path) -> Result<PathBuf> {
    let mut sector = vec![
        0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
        0xfc, 0xbe, 0x20, 0x7c, // cld; mov si, 0x7c20
        0xac, 0x84, 0xc0, 0x74, 0x06, // next: lodsb; test al, al; jz stop
        0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, // mov dx, 0x3f8; out dx, al; jmp next
        0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
    ];
    sector.resize(0x20, 0);
    sector.extend(STARTED.bytes());
    sector.extend(b"\r\n");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    let path = folder.join("bios.raw");
    std::fs::write(&path, sector)?;
    Ok(path)
}

/// A folder that QEMU makes a FAT disk of, with a loader for UEFI at this path that does the same.
fn uefi_disk(folder: &Path, loader: &str) -> Result<PathBuf> {
    let disk = folder.join("uefi");
    let path = disk.join(loader);
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    let script = folder.join("early.cfg");
    let says = format!("serial --unit=0\nterminal_output serial\necho '{STARTED}'\nsleep 999\n");
    std::fs::write(&script, says)?;
    let made = Command::new("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "/none", "-c"])
        .arg(&script)
        .arg("-o")
        .arg(&path)
        .args(["echo", "sleep", "serial", "terminal", "normal"])
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(disk)
}

fn press(pc: &mut Pc, key: &str) -> Result<()> {
    let keys = json!({ "keys": [{ "type": "qcode", "data": key }] });
    pc.execute("send-key", &keys).map(drop)
}

/// Memtest86+ runs on PCs that are to start it once, and says so on the serial port that kernels use.
fn tests_memory(site: &Site) -> Result<()> {
    site.run(&["machine", "set", "lab-08", "--mac", MAC])?;
    for (name, mac, firmware) in
        [("lab-07", OTHER_MAC, Firmware::Uefi), ("lab-08", MAC, Firmware::Bios)]
    {
        site.run(&["machine", "next", name, "memory-test"])?;
        let pc = Pc::builder(name).mac(mac).firmware(firmware).start(site.lan())?;
        pc.console().wait_for("Bootlace: memory test", SOON)?;
        pc.console().wait_for("Memtest86+", SOON).with_context(|| format!("{firmware:?}"))?;
    }
    Ok(())
}

#[test]
fn a_stranger_goes_on_to_its_disk_and_a_machine_if_somebody_chooses_that() {
    let name = "menus";
    let needs = ["grub-mkimage", "qemu-system-x86_64"].map(Need::Program);
    let memory_test = Need::File("/boot/memtest86+x64.efi");
    if !require(name, &[Need::Root, Need::SlowTests, memory_test]) || !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let _slots = PcSlots::take(2)?;
        let site = Site::builder().boot("strangers = \"local-disk\"").create(Lan::lay(name)?)?;
        let menu = ["--menu", "image,local-disk,3000s"];
        site.run(&[["machine", "set", "lab-07", "--mac", OTHER_MAC].as_slice(), &menu].concat())?;
        let servers = site.up()?;

        let bios = bios_disk(site.root())?;
        let drive = format!("file={},format=raw,if=ide", bios.display());
        let stranger = Pc::builder("stranger").mac(MAC).extra(&["-drive", &drive]);
        let stranger = stranger.start(site.lan())?;
        let uefi = uefi_disk(site.root(), "EFI/Microsoft/Boot/bootmgfw.efi")?;
        let drive = format!("file=fat:rw:{},format=raw,if=none,id=own", uefi.display());
        let machine = Pc::builder("lab-07").mac(OTHER_MAC).firmware(Firmware::Uefi);
        // OVMF looks only at disks that have a place in its boot order.
        let machine =
            machine.extra(&["-drive", &drive, "-device", "virtio-blk-pci,drive=own,bootindex=2"]);
        let mut machine = machine.start(site.lan())?;

        stranger.console().wait_for("is not in the machine list", SOON)?;
        stranger.console().wait_for(STARTED, SOON)?;
        drop(stranger);

        machine.console().wait_for("The disk of this PC", SOON)?;
        // The lines of the menu are nobody's to change, nor is there a command line.
        press(&mut machine, "e")?;
        machine.console().wait_for("Enter username", SOON)?;
        for key in ["ret", "ret", "down", "ret"] {
            std::thread::sleep(Duration::from_secs(2));
            press(&mut machine, key)?;
        }
        machine.console().wait_for("bootmgfw.efi", SOON)?;
        machine.console().wait_for(STARTED, SOON)?;
        let view = site.browser().json("/api/v1/machines/lab-07")?;
        ensure!(view["state"]["word"] == "local", "{view}");
        drop(machine);
        tests_memory(&site)?;
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}
