//! File systems as installers make them: read, or refused by the name of what is on the disk. Never taken for
//! one without a system.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{KERNEL, arm64_kernel_file, kernel_file, run, system_files};
use images::{Import, ImportError, ImportRequest, Source, Stop, Store};
use model::{Architecture, ImageVersion, VersionState};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with the files of a system, of which disks are made.
struct Workshop {
    dir: TempDir,
}

impl Workshop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        system_files(&dir.path().join("files"));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A disk of 40 MiB with the system, made by mke2fs with these options.
    fn disk(&self, options: &[&str]) -> PathBuf {
        let disk = self.path("disk.raw");
        let _ = fs::remove_file(&disk);
        run(Command::new("mke2fs")
            .args(["-q", "-F"])
            .args(options)
            .arg("-d")
            .arg(self.path("files"))
            .arg(&disk)
            .arg("40M"));
        disk
    }

    fn import(&self, disk: &Path) -> Result<ImageVersion, ImportError> {
        Ok(self.import_with_all_told(disk)?.version)
    }

    fn import_with_all_told(&self, disk: &Path) -> Result<Import, ImportError> {
        let folder = tempfile::tempdir_in(self.dir.path()).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let request = ImportRequest {
            disk_bytes: None,
            source: Source::open(disk)?,
            name: "debian-12".parse().unwrap(),
            note: None,
            state: VersionState::Released,
            fix: None,
            is_data: false,
        };
        store.import(&request, &Stop::default(), &mut |_| ())
    }

    fn check_refused(&self, disk: &Path, expected: &str) {
        let text = self.import(disk).unwrap_err().to_string();
        assert!(text.contains(expected), "expected {expected:?} in: {text}");
        assert!(!text.contains("Features("), "Rust's words for a person: {text}");
    }
}

#[test]
fn what_mke2fs_makes_is_read_or_refused_by_name() {
    let workshop = Workshop::new();
    let read: [&[&str]; 17] = [
        &["-t", "ext4"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "4096", "-I", "512"],
        &["-t", "ext4", "-I", "1024"],
        &["-t", "ext3"],
        &["-t", "ext2"],
        // Flatcar's; and /boot of every Debian until 11.
        &["-t", "ext4", "-I", "128"],
        &["-t", "ext4", "-I", "128", "-b", "1024"],
        &["-t", "ext3", "-I", "128"],
        &["-t", "ext2", "-I", "128"],
        &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
        &["-t", "ext4", "-O", "^64bit"],
        &["-t", "ext4", "-O", "bigalloc"],
        &["-t", "ext4", "-O", "^has_journal,metadata_csum_seed"],
        &["-t", "ext4", "-O", "encrypt,verity,quota,project,fast_commit"],
        &["-t", "ext4", "-O", "sparse_super2"],
        &["-t", "ext4", "-O", "^resize_inode,^flex_bg,^dir_index"],
    ];
    for options in read {
        let version = workshop.import(&workshop.disk(options));
        let version = version.unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(version.kernel_version, KERNEL, "{options:?}");
    }
    let refused: [(&str, &str); 7] = [
        ("inline_data", "(inline_data): copy its files to a new ext4"),
        ("casefold", "(casefold): take them off with `tune2fs -O ^casefold`"),
        ("meta_bg,^resize_inode", "(meta_bg)"),
        ("mmp", "(mmp): take them off with `tune2fs -O ^mmp`"),
        ("ea_inode", "(ea_inode)"),
        ("large_dir", "(large_dir)"),
        ("^filetype", "(no filetype)"),
    ];
    for (features, expected) in refused {
        workshop.check_refused(&workshop.disk(&["-t", "ext4", "-O", features]), expected);
    }
    // What the advice says, done.
    let disk = workshop.disk(&["-t", "ext4", "-O", "mmp"]);
    run(Command::new("tune2fs").args(["-O", "^mmp"]).arg(&disk));
    assert!(workshop.import(&disk).is_ok());
}

