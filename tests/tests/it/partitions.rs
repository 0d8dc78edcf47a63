//! Partition tables, usual and odd: the number that an import gives to the root is the one that Linux gives it.

use crate::boot::can_boot;
use anyhow::{Context, Result, ensure};
use lab::{Kernel, Lan, Need, Pc, PcSlots, Recipe, bootlace_binary, require, run, text_of};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SECTOR: u64 = 512;
/// Each disk has so many sectors: 16 MiB.
const DISK: u32 = 32768;
/// Where the root is on most disks, and how long it is.
const ROOT: u32 = 8192;
const ROOT_SECTORS: u32 = 8192;
/// From power-on to the last disk: 15 s on an idle machine.
const BOOT: Duration = Duration::from_secs(180);

/// Modules without which Linux sees no disk, in the order in which they are loaded.
const MODULES: [&str; 6] = [
    "virtio/virtio_ring.ko",
    "virtio/virtio.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "block/virtio_blk.ko",
];

/// Says of each disk, which is known by its serial number, what Linux found on it.
const INIT: &str = "#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t sysfs none /sys
for module in /modules/*; do $busybox insmod $module; done
for disk in /sys/block/vd*; do
    for part in $disk/vd*; do
        [ -e $part/partition ] || continue
        echo \"part $($busybox cat $disk/serial) $($busybox cat $part/partition) $($busybox cat $part/start)\"
    done
done
echo 'all disks seen'
$busybox poweroff -f
";

/// An entry of a boot record: its place, its type, its first sector and its length.
type Entry = (usize, u8, u32, u32);

/// A disk under construction.
struct Disk {
    bytes: Vec<u8>,
}

impl Disk {
    /// An empty one with the root's file system at this sector.
    fn new(root: &[u8], sector: u32) -> Self {
        let mut disk = Self { bytes: vec![0; (u64::from(DISK) * SECTOR) as usize] };
        disk.put(u64::from(sector) * SECTOR, root);
        disk
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        let length = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..at + length].copy_from_slice(&bytes[..length]);
    }

    /// Writes a boot record at a sector.
    fn record(mut self, sector: u32, entries: &[Entry]) -> Self {
        let place = u64::from(sector) * SECTOR;
        for &(index, kind, start, length) in entries {
            let at = place + 446 + index as u64 * 16;
            self.put(at + 4, &[kind]);
            self.put(at + 8, &start.to_le_bytes());
            self.put(at + 12, &length.to_le_bytes());
        }
        self.put(place + 510, &[0x55, 0xaa]);
        self
    }

    /// Writes a GPT with the root as this entry (from 1) of so many: header and table at these sectors.
    fn gpt(mut self, header: u64, table: u64, entry: usize, n_entries: usize) -> Self {
        let mut entries = vec![0; n_entries * 128];
        let used = &mut entries[(entry - 1) * 128..];
        used[..16].fill(0x42);
        used[32..40].copy_from_slice(&u64::from(ROOT).to_le_bytes());
        used[40..48].copy_from_slice(&u64::from(ROOT + ROOT_SECTORS - 1).to_le_bytes());
        let other = if header == 1 { u64::from(DISK) - 1 } else { 1 };
        let mut bytes = [0; 92];
        bytes[..8].copy_from_slice(b"EFI PART");
        for (at, value) in
            [(8, 0x1_0000), (12, 92), (80, n_entries as u32), (84, 128), (88, crc32(&entries))]
        {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let usable = (128, u64::from(DISK) - 128);
        for (at, value) in [(24, header), (32, other), (40, usable.0), (48, usable.1), (72, table)]
        {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32(&bytes);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        self.put(header * SECTOR, &bytes);
        self.put(table * SECTOR, &entries);
        self
    }

    fn byte(mut self, at: u64, byte: u8) -> Self {
        self.put(at, &[byte]);
        self
    }

    /// The least that has a root and this GPT.
    fn with_gpt(root: &[u8], entry: usize) -> Self {
        Self::new(root, ROOT).record(0, &[(0, 0xee, 1, DISK - 1)]).gpt(1, 2, entry, 128)
    }
}

/// The checksum of GPT and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

/// Disks by name. Where the root has no number that is so in Linux, too.
fn disks(root: &[u8]) -> Vec<(&'static str, Disk)> {
    let primary = |index| Disk::new(root, ROOT).record(0, &[(index, 0x83, ROOT, ROOT_SECTORS)]);
    // An extended partition from sector 2048 on; its first record is there.
    let extended = |kind| Disk::new(root, ROOT).record(0, &[(1, kind, 2048, DISK - 2048)]);
    let backup = u64::from(DISK) - 1;
    vec![
        ("the first primary", primary(0)),
        ("the last primary", primary(3)),
        ("type 0 with a length", Disk::new(root, ROOT).record(0, &[(1, 0, ROOT, ROOT_SECTORS)])),
        ("longer than the disk", Disk::new(root, ROOT).record(0, &[(0, 0x83, ROOT, DISK)])),
        ("logical", extended(5).record(2048, &[(0, 0x83, ROOT - 2048, ROOT_SECTORS)])),
        (
            "logical, in the second entry",
            extended(0x0f).record(2048, &[(1, 0x83, ROOT - 2048, ROOT_SECTORS)]),
        ),
        (
            "logical, in the third entry",
            extended(0x85).record(2048, &[(2, 0x83, ROOT - 2048, ROOT_SECTORS)]),
        ),
        (
            "the second logical",
            extended(5)
                .record(2048, &[(0, 0x83, 64, 64), (1, 5, 2048, DISK - 4096)])
                .record(4096, &[(0, 0x83, ROOT - 4096, ROOT_SECTORS)]),
        ),
        (
            "logical after an empty record",
            extended(5)
                .record(2048, &[(1, 5, 2048, DISK - 4096)])
                .record(4096, &[(0, 0x83, ROOT - 4096, ROOT_SECTORS)]),
        ),
        (
            "logical, and the chain runs in a circle",
            extended(5)
                .record(2048, &[(0, 0x83, 64, 64), (1, 5, 2048, DISK - 4096)])
                .record(4096, &[(0, 0x83, ROOT - 4096, ROOT_SECTORS), (1, 5, 2048, DISK - 4096)]),
        ),
        (
            "in the second extended partition",
            Disk::new(root, ROOT)
                .record(0, &[(0, 5, 2048, 2048), (2, 5, 4096, DISK - 4096)])
                .record(2048, &[(0, 0x83, 64, 64)])
                .record(4096, &[(0, 0x83, ROOT - 4096, ROOT_SECTORS)]),
        ),
        ("GPT", Disk::with_gpt(root, 3).gpt(backup, backup - 32, 3, 128)),
        ("GPT without backup", Disk::with_gpt(root, 128)),
        ("GPT with 200 entries", Disk::with_gpt(root, 1).gpt(1, 2, 150, 200)),
        (
            "GPT that is the fourth entry's",
            Disk::new(root, ROOT).record(0, &[(3, 0xee, 1, DISK - 1)]).gpt(1, 2, 2, 128),
        ),
        (
            "GPT and MBR, hybrid",
            Disk::with_gpt(root, 4).record(0, &[(0, 0xee, 1, 2047), (1, 0x83, ROOT, ROOT_SECTORS)]),
        ),
        (
            "an old GPT under a fresh MBR",
            Disk::with_gpt(root, 5).record(0, &[(0, 0x83, ROOT, ROOT_SECTORS)]),
        ),
        (
            "only a backup GPT",
            Disk::with_gpt(root, 1).gpt(backup, backup - 32, 1, 128).byte(512, 0),
        ),
        ("a GPT with a wrong checksum", Disk::with_gpt(root, 1).byte(1024, 0x43)),
        ("a GPT without protective MBR", Disk::with_gpt(root, 1).byte(510, 0)),
        ("boot code instead of a table", primary(0).byte(446, 0x41)),
    ]
}

#[test]
fn partitions_have_the_numbers_that_linux_gives_them() {
    let name = "partitions";
    if can_boot(name) && require(name, &[Need::Program("debugfs"), Need::Program("busybox")]) {
        compare(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn compare(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let folder = tempfile::tempdir()?;
    let root = root(folder.path())?;
    let disks = disks(&root);
    let mut imported = Vec::new();
    for (index, (what, disk)) in disks.iter().enumerate() {
        let path = folder.path().join(format!("disk-{index}"));
        std::fs::write(&path, &disk.bytes)?;
        imported.push(number_by_import(&path, folder.path(), index).context(*what)?);
    }
    let seen = numbers_by_linux(name, folder.path(), disks.len())?;
    let mut differences = String::new();
    for (index, (what, _)) in disks.iter().enumerate() {
        let (ours, linux) = (imported[index], seen.get(&index).copied());
        println!("{what}: {linux:?}");
        if ours != linux {
            writeln!(differences, "{what}: {linux:?} in Linux, but {ours:?} by an import")?;
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    ensure!(seen.len() == disks.len() - 4, "Linux sees {} roots", seen.len());
    Ok(())
}

/// A file system with the least that is imported: an init, a boot header as kernels have it, and a module.
fn root(folder: &Path) -> Result<Vec<u8>> {
    let tree = folder.join("tree");
    let modules = tree.join("lib/modules/6.1.0-test");
    for folder in [tree.join("sbin"), tree.join("boot"), modules.join("kernel")] {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(modules.join("modules.dep"), "kernel/nic.ko:\n")?;
    std::fs::write(modules.join("kernel/nic.ko"), "module")?;
    std::fs::write(tree.join("sbin/init"), "init")?;
    let kernel = File::create(tree.join("boot/vmlinuz-6.1.0-test"))?;
    kernel.set_len(2048)?;
    let header: [(u64, &[u8]); 6] = [
        (0x1f1, &[1]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 0x02]),
        (0x20e, &[0x80, 0]),
        (0x236, &[1, 0]),
        (0x280, b"6.1.0-test "),
    ];
    for (at, bytes) in header {
        kernel.write_all_at(bytes, at)?;
    }
    let file = folder.join("root");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&file);
    run(mke2fs.arg(format!("{}k", u64::from(ROOT_SECTORS) * SECTOR / 1024)))?;
    Ok(std::fs::read(file)?)
}

/// The root's partition by an import; `None` if it finds none.
fn number_by_import(disk: &Path, folder: &Path, index: usize) -> Result<Option<u32>> {
    let store = folder.join(format!("root-{index}"));
    let mut import = Command::new(bootlace_binary()?);
    import.arg("--root").arg(&store).args(["image", "import", "--name", "a"]).arg(disk);
    let told = import.output()?;
    let Ok(about) = std::fs::read_to_string(store.join("var/lib/bootlace/images/a/1/image.toml"))
    else {
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        ensure!(
            told.contains("is not a disk image") || told.contains("no root file system"),
            "{told}"
        );
        return Ok(None);
    };
    let number = about.lines().find_map(|line| line.strip_prefix("partition = "));
    let number = number.with_context(|| format!("no partition: {about}"))?;
    Ok(Some(number.trim().parse()?))
}

/// The root's partition on each disk, as a PC with all of them says.
fn numbers_by_linux(name: &str, folder: &Path, n_disks: usize) -> Result<BTreeMap<usize, u32>> {
    let lan = Lan::lay(name)?;
    let mut drives = Vec::new();
    for index in 0..n_disks {
        let path = folder.join(format!("disk-{index}"));
        let path = path.display();
        drives.push("-drive".to_owned());
        drives.push(format!("file={path},format=raw,if=none,id=disk{index},readonly=on"));
        drives.push("-device".to_owned());
        drives.push(format!("virtio-blk-pci,drive=disk{index},serial={index}"));
    }
    let drives: Vec<&str> = drives.iter().map(String::as_str).collect();
    let kernel = kernel(folder)?;
    let pc = Pc::builder("pc-1").kernel(&kernel).extra(&drives).start(&lan)?;
    let console = pc.console().clone();
    console.wait_for("all disks seen", BOOT).with_context(|| console.tail(30))?;
    ensure!(console.text().contains("part 0 1"), "Linux sees no disks:\n{}", console.tail(30));
    let mut numbers = BTreeMap::new();
    for line in console.text().lines() {
        let Some((_, words)) = line.split_once("part ") else { continue };
        let words: Vec<u32> = words.split(' ').map_while(|word| word.parse().ok()).collect();
        if let [disk, number, start] = words[..]
            && start == ROOT
        {
            // Several numbers for one place, where a chain runs in a circle: the first counts.
            let first = numbers.entry(usize::try_from(disk)?).or_insert(number);
            *first = number.min(*first);
        }
    }
    Ok(numbers)
}

/// Debian's kernel with an initrd that looks at disks only.
fn kernel(folder: &Path) -> Result<Kernel> {
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let debugfs =
        |request: &str| text_of(Command::new("debugfs").args(["-R", request]).arg(&image));
    let boot = debugfs("ls -p /boot")?;
    let file = boot.split('/').find(|name| name.starts_with("vmlinuz-")).context("no kernel")?;
    let version = file.trim_start_matches("vmlinuz-");
    let vmlinuz = folder.join("vmlinuz");
    debugfs(&format!("dump /boot/{file} {}", vmlinuz.display()))?;

    let tree = folder.join("initrd-tree");
    for name in ["bin", "dev", "modules", "sys"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    std::fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    std::fs::write(tree.join("init"), INIT)?;
    run(Command::new("chmod").arg("755").arg(tree.join("init")))?;
    for (index, module) in MODULES.iter().enumerate() {
        let target = tree.join("modules").join(index.to_string());
        let source = format!("/usr/lib/modules/{version}/kernel/drivers/{module}");
        debugfs(&format!("dump {source} {}", target.display()))?;
        ensure!(target.metadata().is_ok_and(|file| file.len() > 0), "no {source}");
    }
    let initrd = folder.join("initrd");
    let script = "cd \"$1\" && find . | busybox cpio -o -H newc >\"$2\"";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(&tree).arg(&initrd))?;
    Ok(Kernel::of_files(vmlinuz, initrd, "console=ttyS0 quiet panic=-1".to_owned()))
}
