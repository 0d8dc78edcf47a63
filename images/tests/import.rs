//! Imports, as an administrator notices them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{KERNEL, content, kernel_file, make_ext4, run, system_disk, system_files};
use images::{
    EntryKind, ImportError, ImportRequest, Progress, Source, Step, Stop, Store, StoreError,
    Verified, VerifyError,
};
use model::{FileSystem, ImageName, ImageVersion, VersionState};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn name() -> ImageName {
    "debian-12".parse().unwrap()
}

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("images")).unwrap()
}

fn import(store: &Store, source: &Path) -> Result<ImageVersion, ImportError> {
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(source)?,
        name: name(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    Ok(store.import(&request, &Stop::default(), &mut |_| ())?.version)
}

/// All that is in the store, apart from its lock and what it notes for itself.
fn files_in(store: &Store) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| ![".lock", ".numbers.toml", ".verified"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// The import fails, says this, and leaves nothing.
fn check_refused(source: &Path, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let error = import(&store, source).unwrap_err();
    let text = full_text(&error);
    assert!(text.contains(expected), "expected {expected:?} in: {text}");
    assert!(text.contains(&source.display().to_string()), "no path in: {text}");
    assert_eq!(files_in(&store), [""; 0]);
}

fn full_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full_text(source)),
        None => error.to_string(),
    }
}

#[test]
fn a_raw_disk_becomes_version_1() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    let mut steps = Vec::new();
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(&source).unwrap(),
        name: name(),
        note: Some("first try".to_owned()),
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    let version = store
        .import(&request, &Stop::default(), &mut |progress| steps.push(progress))
        .unwrap()
        .version;
    assert_eq!((version.version, version.size_bytes), (1, 24 << 20));
    assert_eq!((version.partition, version.file_system), (None, FileSystem::Ext4));
    assert_eq!(version.kernel_version, KERNEL, "the newest of two");
    assert_eq!(version.os_name.as_deref(), Some("Test 1 (small)"));
    assert_eq!(version.digest, blake3::hash(&fs::read(&source).unwrap()).to_hex().as_str());
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&version));
    assert_eq!(store.note(&name(), 1).unwrap().as_deref(), Some("first try"));
    assert_eq!(steps.first().map(|progress| progress.step), Some(Step::Copy));
    let end = Progress { step: Step::Sync, done_bytes: 24 << 20, total_bytes: 24 << 20 };
    assert_eq!(steps.last(), Some(&end));

    assert_eq!(fs::read(store.vmlinuz_path(&name(), 1)).unwrap(), kernel_file(KERNEL));
    let disk = store.disk_path(&name(), 1).metadata().unwrap();
    assert!(disk.blocks() * 512 < 12 << 20, "not sparse: {} blocks", disk.blocks());
    assert_eq!(disk.mode() & 0o777, 0o400);
    let base = store.open_base(&name(), 1).unwrap();
    assert!(content(base.block.as_ref()) == fs::read(&source).unwrap());
    assert!(base.block.is_read_only() && base.block.write_at(&[0], 0).is_err());
    let again = store.open_base(&name(), 1).unwrap();
    assert!(std::sync::Arc::ptr_eq(&base.block, &again.block), "two open files");
}

#[test]
fn the_same_content_is_not_stored_twice_and_numbers_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    import(&store, &source).unwrap();
    let error = import(&store, &source).unwrap_err();
    assert!(matches!(error, ImportError::SameAsNewest { version: 1, .. }), "{error}");
    assert!(error.to_string().contains("debian-12/v1 has exactly this content"), "{error}");
    assert_eq!(files_in(&store), ["debian-12"]);

    File::options().write(true).open(&source).unwrap().write_all_at(b"x", (24 << 20) - 1).unwrap();
    assert_eq!(import(&store, &source).unwrap().version, 2);
    assert_eq!(store.list().unwrap().len(), 2);
    store.remove(&name(), 2).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(matches!(store.open_base(&name(), 2), Err(StoreError::Missing { version: 2, .. })));
    assert!(matches!(store.remove(&name(), 2), Err(StoreError::Missing { .. })));
    assert_eq!(import(&store, &source).unwrap().version, 3);
    assert_eq!(files_in(&store), ["debian-12"]);
}