/// Runs commands of debugfs(8) on a disk.
fn debugfs(disk: &Path, commands: &str) -> String {
    let script = disk.with_extension("debugfs");
    fs::write(&script, commands).unwrap();
    let output =
        Command::new("debugfs").args(["-w", "-f"]).arg(&script).arg(disk).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Changes a byte of an inode, so that its checksum is wrong.
fn damage_inode(disk: &Path, path: &str) {
    damage_inode_at(disk, path, 4096);
}

/// The same where blocks have this size.
fn damage_inode_at(disk: &Path, path: &str, block_bytes: u64) {
    // "located at block 6, offset 0x0700"
    let told = debugfs(disk, &format!("imap {path}\n"));
    let (_, place) = told.split_once("located at block ").unwrap();
    let (block, offset) = place.trim().split_once(", offset 0x").unwrap();
    let block: u64 = block.parse().unwrap();
    let offset = u64::from_str_radix(offset.split_whitespace().next().unwrap(), 16).unwrap();
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let at = block * block_bytes + offset + 0x64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn damage_is_called_damage_wherever_it_is() {
    let workshop = Workshop::new();
    let paths = [
        "/",
        "/sbin",
        "/usr/lib/systemd/systemd",
        "/boot",
        "/boot/vmlinuz-6.1.0-10-test",
        "/usr/lib/modules",
        "/usr/lib/os-release",
    ];
    for path in paths {
        let disk = workshop.disk(&["-t", "ext4", "-b", "4096"]);
        damage_inode(&disk, path);
        workshop.check_refused(&disk, "the file system is damaged (invalid checksum for inode");
        workshop.check_refused(&disk, "`e2fsck -f`");
    }
    // Of what an import does not need to read itself.
    for path in ["/usr/lib/modules/6.1.0-10-test/kernel/drivers/net/nic.ko", "/etc", "/usr/sbin"] {
        let disk = workshop.disk(&["-t", "ext4", "-b", "4096"]);
        damage_inode(&disk, path);
        workshop.check_refused(&disk, "the file system is damaged (invalid checksum for inode");
    }
    let disk = workshop.disk(&["-t", "ext4", "-b", "4096"]);
    let told = debugfs(&disk, "blocks /usr/lib/modules/6.1.0-10-test/kernel/drivers\n");
    let block: u64 = told.split_whitespace().last().unwrap().parse().unwrap();
    // Behind its last entry is its checksum.
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[0x5a], block * 4096 + 4095).unwrap();
    drop(file);
    workshop.check_refused(&disk, "/usr/lib/modules/6.1.0-10-test/kernel/drivers");
    workshop.check_refused(&disk, "the file system is damaged");
    // Without its checksum, too, a superblock that says nonsense is damage.
    let disk = workshop.disk(&["-t", "ext4"]);
    File::options().write(true).open(&disk).unwrap().write_all_at(&[0xff; 4], 1024 + 0x18).unwrap();
    workshop.check_refused(&disk, "its superblock is damaged: repair it with `e2fsck -f`");
}

#[test]
fn what_no_kernel_mounts_is_not_imported() {
    let workshop = Workshop::new();
    let damaged = |options: &[&str], at: u64, bytes: &[u8], expected: &str| {
        let disk = workshop.disk(options);
        File::options().write(true).open(&disk).unwrap().write_all_at(bytes, at).unwrap();
        workshop.check_refused(&disk, expected);
        workshop.check_refused(&disk, "`e2fsck -f`");
    };
    let ext4: &[&str] = &["-t", "ext4", "-b", "1024"];
    let old: &[&str] = &["-t", "ext3", "-b", "1024", "-O", "^metadata_csum,uninit_bg"];
    let plain: &[&str] = &["-t", "ext3", "-b", "1024"];
    // Of the fourth of five groups: where its inodes are, and the checksum.
    let (of_64, of_32) = (2048 + 3 * 64, 2048 + 3 * 32);
    damaged(ext4, of_64 + 12, &[0x5a], "invalid checksum for block group descriptor 3");
    damaged(old, of_32 + 12, &[0x5a], "the checksum of the descriptor of its group 3 is wrong");
    damaged(plain, of_32, &[0; 4], "the block bitmap of its group 3 lies outside");
    damaged(plain, 1024 + 0x14, &[0], "its first data block is 0");
    damaged(plain, 1024, &[0x11; 2], "its number of inodes does not fit its groups");
    damaged(plain, 1024 + 0xe0, &[11], "its journal is no file");
    let journal = |options: &[&str]| -> u64 {
        let told = debugfs(&workshop.disk(options), "blocks <8>\n");
        let block = told.lines().last().unwrap().split_whitespace().next().unwrap();
        block.parse::<u64>().unwrap() * 1024
    };
    for options in [ext4, plain] {
        damaged(options, journal(options), &[0; 4], "its journal does not begin as one");
        damaged(options, journal(options) + 0x10, &[0xff], "its journal does not have the size");
    }
    let disk = workshop.disk(&["-t", "ext4", "-O", "^metadata_csum"]);
    debugfs(&disk, "sif <8> links_count 0\n");
    workshop.check_refused(&disk, "the inode of its journal is a deleted one");
    let disk = workshop.disk(ext4);
    damage_inode_at(&disk, "<8>", 1024);
    workshop.check_refused(&disk, "the checksum of its journal's inode is wrong");
}

#[test]
fn a_disk_that_is_cut_off_is_called_that() {
    let workshop = Workshop::new();
    let disk = workshop.disk(&["-t", "ext4"]);
    File::options().write(true).open(&disk).unwrap().set_len(30 << 20).unwrap();
    workshop.check_refused(&disk, "it has 41943040 bytes, and there are only 31457280 for it");
    workshop.check_refused(&disk, "cut off");
}

#[test]
fn a_journal_that_was_not_replayed_is_read_or_named() {
    let workshop = Workshop::new();
    let write = |options: &[&str]| {
        let disk = workshop.disk(options);
        let block = workshop.path("block");
        fs::write(&block, vec![7; 4096]).unwrap();
        // A block at the end, which belongs to no file.
        debugfs(&disk, &format!("jo\njw -b 10000 {}\njc\n", block.display()));
        let mut features = [0; 4];
        File::open(&disk).unwrap().read_exact_at(&mut features, 1024 + 0x60).unwrap();
        assert!(features[0] & 4 != 0, "the journal is empty");
        disk
    };
    let with_checksums = write(&["-t", "ext4", "-b", "4096"]);
    match workshop.import(&with_checksums) {
        Ok(version) => assert_eq!(version.kernel_version, KERNEL),
        Err(error) => assert!(error.to_string().contains("`e2fsck -f`"), "{error}"),
    }
    let without = write(&["-t", "ext3", "-b", "4096"]);
    workshop.check_refused(&without, "it was not unmounted, and its journal is of a kind that");
}

#[test]
fn kernels_are_looked_for_wherever_systems_have_them() {
    let check = |place: &str| {
        let workshop = Workshop::new();
        let files = workshop.path("files");
        fs::remove_dir_all(files.join("boot")).unwrap();
        fs::create_dir(files.join("boot")).unwrap();
        let path = files.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, kernel_file(KERNEL)).unwrap();
        let version = workshop.import(&workshop.disk(&["-t", "ext4"]));
        assert_eq!(
            version.unwrap_or_else(|error| panic!("{place}: {error}")).kernel_version,
            KERNEL
        );
    };
    check("boot/vmlinuz-linux");
    check("boot/vmlinuz-lts");
    check("boot/kernel-6.1.0-10-test");
    check("boot/bzImage");
    check("boot/vmlinuz");
    check("vmlinuz");
    check("boot/0123456789abcdef0123456789abcdef/6.1.0-10-test/linux");
    check("boot/fedora/6.1.0-10-test/linux");
    check("usr/lib/modules/6.1.0-10-test/vmlinuz");
}

