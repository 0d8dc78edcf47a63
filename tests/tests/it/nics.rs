//! One initrd boots PCs with every network card that QEMU has. Kernel and initrd are put into memory by
//! QEMU: what firmware and loader do is the matter of `boot.rs`.

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Lan, Need, Pc, PcSlots, Preboot, Recipe, Site, require};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From power-on to the shell: 6 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

/// One command on the console.
const COMMAND: Duration = Duration::from_secs(60);

/// QEMU's `usb-net` tells the guest 40 as the first byte, whatever it was given.
const MAC: &str = "40:54:00:00:00:01";

/// Part of the disk that is read over the card and compared: data that a mount does not change.
const SAMPLE_START_MIB: u64 = 128;
const SAMPLE_MIB: u64 = 8;

struct Room {
    servers: Daemon,
    site: Site,
    sample: String,
    _slot: PcSlots,
}

fn in_a_room(root: &str, test: impl FnOnce(&Room) -> Result<()>) {
    let name = format!("nics-{root}");
    let needs = [
        Need::Root,
        Need::SlowTests,
        Need::Program("qemu-system-x86_64"),
        Need::Program("mmdebstrap"),
        Need::Program("grub-mkimage"),
        Need::Program("udhcpc"),
        Need::Program("curl"),
    ];
    if !require(&name, &needs) {
        return;
    }
    let room = Room::set_up(&name, root).unwrap_or_else(|error| panic!("no room: {error:#}"));
    if let Err(error) = test(&room) {
        panic!("{error:#}");
    }
    room.servers.stop().expect("the servers stop when they are asked to");
}

impl Room {
    fn set_up(name: &str, root: &str) -> Result<Self> {
        let _slot = PcSlots::take(1)?;
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        // One shell for all: it is the image's own program, and needs no time to start.
        let site = Site::builder()
            .boot("fitted_initrds = false")
            .kernel_args("console=tty0 console=ttyS0,115200 init=/bin/sh quiet")
            .create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
        site.run(&[&machine[..], &["--root-kind", root]].concat())?;
        let servers = site.up()?;
        Ok(Self { servers, site, sample: sample(&image)?, _slot })
    }

    /// Boots a PC with this card.
    fn check(&self, model: &str, driver: &str, device: &str) -> Result<()> {
        let started = Instant::now();
        let kernel = Preboot::start(&self.site, MAC)?.fetch()?;
        let pc =
            Pc::builder("pc-1").mac(MAC).nic_model(model).kernel(&kernel).start(self.site.lan())?;
        let console = pc.console();
        console.wait_for(&format!(" has {driver} ("), BOOT)?;
        console.wait_for("\n# ", BOOT)?;
        let boot = started.elapsed();
        // What the kernel says meanwhile only gets between us and the text.
        let path = "export PATH=/usr/sbin:/usr/bin; dmesg -n emerg";
        let root = console.shell(&format!("{path}; findmnt -no SOURCE /"), COMMAND)?;
        ensure!(root.ends_with(device), "the root is {root:?}");
        let read = console.shell(
            &format!(
                "dd if={device} bs=1M skip={SAMPLE_START_MIB} count={SAMPLE_MIB} iflag=direct \
                 2>/dev/null | md5sum"
            ),
            COMMAND,
        )?;
        ensure!(read == self.sample, "what was read differs: {read}, not {}", self.sample);
        let stages = self.site.wait_for_stage("pc-1", "handover", COMMAND)?;
        let last = stages.last().context("no stages")?;
        println!(
            "{model}: {:.1} s to the shell, {:.1} s in all, {} stages, boot {}",
            boot.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            stages.len(),
            last.boot
        );
        Ok(())
    }

    /// Boots with this NIC as far as to the attached disk, of which next to nothing is read.
    fn check_attaches(&self, model: &str, driver: &str) -> Result<()> {
        let kernel = Preboot::start(&self.site, MAC)?.fetch()?;
        let pc =
            Pc::builder("pc-1").mac(MAC).nic_model(model).kernel(&kernel).start(self.site.lan())?;
        pc.console().wait_for(&format!(" has {driver} ("), BOOT)?;
        pc.console().wait_for(" attach: NBD ", BOOT)
    }

    fn check_all(&self, cards: &[(&str, &str)], device: &str) -> Result<()> {
        for (model, driver) in cards {
            self.check(model, driver, device).with_context(|| format!("with {model}"))?;
        }
        Ok(())
    }
}

/// What `md5sum` says of the sample.
fn sample(image: &PathBuf) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(SAMPLE_MIB << 20)?];
    File::open(image)?.read_exact_at(&mut bytes, SAMPLE_START_MIB << 20)?;
    let folder = tempfile::tempdir()?;
    let file: &Path = &folder.path().join("sample");
    std::fs::write(file, bytes)?;
    let mut md5sum = std::process::Command::new("sh");
    lab::text_of(md5sum.args(["-c", "md5sum <\"$1\"", "sh"]).arg(file))
}

#[test]
fn every_card_boots_over_nbd() {
    in_a_room("nbd", |room| {
        let cards = [
            ("virtio-net-pci", "virtio_net"),
            ("e1000", "e1000"),
            ("e1000e", "e1000e"),
            ("igb", "igb"),
            ("rtl8139", "8139cp"),
            ("pcnet", "pcnet32"),
            ("vmxnet3", "vmxnet3"),
            ("i82559er", "e100"),
            ("tulip", "tulip"),
            ("usb-net", "cdc_ether"),
        ];
        room.check_all(&cards, "/dev/nbd0")?;
        // QEMU's NE2000 does not say that its ring was full. When Linux leaves frames in it, which it
        // does after nine, it waits for ever for the next one: seen in 1 of 20 boots.
        room.check_attaches("ne2k_pci", "ne2k-pci").context("with ne2k_pci")
    });
}

#[test]
fn cards_boot_over_aoe() {
    in_a_room("aoe", |room| {
        // Not usb-net: QEMU's stalls under the many frames of AoE.
        let cards = [("virtio-net-pci", "virtio_net"), ("e1000", "e1000"), ("rtl8139", "8139cp")];
        room.check_all(&cards, "/dev/etherd/e1.0")
    });
}