#[test]
fn notes_are_one_line_whoever_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    let import = |note: &str| {
        let note = Some(note.to_owned());
        let request = ImportRequest {
            disk_bytes: None,
            source: Source::open(&source).unwrap(),
            name: name(),
            note,
            state: VersionState::Released,
            fix: None,
            is_data: false,
        };
        store.import(&request, &Stop::default(), &mut |_| ()).map(|import| import.version.version)
    };
    for note in ["two\nlines", "\u{1b}[2Jgone", &"x".repeat(201)] {
        let error = import(note).unwrap_err();
        assert!(error.to_string().contains("without control characters"), "{error}");
    }
    assert_eq!(import("as installed").unwrap(), 1);
    let about = store.dir().join("debian-12/1/image.toml");
    let text = fs::read_to_string(&about).unwrap();
    fs::remove_file(&about).unwrap();
    fs::write(about, text.replace("as installed", "\\u001b[2Jas\\ninstalled")).unwrap();
    let note = store.note(&name(), 1).unwrap();
    assert_eq!(note.as_deref(), Some(" [2Jas installed"), "an earlier Bootlace took it");
}

#[test]
fn numbers_never_come_back_whoever_deletes_what() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    import(&store, &source).unwrap();
    // Somebody has removed the image as he removes files; the disks of machines still name its version.
    fs::remove_dir_all(store.dir().join("debian-12")).unwrap();
    File::options().write(true).open(&source).unwrap().write_all_at(b"x", (24 << 20) - 1).unwrap();
    assert_eq!(import(&store, &source).unwrap().version, 2, "it has other content");
    fs::write(store.dir().join(".numbers.toml"), "given = 7").unwrap();
    let error = full_text(&import(&store, &other_disk(dir.path())).unwrap_err());
    assert!(error.contains(".numbers.toml is damaged") && error.contains("backup"), "{error}");
    assert_eq!(files_in(&store), ["debian-12"]);
}

#[test]
fn numbers_that_others_know_are_given_to_their_content_in_whatever_order_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let sources = [system_disk(dir.path()), other_disk(dir.path())];
    File::options()
        .write(true)
        .open(&sources[1])
        .unwrap()
        .write_all_at(b"x", (24 << 20) - 1)
        .unwrap();
    let known = sources.each_ref().map(|source| import(&store, source).unwrap());
    assert_eq!(known.each_ref().map(|it| it.version), [1, 2]);
    // The file system of the store is another one.
    fs::remove_dir_all(store.dir()).unwrap();
    let store = Store::open(store.dir()).unwrap();
    store.note_given(known.iter().map(|it| (it, VersionState::Released))).unwrap();
    store.note_given([(&known[0], VersionState::Test)]).unwrap();
    assert_eq!(store.troubles().unwrap().len(), 2, "both are missed");
    for (source, known) in sources.iter().zip(&known).rev() {
        let again = import(&store, source).unwrap();
        assert_eq!((again.version, again.digest), (known.version, known.digest.clone()));
    }
    assert!(store.troubles().unwrap().is_empty());
}

/// A system disk that is none of those that were imported.
fn other_disk(dir: &Path) -> PathBuf {
    let folder = dir.join("other");
    fs::create_dir(&folder).unwrap();
    system_disk(&folder)
}