#[test]
fn a_kernel_that_is_not_complete_is_not_taken() {
    let workshop = Workshop::new();
    let boot = workshop.path("files/boot");
    // The disk was full at the upgrade; a download broke off; another processor's; one without modules.
    fs::write(boot.join("vmlinuz-7.0.0"), "").unwrap();
    fs::create_dir_all(workshop.path("files/usr/lib/modules/6.1.0-99-test")).unwrap();
    fs::write(boot.join("vmlinuz-6.1.0-99-test"), &kernel_file("6.1.0-99-test")[..2000]).unwrap();
    fs::write(boot.join("vmlinuz-6.1.0-98-test"), kernel_file("6.1.0-98-test")).unwrap();
    symlink("boot/vmlinuz-6.1.0-98-test", workshop.path("files/vmlinuz")).unwrap();
    symlink("vmlinuz-6.1.0-97-test", workshop.path("files/boot/vmlinuz")).unwrap();
    let import = workshop.import_with_all_told(&workshop.disk(&["-t", "ext4"])).unwrap();
    assert_eq!(import.version.kernel_version, KERNEL);
    let told = import.passed_over.join("\n");
    for name in ["7.0.0: it is empty", "6.1.0-99-test: it is cut off", "6.1.0-98-test: its modules"]
    {
        assert!(told.contains(name), "{told}");
    }

    for kernel in [KERNEL, "6.1.0-9-test"] {
        fs::remove_file(boot.join(format!("vmlinuz-{kernel}"))).unwrap();
    }
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    fs::write(boot.join("vmlinuz-6.1.0-96-arm64"), arm).unwrap();
    let disk = workshop.disk(&["-t", "ext4"]);
    for expected in [
        "there is no kernel in it that machines could boot",
        "/boot/vmlinuz-7.0.0: it is empty",
        "/boot/vmlinuz-6.1.0-99-test: it is cut off: it says that it has 3072 bytes, and there are 2000",
        "/boot/vmlinuz-6.1.0-98-test: its modules are missing: there are none in /lib/modules/6.1.0-98-test",
        "/boot/vmlinuz-6.1.0-96-arm64: it does not say which version it is",
    ] {
        workshop.check_refused(&disk, expected);
    }
}

