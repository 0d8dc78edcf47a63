//! Roots that are not on a plain ext4: on XFS, btrfs, SquashFS, EROFS, and on logical volumes.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;
mod disks;

use common::{KERNEL, run, system_files};
use disks::{Partitioned, make, make_xfs, mounted};
use images::{
    Block, Entry, EntryKind, Import, ImportError, ImportRequest, Memory, RawFile, Rootfs, Source,
    Stop, Store, Volume, find_volumes,
};
use lvm::example;
use model::{FileSystem, VersionState};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// A folder with the files of a system.
fn workshop() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    system_files(&dir.path().join("files"));
    dir
}

fn import(disk: &Path) -> Result<Import, ImportError> {
    let folder = tempfile::tempdir_in(disk.parent().unwrap()).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let request = ImportRequest {
        disk_bytes: None,
        fix: None,
        source: Source::open(disk)?,
        name: "test".parse().unwrap(),
        note: None,
        state: VersionState::Released,
        is_data: false,
    };
    let import = store.import(&request, &Stop::default(), &mut |_| ())?;
    // What is stored is found again.
    let rootfs = store.rootfs(&import.version.image, import.version.version).unwrap();
    assert!(rootfs.exists("/sbin/init").unwrap());
    Ok(import)
}

fn refusal(disk: &Path) -> String {
    import(disk).map(|import| import.version).unwrap_err().to_string()
}

fn block(disk: &Path) -> Arc<dyn Block> {
    Arc::new(RawFile::open(disk).unwrap())
}

fn only_volume(disk: &Arc<dyn Block>) -> Volume {
    let volumes = find_volumes(disk).unwrap();
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    volumes.into_iter().next().unwrap()
}

/// Whether a file system holds the same as a folder, as far as it is asked for that.
fn check_same(rootfs: &Rootfs, files: &Path, folder: &str) {
    let mut expected: Vec<Entry> = fs::read_dir(files)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let kind = if kind.is_dir() {
                EntryKind::Folder
            } else if kind.is_symlink() {
                EntryKind::Link
            } else {
                EntryKind::File
            };
            Entry { name: entry.file_name().into_string().unwrap(), kind }
        })
        .collect();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = rootfs.list(if folder.is_empty() { "/" } else { folder }).unwrap();
    found.retain(|entry| entry.name != "lost+found");
    assert_eq!(found, expected, "{folder}");
    for Entry { name, kind } in expected {
        let path = format!("{folder}/{name}");
        match kind {
            EntryKind::Folder => check_same(rootfs, &files.join(&name), &path),
            EntryKind::File => {
                assert!(
                    rootfs.read(&path).unwrap() == fs::read(files.join(&name)).unwrap(),
                    "{path}"
                );
            }
            _ => {}
        }
    }
}

#[test]
fn each_file_system_of_a_root_is_read() {
    let dir = workshop();
    let files = dir.path().join("files");
    // A name for each way in which folders and files are stored.
    let many = files.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..600 {
        fs::write(many.join(format!("a-rather-long-name-of-a-file-{number}")), "x").unwrap();
    }
    fs::write(files.join("empty"), "").unwrap();
    let sparse = File::create(files.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 3 << 20).unwrap();
    let kinds: [(FileSystem, &[&str]); 11] = [
        (FileSystem::Xfs, &[]),
        (FileSystem::Xfs, &["-m", "crc=0"]),
        (FileSystem::Xfs, &["-m", "bigtime=1,inobtcount=1", "-i", "nrext64=1"]),
        (FileSystem::Btrfs, &[]),
        (FileSystem::Squashfs, &["-comp", "gzip"]),
        (FileSystem::Squashfs, &["-comp", "xz"]),
        (FileSystem::Squashfs, &["-comp", "zstd", "-b", "1M"]),
        (FileSystem::Squashfs, &["-comp", "lz4", "-no-fragments"]),
        (FileSystem::Erofs, &[]),
        (FileSystem::Erofs, &["-zlz4hc"]),
        (FileSystem::Squashfs, &["-comp", "lzo", "-Xalgorithm", "lzo1x_1"]),
    ];
    for (kind, options) in kinds {
        let disk = make(kind, options, &files, dir.path());
        let import = import(&disk).unwrap_or_else(|error| panic!("{kind} {options:?}: {error}"));
        let version = import.version;
        assert_eq!((version.file_system, version.partition), (kind, None), "{options:?}");
        assert_eq!(version.kernel_version, KERNEL);
        assert_eq!(version.os_name.as_deref(), Some("Test 1 (small)"));
        let disk = block(&disk);
        let rootfs = Rootfs::open(Arc::clone(&disk), &only_volume(&disk)).unwrap();
        check_same(&rootfs, &files, "");
        let found = |path: &str| rootfs.canonicalize(path).map_err(|error| error.to_string());
        assert_eq!(found("/sbin/init").unwrap(), "/usr/lib/systemd/systemd");
        assert_eq!(found("/etc/../lib/./modules").unwrap(), "/usr/lib/modules");
        assert_eq!(found("/nowhere/x").unwrap_err(), "/nowhere/x is not in the image");
        assert!(found("/empty/x").unwrap_err().contains("no folder"));
        assert!(!rootfs.exists("/empty/x").unwrap() && rootfs.exists("/").unwrap());
        let is_folder = rootfs.read("/etc").unwrap_err().to_string();
        assert!(is_folder.contains("it is a folder"), "{is_folder}");
    }
}