/// Imports a disk again after something was done to the files of its version; what is put back, and that it is whole.
fn check_put_back(damage: impl Fn(&Path), expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    let version = import(&store, &source).unwrap();
    let folder = store.dir().join("debian-12/1");
    let running = store.open_base(&name(), 1).unwrap();
    damage(&folder);
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(&source).unwrap(),
        name: name(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    let again = store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
    assert_eq!((again.version.version, again.version.digest), (1, version.digest));
    assert_eq!(again.put_back, expected);
    assert_eq!(files_in(&store), ["debian-12"]);
    let disk = fs::read(&source).unwrap();
    assert!(fs::read(folder.join("disk.raw")).unwrap() == disk);
    assert_eq!(fs::read(folder.join("vmlinuz")).unwrap(), kernel_file(KERNEL));
    assert_eq!(folder.join("disk.raw").metadata().unwrap().mode() & 0o777, 0o400);
    // Who boots gets what is there now, also while somebody has the former file open.
    let booting = store.open_base(&name(), 1).unwrap();
    assert!(content(booting.block.as_ref()) == disk);
    drop(running);
    assert!(store.troubles().unwrap().is_empty());
    let error = import(&store, &source).unwrap_err();
    assert!(matches!(error, ImportError::SameAsNewest { version: 1, .. }), "{error}");
}

#[test]
fn files_of_a_version_that_are_damaged_or_missing_are_put_back_by_importing_it_again() {
    let write = |path: PathBuf, bytes: &[u8]| {
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).unwrap();
    };
    check_put_back(|folder| fs::remove_file(folder.join("vmlinuz")).unwrap(), &["vmlinuz"]);
    check_put_back(|folder| write(folder.join("vmlinuz"), b""), &["vmlinuz"]);
    check_put_back(|folder| write(folder.join("vmlinuz"), &kernel_file("6.1")), &["vmlinuz"]);
    check_put_back(|folder| fs::remove_file(folder.join("disk.raw")).unwrap(), &["disk.raw"]);
    // One byte, of which neither names nor sizes tell.
    let flip = |folder: &Path| {
        let path = folder.join("disk.raw");
        let mut bytes = fs::read(&path).unwrap();
        bytes[5 << 20] ^= 1;
        write(path, &bytes);
    };
    check_put_back(flip, &["disk.raw"]);
    let cut = |folder: &Path| write(folder.join("disk.raw"), &[0; 4096]);
    check_put_back(cut, &["disk.raw"]);
    check_put_back(|folder| write(folder.join("image.toml"), b""), &["image.toml"]);
    check_put_back(|folder| write(folder.join("image.toml"), b"\xff\xfe"), &["image.toml"]);
    check_put_back(|folder| fs::remove_file(folder.join("image.toml")).unwrap(), &["image.toml"]);
    let all = ["disk.raw", "vmlinuz", "image.toml"];
    let empty = |folder: &Path| all.iter().for_each(|name| write(folder.join(name), b""));
    check_put_back(empty, &all);
    check_put_back(|folder| fs::remove_dir_all(folder).unwrap(), &all);
    let with_image = |folder: &Path| fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    check_put_back(with_image, &all);
    // Of a store that an earlier Bootlace has made no numbers are noted.
    let unnoted = |folder: &Path| {
        fs::remove_file(folder.join("../../.numbers.toml")).unwrap();
        write(folder.join("image.toml"), b"");
    };
    check_put_back(unnoted, &["image.toml"]);
}

#[test]
fn an_older_version_is_put_back_if_it_is_damaged_and_comes_as_a_new_one_if_not() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    import(&store, &source).unwrap();
    let other = other_disk(dir.path());
    File::options().write(true).open(&other).unwrap().write_all_at(b"x", (24 << 20) - 1).unwrap();
    assert_eq!(import(&store, &other).unwrap().version, 2);
    fs::remove_file(store.vmlinuz_path(&name(), 1)).unwrap();
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(&source).unwrap(),
        name: name(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    let put_back = store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
    assert_eq!((put_back.version.version, put_back.put_back), (1, vec!["vmlinuz"]));
    assert_eq!(import(&store, &source).unwrap().version, 3);
}

#[test]
fn files_are_read_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    import(&store, &source).unwrap();
    let root = store.rootfs(&name(), 1).unwrap();
    let modules = format!("/lib/modules/{KERNEL}");
    let names: Vec<_> = root.list(&modules).unwrap();
    assert_eq!(
        names.iter().map(|entry| &*entry.name).collect::<Vec<_>>(),
        ["kernel", "modules.dep"]
    );
    assert_eq!(names[0].kind, EntryKind::Folder);
    let module = root.read(&format!("{modules}/kernel/drivers/net/nic.ko")).unwrap();
    assert_eq!(
        module,
        fs::read(dir.path().join(format!("files/usr{modules}/kernel/drivers/net/nic.ko"))).unwrap()
    );
    assert_eq!(root.canonicalize("/sbin/init").unwrap(), "/usr/lib/systemd/systemd");
    assert!(root.exists("/etc/os-release").unwrap() && !root.exists("/etc/passwd").unwrap());
    let error = root.read("/etc/passwd").unwrap_err();
    assert_eq!(error.to_string(), "/etc/passwd is not in the image");
    assert!(root.read("/etc").is_err() && root.list("/etc/os-release").is_err());
    assert!(root.read("relative").is_err());
}

#[test]
fn a_size_that_is_odd_is_filled_up_with_zeroes() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    File::options().append(true).open(&source).unwrap().set_len((24 << 20) + 1000).unwrap();
    let store = store(dir.path());
    let version = import(&store, &source).unwrap();
    assert_eq!(version.size_bytes, (24 << 20) + 4096);
    let stored = fs::read(store.disk_path(&name(), 1)).unwrap();
    assert_eq!(version.digest, blake3::hash(&stored).to_hex().as_str());
}