#[test]
fn a_packed_kernel_is_stored_unpacked() {
    let workshop = Workshop::new();
    let boot = workshop.path("files/boot");
    for kernel in [KERNEL, "6.1.0-9-test"] {
        run(Command::new("gzip").arg(boot.join(format!("vmlinuz-{kernel}"))));
    }
    let disk = workshop.disk(&["-t", "ext4"]);
    let store = Store::open(&workshop.path("images")).unwrap();
    let name: model::ImageName = "debian-12".parse().unwrap();
    let request = ImportRequest {
        disk_bytes: None,
        source: Source::open(&disk).unwrap(),
        name: name.clone(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
    assert_eq!(fs::read(store.vmlinuz_path(&name, 1)).unwrap(), kernel_file(KERNEL));
}

#[test]
fn a_kernel_for_arm64_is_known_as_one_also_where_it_unpacks_itself() {
    let workshop = Workshop::new();
    let boot = workshop.path("files/boot");
    let kernel = arm64_kernel_file(KERNEL);
    let packed = workshop.path("packed");
    fs::write(&packed, &kernel).unwrap();
    run(Command::new("gzip").arg(&packed));
    let packed = fs::read(workshop.path("packed.gz")).unwrap();
    let zboot = |packer: &[u8]| {
        let mut bytes = b"MZ\0\0zimg".to_vec();
        bytes.extend(64u32.to_le_bytes());
        bytes.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        bytes.resize(24, 0);
        bytes.extend(packer);
        bytes.resize(64, 0);
        [&bytes[..], &packed].concat()
    };
    fs::remove_file(boot.join("vmlinuz-6.1.0-9-test")).unwrap();
    fs::write(boot.join("vmlinuz-6.1.0-99-test"), zboot(b"zstd22")).unwrap();
    for (number, file) in [(1, kernel.clone()), (2, packed.clone()), (3, zboot(b"gzip"))] {
        fs::write(boot.join(format!("vmlinuz-{KERNEL}")), file).unwrap();
        // Each is another disk, so that it is a version of its own.
        fs::write(workshop.path("files/etc/number"), number.to_string()).unwrap();
        let import = workshop.import_with_all_told(&workshop.disk(&["-t", "ext4"])).unwrap();
        let found = (import.version.architecture, &*import.version.kernel_version);
        assert_eq!(found, (Architecture::Arm64, KERNEL), "{number}");
        let told = import.passed_over.join("\n");
        assert!(
            told.contains("6.1.0-99-test: it unpacks itself (EFI zboot), and is packed by zstd22"),
            "{told}"
        );
    }
}

/// A disk of 64 MiB with these at 1 MiB, 17 MiB, 33 MiB and 49 MiB, each in a partition of 16 MiB.
fn partitioned(workshop: &Workshop, parts: &[&[u8]]) -> PathBuf {
    let path = workshop.path("parts.raw");
    let file = File::create(&path).unwrap();
    file.set_len(66 << 20).unwrap();
    for (index, part) in (0u32..).zip(parts) {
        let start = 2048 + index * 32768;
        let mut entry = [0; 16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&32768u32.to_le_bytes());
        file.write_all_at(&entry, 446 + u64::from(index) * 16).unwrap();
        file.write_all_at(part, u64::from(start) * 512).unwrap();
    }
    file.write_all_at(&[0x55, 0xaa], 510).unwrap();
    path
}

/// The start of something: these bytes at this place.
fn mark(at: usize, bytes: &[u8]) -> Vec<u8> {
    [&vec![0; at][..], bytes].concat()
}

#[test]
fn what_other_installers_make_is_named_part_by_part() {
    let workshop = Workshop::new();
    let boot = workshop.path("boot.raw");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(workshop.path("files/boot")).arg(&boot);
    run(mke2fs.arg("8M"));
    let boot = fs::read(boot).unwrap();
    let (fat, lvm) = (mark(82, b"FAT32   "), mark(512, b"LABELONE"));
    let (luks, raid) = (mark(0, b"LUKS\xba\xbe"), mark(4096, &[0xfc, 0x4e, 0x2b, 0xa9]));
    let (xfs, btrfs) = (mark(0, b"XFSB"), mark((64 << 10) + 64, b"_BHRfS_M"));
    let swap = mark(4086, b"SWAPSPACE2");
    let check = |parts: &[&[u8]], expected: &str| {
        workshop.check_refused(&partitioned(&workshop, parts), expected);
    };
    // Debian, guided, with LVM; the same encrypted.
    check(
        &[&boot, &lvm],
        "partition 1: ext4 without /sbin/init, partition 2: an LVM physical volume. Copy",
    );
    check(
        &[&fat, &boot, &luks],
        "partition 3: an encrypted volume (LUKS). Copy the files of the root",
    );
    // Fedora and openSUSE, damaged; a server with two disks.
    check(
        &[&fat, &boot, &btrfs],
        "partition 3 can't be read: the file system is damaged (the checksum of its first superblock is wrong)",
    );
    check(&[&fat, &btrfs, &swap], "`btrfs rescue super-recover`");
    check(&[&fat, &raid, &raid], "partition 2: a part of a RAID (md)");
    // Windows, and an installer's CD.
    check(&[&fat, &mark(3, b"NTFS    ")], "partition 1: FAT, partition 2: NTFS");
    check(
        &[&mark(0x8001, b"CD001"), &fat],
        "an ISO 9660 CD image, partition 2: FAT. Install a system from it",
    );
    // A root whose kernels are in a place that can't be read.
    let root = workshop.path("root.raw");
    fs::remove_dir_all(workshop.path("files/boot")).unwrap();
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(workshop.path("files")).arg(&root);
    run(mke2fs.arg("16M"));
    let root = fs::read(root).unwrap();
    check(&[&fat, &root], "partition 1: its first sector is damaged");
    check(&[&xfs, &root], "partition 1: it uses something of xfs that Bootlace can't read");
    // And one that is fine, beside an old system on the whole disk.
    let old = mark(0x438, &[0x53, 0xef]);
    let disk = partitioned(&workshop, &[&boot, &root]);
    File::options().write(true).open(&disk).unwrap().write_all_at(&old[1024..], 1024).unwrap();
    let version = workshop.import(&disk).unwrap();
    assert_eq!((version.partition, &*version.kernel_version), (Some(2), KERNEL));
}

#[test]
fn errors_that_linux_has_met_are_told_and_gone_when_they_are_repaired() {
    let workshop = Workshop::new();
    let disk = workshop.disk(&["-t", "ext4"]);
    debugfs(&disk, "set_super_value state 3\n");
    let import = workshop.import_with_all_told(&disk).unwrap();
    let [warning] = &import.warnings[..] else { panic!("{:?}", import.warnings) };
    assert!(warning.contains("met errors") && warning.contains("`e2fsck -f`"), "{warning}");
    let _ = Command::new("e2fsck").args(["-f", "-y"]).arg(&disk).output().unwrap();
    assert!(workshop.import_with_all_told(&disk).unwrap().warnings.is_empty());
}

#[test]
fn a_kernel_that_can_not_mount_the_root_is_passed_over() {
    let workshop = Workshop::new();
    let modules = workshop.path("files/usr/lib/modules").join(KERNEL);
    let older = workshop.path("files/usr/lib/modules/6.1.0-9-test");
    let list = "kernel/fs/fuse/fuse.ko\n";
    fs::write(modules.join("modules.builtin"), list).unwrap();
    let disk = workshop.disk(&["-t", "ext4"]);
    let import = workshop.import_with_all_told(&disk).unwrap();
    assert_eq!(import.version.kernel_version, "6.1.0-9-test", "of this nobody has lists");
    let told = import.passed_over.join("; ");
    assert!(
        told.contains("vmlinuz-6.1.0-10-test: it has no ext4, neither inside nor in"),
        "{told}"
    );
    fs::write(older.join("modules.builtin"), "").unwrap();
    workshop.check_refused(&workshop.disk(&["-t", "ext4"]), "it has no ext4");
    let boots = |what: &str| {
        let version = workshop.import(&workshop.disk(&["-t", "ext4"]));
        assert_eq!(version.unwrap().kernel_version, KERNEL, "{what}");
    };
    fs::write(modules.join("modules.builtin"), format!("{list}kernel/fs/ext4/ext4.ko\n")).unwrap();
    boots("inside");
    fs::write(modules.join("modules.builtin"), list).unwrap();
    fs::create_dir_all(modules.join("kernel/fs/ext4")).unwrap();
    fs::write(modules.join("kernel/fs/ext4/ext4.ko.xz"), "module").unwrap();
    boots("a module in its place");
    fs::remove_file(modules.join("kernel/fs/ext4/ext4.ko.xz")).unwrap();
    fs::write(modules.join("modules.dep"), "updates/ext4.ko.zst: updates/jbd2.ko.zst\n").unwrap();
    workshop.check_refused(&workshop.disk(&["-t", "ext4"]), "it has no ext4");
    fs::create_dir(modules.join("updates")).unwrap();
    fs::write(modules.join("updates/ext4.ko.zst"), "module").unwrap();
    boots("a module elsewhere");
}

#[test]
fn what_is_no_kernel_to_start_is_passed_over_and_named_where_there_is_no_other() {
    let workshop = Workshop::new();
    let boot = workshop.path("files/boot");
    // An upgrade that has not ended, what it has put aside, and folders in the places of kernels.
    for name in ["vmlinuz-6.1.0-10-test.dpkg-new", "vmlinuz-6.9-old", "vmlinuz-6.9;65a1b2c3"] {
        fs::write(boot.join(name), kernel_file("6.9")).unwrap();
    }
    fs::create_dir(workshop.path("files/vmlinuz")).unwrap();
    fs::create_dir_all(workshop.path("files/usr/lib/modules/9.9.9/vmlinuz")).unwrap();
    let import = workshop.import_with_all_told(&workshop.disk(&["-t", "ext4"])).unwrap();
    assert_eq!(import.version.kernel_version, KERNEL);
    let told = import.passed_over.join("\n");
    for says in ["/vmlinuz: it is a folder", "/9.9.9/vmlinuz: it is a folder"] {
        assert!(told.contains(says), "{told}");
    }
    assert!(!told.contains("dpkg"), "there is a better one: {told}");

    fs::remove_dir_all(&boot).unwrap();
    fs::create_dir_all(boot.join("EFI/Linux")).unwrap();
    fs::write(boot.join("vmlinuz-0-rescue-abc"), kernel_file("6.9")).unwrap();
    fs::write(boot.join("EFI/Linux/arch.efi"), "unified").unwrap();
    let disk = workshop.disk(&["-t", "ext4"]);
    workshop.check_refused(&disk, "/boot/vmlinuz-0-rescue-abc: it is for rescue");
    workshop.check_refused(&disk, "/boot/EFI/Linux/arch.efi: it is one file with its own initrd");
}

#[test]
fn a_second_system_on_the_disk_is_named() {
    let workshop = Workshop::new();
    let made = || {
        let disk = workshop.path("one.raw");
        let _ = fs::remove_file(&disk);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-b", "1024", "-d"]).arg(workshop.path("files"));
        run(mke2fs.arg(&disk).arg("16M"));
        fs::read(disk).unwrap()
    };
    let one = made();
    fs::write(workshop.path("files/usr/lib/os-release"), "PRETTY_NAME=\"Other 2\"\n").unwrap();
    let other = made();
    let disk = partitioned(&workshop, &[&one, &other]);
    let import = workshop.import_with_all_told(&disk).unwrap();
    assert_eq!(import.version.partition, Some(1));
    let told = import.warnings.join("\n");
    for says in ["the first, in partition 1", "partition 2 (Other 2)", "losetup"] {
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_usr_of_its_own_is_not_taken_for_the_root() {
    let workshop = Workshop::new();
    let made = |name: &str, files: &Path| {
        let disk = workshop.path(name);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-b", "1024", "-d"]).arg(files).arg(&disk);
        run(mke2fs.arg("16M"));
        fs::read(disk).unwrap()
    };
    fs::create_dir(workshop.path("files/usr/share")).unwrap();
    let usr = made("usr.raw", &workshop.path("files/usr"));
    let whole = made("whole.raw", &workshop.path("files"));
    // The modules are in /usr, and so is the init.
    let split = workshop.path("split");
    run(Command::new("cp").arg("-a").arg(workshop.path("files")).arg(&split));
    fs::remove_dir_all(split.join("usr")).unwrap();
    for folder in ["usr", "dev", "proc", "sys"] {
        fs::create_dir(split.join(folder)).unwrap();
    }
    let root = made("root.raw", &split);
    let check = |parts: &[&[u8]], expected: &str| {
        workshop.check_refused(&partitioned(&workshop, parts), expected);
    };
    check(&[&root, &usr], "its root in partition 1 has its /usr in partition 2");
    check(&[&usr, &root], "its root in partition 2 has its /usr in partition 1");
    check(&[&usr], "partition 1 is a /usr, whose root is not on this disk");
    let version = workshop.import(&partitioned(&workshop, &[&usr, &whole])).unwrap();
    assert_eq!(version.partition, Some(2));
}