#[test]
fn links_in_circles_lead_nowhere_and_none_leaves_the_image() {
    let dir = workshop();
    let files = dir.path().join("files");
    for (name, target) in [("a", "b"), ("b", "a"), ("up", "../../../etc/passwd"), ("abs", "/etc")] {
        std::os::unix::fs::symlink(target, files.join(name)).unwrap();
    }
    let disk = block(&make(FileSystem::Squashfs, &[], &files, dir.path()));
    let rootfs = Rootfs::open(Arc::clone(&disk), &only_volume(&disk)).unwrap();
    assert!(!rootfs.exists("/a").unwrap() && !rootfs.exists("/up").unwrap());
    assert!(rootfs.read("/a").unwrap_err().to_string().contains("circles"));
    assert_eq!(rootfs.canonicalize("/abs/os-release").unwrap(), "/usr/lib/os-release");
}

#[test]
fn the_subvolume_of_btrfs_is_the_one_that_machines_take() {
    let dir = workshop();
    let files = dir.path().join("files");
    // Fedora, Ubuntu, Debian; openSUSE has a default subvolume deep inside.
    for (subvolume, is_default) in
        [("root", false), ("@", false), ("@rootfs", false), ("@/.snapshots/1/snapshot", true)]
    {
        let disk = dir.path().join("disk.raw");
        let _ = fs::remove_file(&disk);
        File::create(&disk).unwrap().set_len(256 << 20).unwrap();
        run(Command::new("mkfs.btrfs").arg("-q").arg(&disk));
        let script = format!(
            "cd $MOUNTED; for it in home {}; do mkdir -p $(dirname $it); btrfs subvolume create $it >&2; done; \
             cp -a $FILES/. {subvolume}/; {}",
            if is_default { "@ @/.snapshots @/.snapshots/1/snapshot @/home" } else { subvolume },
            if is_default {
                format!("btrfs subvolume set-default {subvolume} >&2")
            } else {
                String::new()
            },
        );
        // As Fedora's fstab has it.
        if !mounted(&disk, "btrfs", "compress=zstd:1", &files, &script) {
            return;
        }
        let import = import(&disk).unwrap_or_else(|error| panic!("{subvolume}: {error}"));
        assert_eq!(import.version.kernel_version, KERNEL, "{subvolume}");
        let disk = block(&disk);
        let rootfs = Rootfs::open(Arc::clone(&disk), &only_volume(&disk)).unwrap();
        check_same(&rootfs, &files.join("usr"), "/usr");
    }
}