#[test]
fn foreign_formats_have_the_same_content_as_the_raw_disk() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    let expected = blake3::hash(&fs::read(&raw).unwrap()).to_hex().to_string();
    for format in ["qcow2", "vmdk", "vhdx", "vdi", "fixed.vhd"] {
        let source = dir.path().join(format!("disk.{format}"));
        match format {
            // As Azure wants it: raw, and a sector behind it.
            "fixed.vhd" => run(Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on"])
                .arg(&raw)
                .arg(&source)),
            _ => convert(&raw, format, &source),
        }
        let store = Store::open(&dir.path().join(format!("images-{format}"))).unwrap();
        let mut last = None;
        let request = ImportRequest {
            disk_bytes: None,
            source: Source::open(&source).unwrap(),
            name: name(),
            note: None,
            state: VersionState::Released,
            fix: None,
            is_data: false,
        };
        let version = store
            .import(&request, &Stop::default(), &mut |progress| last = Some(progress))
            .unwrap()
            .version;
        assert_eq!(version.digest, expected, "{format}");
        let disk = store.disk_path(&name(), 1).metadata().unwrap();
        assert!(disk.blocks() * 512 < 12 << 20, "{format} is not sparse");
    }
}

fn convert(raw: &Path, format: &str, target: &Path) {
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", format]).arg(raw).arg(target));
}

#[test]
fn a_partitioned_disk_boots_from_its_root_partition() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    system_files(&files);
    let boot_files = dir.path().join("boot-files");
    fs::create_dir(&boot_files).unwrap();
    for kernel in fs::read_dir(files.join("boot")).unwrap() {
        let kernel = kernel.unwrap();
        fs::rename(kernel.path(), boot_files.join(kernel.file_name())).unwrap();
    }
    // Partition 1 is /boot at 1 MiB, partition 2 the root at 4 MiB.
    let disk = dir.path().join("disk.raw");
    let boot = dir.path().join("boot.raw");
    make_ext4(&boot_files, &boot, 0, 3 << 20);
    make_ext4(&files, &disk, 4 << 20, 32 << 20);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&fs::read(&boot).unwrap(), 1 << 20).unwrap();
    let mut table = [0; 66];
    for (index, start, length) in [(0, 2048u32, 6144u32), (1, 8192, 57344)] {
        let entry = &mut table[index * 16..];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&length.to_le_bytes());
    }
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&table, 446).unwrap();
    drop(file);

    let store = store(dir.path());
    let version = import(&store, &disk).unwrap();
    assert_eq!(version.partition, Some(2));
    assert_eq!(version.kernel_version, KERNEL);
    assert!(store.rootfs(&name(), 1).unwrap().exists("/sbin/init").unwrap());
    assert_eq!(fs::read(store.vmlinuz_path(&name(), 1)).unwrap(), kernel_file(KERNEL));
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    check_refused(&dir.path().join("missing"), "can't read");
    check_refused(dir.path(), "it is a folder");
    check_refused(&file("empty", b""), "it is empty");
    check_refused(
        &file("text", &b"hello ".repeat(3000)),
        "not a disk image: it is a file without partition table",
    );
    check_refused(&file("x.xz", b"\xfd7zXZ\0rest"), "it is an xz file: unpack it");
    check_refused(&file("x.qcow2", b"QFI\xfb\0\0\0\x03"), "it is cut off");
    let mut swap = vec![0; 1 << 20];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    check_refused(&file("swap", &swap), "no root file system");
    let mut xfs = vec![0; 1 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    check_refused(&file("xfs", &xfs), "its file system can't be read: it uses something of xfs");
    let mut broken = vec![0; 1 << 20];
    broken[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    check_refused(&file("broken", &broken), "its file system can't be read");
}

#[test]
fn a_qcow2_that_names_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, vec![b'x'; 1 << 20]).unwrap();
    let overlay = dir.path().join("overlay.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&overlay));
    check_refused(&overlay, "only the differences to another image");
    let outside = dir.path().join("outside.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o"])
        .arg(format!("data_file={},data_file_raw=on", dir.path().join("data").display()))
        .arg(&outside)
        .arg("1M"));
    check_refused(&outside, "keeps its data in another file");
    // A raw disk that begins like a qcow2 is one.
    let raw_overlay = dir.path().join("looks.raw");
    fs::copy(&overlay, &raw_overlay).unwrap();
    check_refused(&raw_overlay, "only the differences to another image");
}

