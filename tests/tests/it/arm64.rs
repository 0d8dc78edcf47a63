//! arm64 PCs boot as others do, by their own firmware, and get nothing that is for x86.

use crate::boot::{BOOT, COMMAND, MAC, wait_for_login};
use anyhow::{Result, bail, ensure};
use lab::{Arm64, Firmware, Lan, Need, Pc, PcSlots, Recipe, Site, require};

/// Whether this machine can boot arm64 PCs.
fn can_boot(name: &str) -> bool {
    let needs = [
        Need::Root,
        Need::SlowTests,
        Need::InitForArm64,
        Need::Program("qemu-system-aarch64"),
        Need::File(Arm64::FIRMWARE),
        Need::Program("mmdebstrap"),
        Need::Program("grub-mkimage"),
    ];
    require(name, &needs)
}

#[test]
fn a_pc_boots_to_its_system_from_its_own_firmware_over_nbd_and_over_aoe() {
    if can_boot("arm64") {
        boots().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn boots() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let say = |text: &str| eprintln!("{text}");
    let made = Arm64::make(say)?;
    let of_x86 = Recipe::BUSYBOX.image(say)?;
    let site = Site::builder()
        .kernel_args("console=ttyAMA0,115200")
        .boot(&format!("arm64_grub = \"{}\"", made.grub.display()))
        .create(Lan::lay("arm64")?)?;
    for (image, name) in [(&made.image, "arm"), (&of_x86, "pc")] {
        site.run(&["image", "import", &image.to_string_lossy(), "--name", name])?;
    }
    let images = site.run(&["image", "ls"])?;
    let is_arm = |line: &str| line.starts_with("arm ") && line.contains(" arm64 ");
    ensure!(images.lines().any(is_arm), "{images}");
    let servers = site.up()?;
    // Nothing is known of the PC yet.
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "pc"])?;
    let mut pc = Pc::builder("pc-1").mac(MAC).firmware(Firmware::Arm64).start(site.lan())?;
    let waits = "pc-1 is an arm64 PC, and the image pc is for x86-64";
    pc.console().wait_for(waits, BOOT)?;
    let Err(refused) = site.run(&["machine", "set", "pc-1", "--image", "pc"]) else {
        bail!("pc-1 was given an image of x86-64");
    };
    ensure!(format!("{refused:#}").contains("and the image pc is for x86-64"), "{refused:#}");
    let why = site.run(&["net", "why", "pc-1"])?;
    ensure!(why.contains("UEFI arm64") && why.contains("bl-arm64.efi"), "{why}");

    site.run(&["machine", "set", "pc-1", "--image", "arm"])?;
    wait_for_login(&pc, "pc-1")?;
    let console = pc.console().clone();
    console.log_in(COMMAND)?;
    let processor = console.shell("uname -m", COMMAND)?;
    ensure!(processor == "aarch64", "{processor}");
    let mounts = console.shell("cat /proc/mounts", COMMAND)?;
    ensure!(mounts.contains("/dev/nbd0 / "), "{mounts}");
    let stages = site.wait_for_stage("pc-1", "handover", BOOT)?;
    let loader = stages.iter().find(|line| line.stage == "loader");
    ensure!(loader.is_some_and(|line| line.detail.starts_with("bl-arm64.efi, ")), "{loader:?}");

    site.run(&["machine", "set", "pc-1", "--root-kind", "aoe"])?;
    pc.reset()?;
    wait_for_login(&pc, "pc-1")?;
    console.log_in(COMMAND)?;
    let mounts = console.shell("cat /proc/mounts", COMMAND)?;
    ensure!(mounts.contains("/dev/etherd/e"), "{mounts}");
    servers.stop()
}

#[test]
fn a_pc_with_secure_boot_boots_by_the_distribution_s_signed_loader() {
    if can_boot("arm64-signed") {
        boots_signed().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn boots_signed() -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let made = Arm64::make(|text: &str| eprintln!("{text}"))?;
    let site = Site::builder()
        .kernel_args("console=ttyAMA0,115200")
        .boot(&format!("arm64_grub = \"{}\"", made.grub.display()))
        .boot(&format!("arm64_signed_loader = \"{}\"", made.signed.display()))
        .create(Lan::lay("arm64-signed")?)?;
    site.run(&["image", "import", &made.image.to_string_lossy(), "--name", "arm"])?;
    let servers = site.up()?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "arm"])?;
    let pc = Pc::builder("pc-1").mac(MAC).firmware(Firmware::Arm64SecureBoot);
    let pc = pc.start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    let stages = site.wait_for_stage("pc-1", "handover", BOOT)?;
    let loader = stages.iter().find(|line| line.stage == "loader");
    let is_signed =
        |detail: &str| detail.contains("shimaa64.efi, ") && detail.contains("grubaa64.efi, ");
    ensure!(loader.is_some_and(|line| is_signed(&line.detail)), "{loader:?}");
    let why = site.run(&["net", "why", "pc-1"])?;
    ensure!(why.contains("Secure Boot: on") && why.contains("shimaa64.efi"), "{why}");
    servers.stop()
}