#[test]
fn a_root_on_a_logical_volume_with_boot_beside_it() {
    let dir = workshop();
    let files = dir.path().join("files");
    // RHEL: /boot on XFS, the root on XFS on LVM.
    let boot = dir.path().join("boot");
    fs::create_dir(&boot).unwrap();
    fs::rename(files.join("boot/vmlinuz-6.1.0-10-test"), boot.join("vmlinuz-6.1.0-10-test"))
        .unwrap();
    fs::remove_dir_all(files.join("boot")).unwrap();
    fs::remove_dir_all(files.join("usr/lib/modules/6.1.0-9-test")).unwrap();
    let boot = fs::read(make_xfs(&[], &boot, dir.path())).unwrap();
    let root = fs::read(make_xfs(&[], &files, dir.path())).unwrap();
    let n_extents = root.len() / example::EXTENT_BYTES;
    // In two segments, the second before the first, on two physical volumes.
    let (first, second) = root.split_at(100 * example::EXTENT_BYTES);
    let segments = [(0, 100, "pv1", 3), (100, n_extents as u64 - 100, "pv0", 1)];
    let text = example::group(
        7,
        &[n_extents, 200],
        &[("swap", example::linear(&[(0, 1, "pv0", 0)])), ("root", example::linear(&segments))],
    );
    let mut disk = Partitioned::new(&dir.path().join("disk.raw"));
    disk.add(&boot);
    let physical = |number, lead: usize, content: &[u8], n_extents: usize| {
        let mut bytes = example::start(number, &text, 512);
        bytes.resize(bytes.len() + lead * example::EXTENT_BYTES, 0);
        bytes.extend_from_slice(content);
        bytes.resize(example::DATA_OFFSET + n_extents * example::EXTENT_BYTES, 0);
        bytes
    };
    disk.add(&physical(0, 1, second, n_extents));
    disk.add(&physical(1, 3, first, 200));
    let disk = disk.finish();
    let version = import(&disk).unwrap().version;
    let name = version.logical_volume.unwrap().to_string();
    assert_eq!((version.partition, &*name), (None, "vg-0/root"));
    assert_eq!((version.file_system, &*version.kernel_version), (FileSystem::Xfs, KERNEL));
    let block = block(&disk);
    let volumes = find_volumes(&block).unwrap();
    let root = volumes.iter().find(|volume| volume.logical.is_some()).unwrap();
    assert_eq!(root.logical.as_ref().unwrap().name().to_string(), "vg-0/root");
    check_same(&Rootfs::open(Arc::clone(&block), root).unwrap(), &files, "");
}

#[test]
fn a_logical_volume_that_can_not_be_used_is_named_with_what_helps() {
    let dir = workshop();
    let of = |inner: &str, physical: &[usize]| {
        let inner = inner.to_owned();
        let text = example::group(1, physical, &[("root", inner)]);
        let mut disk = Partitioned::new(&dir.path().join("disk.raw"));
        let mut bytes = example::start(0, &text, 512);
        bytes.resize(bytes.len() + 4 * example::EXTENT_BYTES, 0);
        disk.add(&bytes);
        refusal(&disk.finish())
    };
    let segment = |kind: &str, more: &str| {
        format!(
            "status = [\"VISIBLE\"]\nsegment1 {{\nstart_extent = 0\nextent_count = 1\ntype = \"{kind}\"\n{more}}}\n"
        )
    };
    let said = of(&segment("raid1", ""), &[4]);
    let expected = "partition 1: an LVM physical volume, the logical volume vg-0/root: it is mirrored or a RAID (raid1). \
                    What helps: `lvconvert -m0 vg-0/root` makes it linear";
    assert!(said.ends_with(expected), "{said}");
    let striped = of(&segment("striped", "stripe_count = 2\n"), &[4]);
    assert!(striped.contains("it is striped. What helps: copy it to a linear one"), "{striped}");
    let elsewhere = of(&example::linear(&[(0, 1, "pv0", 0), (1, 1, "pv1", 0)]), &[4, 4]);
    assert!(
        elsewhere.contains("a part of it is on another disk, which was /dev/sd"),
        "{elsewhere}"
    );
    assert!(elsewhere.contains("`pvmove`") && elsewhere.contains("`vgreduce vg-0`"), "{elsewhere}");
    let outside = of(&example::linear(&[(0, 1, "pv0", 1000)]), &[2000]);
    assert!(outside.contains("lie outside of their physical volume"), "{outside}");
    let empty = of(&example::linear(&[(0, 4, "pv0", 0)]), &[4]);
    assert!(empty.contains("the logical volume vg-0/root: nothing known"), "{empty}");
}