#[test]
fn a_system_that_can_not_boot_is_refused_with_what_is_missing() {
    let check = |remove: &[&str], expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        system_files(&files);
        for path in remove {
            let path = files.join(path);
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        let disk = dir.path().join("disk.raw");
        make_ext4(&files, &disk, 0, 24 << 20);
        check_refused(&disk, expected);
    };
    check(&["boot"], "there is no kernel in it");
    check(&["usr/lib/modules"], "there are none in /lib/modules/6.1.0-10-test");
    check(&["usr/lib/systemd/systemd"], "there is no /sbin/init in it");
}

/// A small file system, for as long as a test runs. `None` if we may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir(dir).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "bootlace-test"])
            .arg(dir)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir.to_owned()));
        }
        assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "can't mount a tmpfs: run as root");
        println!("skipped: can't mount a tmpfs (not root)");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_an_import_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    // Not compressible for the file system, but for qcow2: 8 MiB of one byte.
    File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .write_all_at(&vec![7; 8 << 20], 12 << 20)
        .unwrap();
    let small = dir.path().join("small");
    let Some(small) = SmallDisk::mount(&small, "6M") else { return };
    let store = Store::open(&small.0.join("images")).unwrap();

    let error = import(&store, &raw).unwrap_err();
    assert!(matches!(error, ImportError::NoRoom { .. }), "{error}");
    // 8 MiB of one byte, and the system, but for what is empty.
    let text = error.to_string();
    assert!(text.contains("needs at least 1") && text.contains(" MB, and the disk of"), "{text}");
    assert!(text.contains("has 7 MB free, of which 1 MB are kept"), "{text}");
    assert!(text.contains("free at least ") && text.contains("and import again"), "{text}");
    assert_eq!(files_in(&store), [""; 0]);

    let compressed = dir.path().join("disk.qcow2");
    run(Command::new("qemu-img")
        .args(["convert", "-c", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(&compressed));
    assert!(compressed.metadata().unwrap().len() < 6 << 20);
    let error = import(&store, &compressed).unwrap_err();
    assert!(matches!(error, ImportError::DiskFull { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("nothing was imported. The image needs up to 26 MB"), "{text}");
    assert!(text.contains("and 7 MB were free: make room there"), "{text}");
    assert_eq!(files_in(&store), [""; 0]);
}

#[test]
fn a_version_is_removed_from_a_disk_that_has_no_room_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let raw = system_disk(dir.path());
    let Some(small) = SmallDisk::mount(&dir.path().join("small"), "64M") else { return };
    let store = Store::open(&small.0.join("images")).unwrap();
    let first = import(&store, &raw).unwrap();
    File::options().write(true).open(&raw).unwrap().write_all_at(b"other", 12 << 20).unwrap();
    let second = import(&store, &raw).unwrap();
    let fill = || {
        let mut filler =
            File::options().create(true).append(true).open(small.0.join("filler")).unwrap();
        while std::io::Write::write(&mut filler, &[7; 4096]).is_ok_and(|n| n > 0) {}
    };
    fill();
    fs::write(small.0.join("more"), "more").unwrap_err();
    store.remove(&name(), first.version).unwrap();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&second));
    assert_eq!(store.given_out().unwrap(), [(name(), second.version)]);
    let left: Vec<_> =
        fs::read_dir(store.dir()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".removed")), "{left:?}");
    // Somebody ended it before anything could be noted.
    let away = store.dir().join(format!(".removed-{}.v{}", name(), second.version));
    fs::rename(store.dir().join("debian-12/2"), &away).unwrap();
    let again = Store::open(&small.0.join("images")).unwrap();
    assert!(!away.exists() && again.given_out().unwrap().is_empty());
    fs::remove_file(small.0.join("filler")).unwrap();
    assert_eq!(import(&again, &raw).unwrap().version, 3, "its number is not given again");
}

#[test]
fn what_a_killed_import_left_goes_and_a_running_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path());
    let [dead, alive] = ["dead", "alive"].map(|name| first.dir().join(format!(".import-{name}")));
    for path in [&dead, &alive] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("disk.raw"), "half").unwrap();
    }
    let lock = File::open(&alive).unwrap();
    lock.lock().unwrap();
    let _second = store(dir.path());
    assert!(!dead.exists() && alive.exists());
}

