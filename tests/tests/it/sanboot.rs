//! iPXE's own AoE initiator boots from a shared disk.

use anyhow::Result;
use lab::{Daemon, Lan, Need, Pc, PcSlots, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Firmware, DHCP and four sectors: 20 s, most of which iPXE waits for an IPv6 router.
const BOOT: Duration = Duration::from_secs(120);

const SECTOR: u64 = 512;
const TEXT: &str = "read over AoE by INT 13h\n";
/// Where the text is: far enough that nobody has read it along with the boot sector.
const TEXT_SECTOR: u64 = 1000;
/// iPXE boots from no disk with less than a cylinder of 8 MiB.
const DISK_SECTORS: u64 = 1 << 17;

/// Reads a sector by the BIOS, writes the text in it to the serial port and halts.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0x8e, 0xc0,             // mov es, ax
    0x8e, 0xd0,             // mov ss, ax
    0xbc, 0x00, 0x7c,       // mov sp, 0x7c00
    0xbe, 0x40, 0x7c,       // mov si, 0x7c40: what to read
    0xb4, 0x42,             // mov ah, 0x42: from the drive in dl
    0xcd, 0x13,             // int 0x13
    0x72, 0x0e,             // jc halt
    0xbe, 0x00, 0x7e,       // mov si, 0x7e00
    0xac,                   // next: lodsb
    0x84, 0xc0,             // test al, al
    0x74, 0x06,             // jz halt
    0xba, 0xf8, 0x03,       // mov dx, 0x3f8
    0xee,                   // out dx, al
    0xeb, 0xf5,             // jmp next
    0xf4,                   // halt: hlt
    0xeb, 0xfd,             // jmp halt
];

/// One sector to 0x7e00; its number follows.
const READ: &[u8] = &[0x10, 0x00, 0x01, 0x00, 0x00, 0x7e, 0x00, 0x00];

#[test]
fn ipxe_boots_from_a_disk_over_aoe() {
    let needs = [
        Need::Root,
        Need::SlowTests,
        Need::Program("qemu-system-x86_64"),
        Need::Program("dnsmasq"),
    ];
    if require("sanboot", &needs) {
        sanboot().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn sanboot() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let lan = Lan::lay("sanboot")?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    make_disk(&disk)?;
    let mut share = lan.netns().command(bootlace_binary()?, Signal::SIGTERM);
    share.arg("share").arg(&disk).args(["--readonly", "--aoe", "br0:1.0"]);
    let log = folder.path().join("share.log");
    let mut share = Daemon::start_detached("bootlace share", &mut share, &log)?;
    share.wait_for_log("e1.0", BOOT)?;
    let mut dnsmasq = lan.netns().command("dnsmasq", Signal::SIGKILL);
    dnsmasq.args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--port=0"]);
    dnsmasq.args(["--interface=br0", "--bind-interfaces", "--user=root", "--pid-file="]);
    dnsmasq.args(["--dhcp-range=10.77.0.100,10.77.0.199,12h", "--dhcp-option=17,aoe:e1.0"]);
    dnsmasq.arg(format!("--dhcp-leasefile={}", folder.path().join("leases").display()));
    let log = folder.path().join("dnsmasq.log");
    let mut dnsmasq = Daemon::start("dnsmasq", dnsmasq.stdin(Stdio::null()), &log)?;
    dnsmasq.wait_for_log("DHCP, IP range", BOOT)?;
    let pc = Pc::builder("pc-1").start(&lan)?;
    pc.console().wait_for(TEXT, BOOT)?;
    println!("{:?} after power-on", pc.console().time_of(TEXT));
    drop(pc);
    share.stop()
}

fn make_disk(path: &Path) -> Result<()> {
    let disk = File::create(path)?;
    disk.set_len(DISK_SECTORS * SECTOR)?;
    disk.write_all_at(CODE, 0)?;
    disk.write_all_at(&[READ, &TEXT_SECTOR.to_le_bytes()].concat(), 0x40)?;
    disk.write_all_at(&[0x55, 0xaa], SECTOR - 2)?;
    disk.write_all_at(TEXT.as_bytes(), TEXT_SECTOR * SECTOR)?;
    Ok(())
}