#[test]
fn what_lvm_itself_makes_is_read() {
    let dir = workshop();
    let root = dir.path().join("system.raw");
    common::make_ext4(&dir.path().join("files"), &root, 0, 24 << 20);
    let disk = dir.path().join("disk.raw");
    File::create(&disk).unwrap().set_len(100 << 20).unwrap();
    let script = r#"
        device=$(losetup -f --show "$DISK") || exit 7
        trap 'losetup -d $device' EXIT
        l() { "$@" --config "devices { filter = [\"a|^$device\$|\", \"r|.*|\"] use_devicesfile = 0 }" >&2 || exit 1; }
        l pvcreate $device; l vgcreate vg-0 $device
        # A second segment behind another one, and many changes that go round the ring.
        new="lvcreate --driverloaded n -an -Zn -Wn -y"
        l $new -l 3 -n root vg-0; l $new -l 2 -n home vg-0; l lvextend --driverloaded n -l 6 vg-0/root
        dd if="$ROOT" of="$DISK" bs=1M seek=1 count=12 conv=notrunc status=none
        dd if="$ROOT" of="$DISK" bs=1M skip=12 seek=21 count=12 conv=notrunc status=none
    "#;
    let made =
        Command::new("sh").args(["-c", script]).env("DISK", &disk).env("ROOT", &root).output();
    let made = made.unwrap();
    if !disks::is_possible(&made, &["pvcreate", "losetup"]) {
        return;
    }
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let version = import(&disk).unwrap().version;
    assert_eq!(version.logical_volume.unwrap().to_string(), "vg-0/root");
    assert_eq!((version.partition, version.file_system), (None, FileSystem::Ext4));
}

#[test]
fn a_kernel_without_the_drivers_of_its_root_is_passed_over() {
    let dir = workshop();
    let files = dir.path().join("files");
    let modules = files.join("usr/lib/modules");
    let (newest, older) = (modules.join(KERNEL), modules.join("6.1.0-9-test"));
    fs::write(newest.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
    fs::write(
        older.join("modules.builtin"),
        "kernel/fs/squashfs/squashfs.ko\nkernel/fs/overlayfs/overlay.ko\n",
    )
    .unwrap();
    let import = import(&make(FileSystem::Squashfs, &[], &files, dir.path())).unwrap();
    assert_eq!(import.version.kernel_version, "6.1.0-9-test");
    let [passed_over] = &import.passed_over[..] else { panic!("{:?}", import.passed_over) };
    assert!(passed_over.contains("it has no squashfs, neither inside nor in"), "{passed_over}");
    let root = fs::read(make(FileSystem::Ext4, &[], &files, dir.path())).unwrap();
    let n_extents = root.len().div_ceil(example::EXTENT_BYTES);
    let text = example::group(
        1,
        &[n_extents],
        &[("root", example::linear(&[(0, n_extents as u64, "pv0", 0)]))],
    );
    let mut bytes = example::start(0, &text, 512);
    bytes.extend(root);
    let disk = dir.path().join("lvm.raw");
    fs::write(&disk, bytes).unwrap();
    let said = refusal(&disk);
    assert!(said.contains("it has no device mapper (dm-mod), neither inside"), "{said}");
}

#[test]
fn a_file_system_that_is_cut_off_is_called_that() {
    let dir = workshop();
    let files = dir.path().join("files");
    for kind in [FileSystem::Xfs, FileSystem::Btrfs, FileSystem::Squashfs, FileSystem::Erofs] {
        let disk = make(kind, &[], &files, dir.path());
        let size = fs::metadata(&disk).unwrap().len();
        File::options().write(true).open(&disk).unwrap().set_len(size - size / 3).unwrap();
        let said = refusal(&disk);
        assert!(said.contains("the disk is probably cut off"), "{kind}: {said}");
    }
}

/// A disk with a few other bytes.
struct Changed {
    disk: Arc<dyn Block>,
    changes: Vec<(u64, u8)>,
}

impl Block for Changed {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.disk.read_at(buffer, offset)?;
        for &(at, byte) in &self.changes {
            let place = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(place) = place.and_then(|at| buffer.get_mut(at)) {
                *place ^= byte;
            }
        }
        Ok(())
    }
}