#[test]
fn a_damaged_version_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    import(&store, &source).unwrap();
    let damaged = store.dir().join("debian-12/7");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("image.toml"), "image = \"other\"").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.open_base(&name(), 7).unwrap_err().to_string().contains("image.toml is damaged"));
}

#[test]
fn content_that_has_changed_is_found_by_reading_all_of_it_and_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = system_disk(dir.path());
    let store = store(dir.path());
    let version = import(&store, &source).unwrap();
    let verify = |at_unix: u64| -> Verified {
        store.verify(&name(), 1, at_unix, &Stop::default(), &mut |_| ()).unwrap()
    };
    assert_eq!(store.verified(&name(), 1), None);
    assert_eq!(verify(5).flaw, None);
    assert_eq!(store.verified(&name(), 1).unwrap().at_unix, 5);

    let stop = Stop::default();
    stop.stop();
    let stopped = store.verify(&name(), 1, 6, &stop, &mut |_| ()).unwrap_err();
    assert!(matches!(stopped, VerifyError::Stopped), "{stopped}");
    assert_eq!(store.verified(&name(), 1).unwrap().at_unix, 5, "what was known is known");

    for (file, at, says) in
        [("disk.raw", 5 << 20, "has changed"), ("vmlinuz", 1000, "not the kernel")]
    {
        let path = store.dir().join("debian-12/1").join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.verified(&name(), 1), None, "it is another file");
        assert_eq!(store.trouble(&version), None, "nobody has read it yet");
        let flaw = verify(7).flaw.unwrap();
        assert!(flaw.contains(file) && flaw.contains(says), "{flaw}");
        let trouble = store.trouble(&version).unwrap();
        assert!(trouble.has_changed && trouble.why == flaw, "{trouble:?}");
        assert_eq!(store.troubles().unwrap().len(), 1);

        let request = ImportRequest {
            disk_bytes: None,
            source: Source::open(&source).unwrap(),
            name: name(),
            note: None,
            state: VersionState::Released,
            fix: None,
            is_data: false,
        };
        let again = store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
        assert_eq!(again.put_back, [file]);
        assert_eq!(store.trouble(&version), None);
        assert_eq!(verify(8).flaw, None);
    }

    let disk = store.dir().join("debian-12/1/disk.raw");
    fs::remove_file(&disk).unwrap();
    assert!(verify(9).flaw.unwrap().contains("can't read"));
    assert!(!store.trouble(&version).unwrap().has_changed, "machines can't start without it");
    store.remove(&name(), 1).unwrap();
    let number = import(&store, &source).unwrap().version;
    assert_eq!(number, 2, "a number that was removed on purpose never comes back");
    store.verify(&name(), number, 10, &Stop::default(), &mut |_| ()).unwrap();
    let kept = fs::read_dir(store.dir().join(".verified")).unwrap().count();
    assert_eq!(kept, 1, "what was found of a version that is gone is forgotten");
}

#[test]
fn files_of_any_year_that_linux_knows_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    system_files(&files);
    let years =
        ["1901-12-14", "1950-01-01", "1969-12-31", "2040-02-02", "2105-01-01", "2400-01-01"];
    fs::create_dir(files.join("old")).unwrap();
    for year in years {
        let path = files.join("old").join(year);
        fs::write(&path, year).unwrap();
        run(Command::new("touch").args(["-d", &format!("{year} 00:00:00 UTC")]).arg(&path));
    }
    run(Command::new("touch").args(["-d", "1960-01-01"]).arg(files.join("old")));
    for (index, features) in
        [&["-I", "256"][..], &["-I", "128"], &["-O", "^metadata_csum"]].iter().enumerate()
    {
        let disk = dir.path().join(format!("{index}.raw"));
        File::create(&disk).unwrap().set_len(24 << 20).unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        run(mkfs.args(["-q", "-F", "-d"]).arg(&files).args(*features).arg(&disk));
        let store = store(&dir.path().join(index.to_string()));
        let version = import(&store, &disk).unwrap();
        let root = store.rootfs(&version.image, version.version).unwrap();
        assert_eq!(root.list("/old").unwrap().len(), years.len());
        for year in years {
            assert_eq!(
                root.read(&format!("/old/{year}")).unwrap(),
                year.as_bytes(),
                "{features:?}"
            );
        }
    }
}