/// Looks at everything in a file system, as far as that can be read.
fn walk(rootfs: &Rootfs, folder: &str, left: &mut u32) {
    let Ok(entries) = rootfs.list(folder) else { return };
    for Entry { name, kind } in entries {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return;
        }
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        let _ = rootfs.canonicalize(&path);
        match kind {
            EntryKind::Folder => walk(rootfs, &path, left),
            _ => drop(rootfs.read(&path)),
        }
    }
}

#[test]
fn no_change_of_a_file_system_panics_or_hangs() {
    let dir = workshop();
    let files = dir.path().join("files");
    for kind in [FileSystem::Xfs, FileSystem::Btrfs, FileSystem::Squashfs, FileSystem::Erofs] {
        let disk = block(&make(kind, &[], &files, dir.path()));
        let volume = only_volume(&disk);
        // Only what is used says something: the rest is empty.
        let mut used = Vec::new();
        let mut buffer = vec![0; 512];
        for at in (0..disk.size_bytes() / 512).map(|sector| sector * 512) {
            disk.read_at(&mut buffer, at).unwrap();
            if buffer.iter().any(|&byte| byte != 0) {
                used.push(at);
            }
        }
        let place = (any::<prop::sample::Index>(), 0..512u64, 1..=255u8);
        let changes = prop::collection::vec(place, 1..40);
        let is_slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
        let config = ProptestConfig {
            failure_persistence: None,
            cases: if is_slow { 3000 } else { 60 },
            ..ProptestConfig::default()
        };
        let ran = TestRunner::new(config).run(&changes, |changes| {
            let changes = changes.into_iter();
            let changes =
                changes.map(|(sector, at, byte)| (used[sector.index(used.len())] + at, byte));
            let changed: Arc<dyn Block> =
                Arc::new(Changed { disk: Arc::clone(&disk), changes: changes.collect() });
            if let Ok(rootfs) = Rootfs::open(changed, &volume) {
                walk(&rootfs, "/", &mut 2000);
            }
            Ok(())
        });
        ran.unwrap();
    }
}

#[test]
fn no_prefix_of_a_file_system_panics() {
    let dir = workshop();
    let files = dir.path().join("files");
    for kind in [FileSystem::Squashfs, FileSystem::Erofs, FileSystem::Xfs, FileSystem::Btrfs] {
        let path = make(kind, &[], &files, dir.path());
        let disk = block(&path);
        let volume = only_volume(&disk);
        let mut start = vec![0; 80 << 10];
        disk.read_at(&mut start, 0).unwrap();
        for length in (0..start.len()).step_by(97) {
            let disk: Arc<dyn Block> = Arc::new(Memory::new(start[..length].to_vec()));
            let _ = find_volumes(&disk).unwrap();
            if let Ok(rootfs) = Rootfs::open(disk, &volume) {
                walk(&rootfs, "/", &mut 1000);
            }
        }
    }
}

#[test]
fn damage_is_called_damage() {
    let dir = workshop();
    let files = dir.path().join("files");
    for (kind, at, expected) in [
        (
            FileSystem::Xfs,
            200,
            "the file system is damaged (sb_bad_crc): repair it with `xfs_repair`",
        ),
        (FileSystem::Btrfs, (64 << 10) + 100, "the file system is damaged"),
        (
            FileSystem::Squashfs,
            48,
            "the file system is damaged (the places of its tables): make or",
        ),
    ] {
        let disk = make(kind, &[], &files, dir.path());
        let file = File::options().read(true).write(true).open(&disk).unwrap();
        let mut bytes = [0; 16];
        file.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes.map(|byte| byte ^ 0x5a), at).unwrap();
        drop(file);
        let said = refusal(&disk);
        assert!(said.contains(expected), "{kind}: {said}");
    }
}
