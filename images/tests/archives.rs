//! Import of tar archives: a disk is made of the files in them.
#![expect(clippy::unwrap_used, reason = "a test that can't set up its place has failed")]

mod common;

use common::{KERNEL, run, system_files};
use images::{
    Block, FileChange, Import, ImportError, ImportRequest, Rootfs, Source, Stop, Store,
    file_changes, find_volumes,
};
use model::VersionState;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Small, so that tests are quick.
const DISK_BYTES: u64 = 128 << 20;

fn import_source(dir: &Path, source: Source, stop: &Stop) -> Result<Import, ImportError> {
    let request = ImportRequest {
        disk_bytes: Some(DISK_BYTES),
        source,
        name: "debian-12".parse().unwrap(),
        note: None,
        state: VersionState::Released,
        fix: None,
        is_data: false,
    };
    Store::open(&dir.join("images")).unwrap().import(&request, stop, &mut |_| ())
}

fn import(dir: &Path, archive: &Path) -> Result<Import, ImportError> {
    import_source(dir, Source::open(archive)?, &Stop::default())
}

fn full_text(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full_text(source)),
        None => error.to_string(),
    }
}

/// An archive of a system's files, packed by this option of tar.
fn archive(dir: &Path, option: Option<&str>) -> PathBuf {
    let files = dir.join("files");
    if !files.exists() {
        system_files(&files);
    }
    let archive = dir.join("system.tar");
    let _ = fs::remove_file(&archive);
    run(Command::new("tar").args(option).arg("-cf").arg(&archive).arg("-C").arg(&files).arg("."));
    archive
}

/// The root of the version that was made.
fn root(dir: &Path, version: u32) -> Rootfs {
    let store = Store::open(&dir.join("images")).unwrap();
    let base = store.open_base(&"debian-12".parse().unwrap(), version).unwrap();
    let disk: Arc<dyn Block> = base.block;
    let volumes = find_volumes(&disk).unwrap();
    Rootfs::open(disk, &volumes[0]).unwrap()
}

#[test]
fn an_archive_of_a_system_becomes_a_version_however_it_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    for (index, option) in
        [None, Some("--gzip"), Some("--xz"), Some("--zstd")].into_iter().enumerate()
    {
        let import = import(dir.path(), &archive(dir.path(), option)).unwrap();
        let version = import.version;
        assert_eq!((version.version as usize, version.size_bytes), (index + 1, DISK_BYTES));
        assert_eq!(version.kernel_version, KERNEL);
        assert_eq!(version.os_name.as_deref(), Some("Test 1 (small)"));
        assert!(import.left_out.is_empty(), "{:?}", import.left_out);
    }
    let disk = Store::open(&dir.path().join("images")).unwrap();
    let disk = disk.disk_path(&"debian-12".parse().unwrap(), 4);
    run(Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&disk));
    let module = fs::read(
        dir.path().join("files/usr/lib/modules").join(KERNEL).join("kernel/drivers/net/nic.ko"),
    );
    let path = format!("/lib/modules/{KERNEL}/kernel/drivers/net/nic.ko");
    assert!(root(dir.path(), 4).read(&path).unwrap() == module.unwrap());
}

#[test]
fn frames_of_several_processors_are_one_archive() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(archive(dir.path(), None)).unwrap();
    // A frame that is to be skipped, and two of content.
    let mut packed = vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for half in whole.chunks(whole.len() / 2 + 1) {
        let mut zstd = Command::new("zstd");
        let zstd = zstd.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut zstd = zstd.unwrap();
        let mut stdin = zstd.stdin.take().unwrap();
        let half = half.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&half).unwrap());
        packed.extend(zstd.wait_with_output().unwrap().stdout);
        writer.join().unwrap();
    }
    let path = dir.path().join("frames.tar.zst");
    // What says what it is must come first.
    fs::write(&path, &packed[12..]).unwrap();
    assert_eq!(import(dir.path(), &path).unwrap().version.kernel_version, KERNEL);
}

#[test]
fn owners_attributes_and_links_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let archive_path = archive(dir.path(), None);
    let more = dir.path().join("more");
    fs::create_dir_all(more.join("home/ann")).unwrap();
    fs::write(more.join("home/ann/notes"), "mine").unwrap();
    fs::hard_link(more.join("home/ann/notes"), more.join("home/ann/same")).unwrap();
    symlink("/home/ann", more.join("home/link")).unwrap();
    run(Command::new("tar")
        .args(["--owner=ann:4000", "--group=people:5000", "--format=posix", "-rf"])
        .arg(&archive_path)
        .arg("-C")
        .arg(&more)
        .arg("home"));
    let mut attributed = tar::Builder::new(Vec::new());
    attributed.append_pax_extensions([("SCHILY.xattr.user.colour", &b"green"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    attributed.append_data(&mut header, "etc/coloured", &b""[..]).unwrap();
    // Without the end of the archive.
    let mut bytes = attributed.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(fs::read(&archive_path).unwrap());
    fs::write(&archive_path, bytes).unwrap();
    import(dir.path(), &archive_path).unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let disk = store.disk_path(&"debian-12".parse().unwrap(), 1);
    let debugfs = |request: &str| {
        let ran = Command::new("/sbin/debugfs").args(["-R", request]).arg(&disk).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let stat = debugfs("stat /home/ann/same");
    for part in ["User:  4000", "Group:  5000", "Links: 2"] {
        assert!(stat.contains(part), "{part}: {stat}");
    }
    assert!(debugfs("ea_list /etc/coloured").contains("user.colour (5) = \"green\""));
    assert_eq!(root(dir.path(), 1).read("/home/link/notes").unwrap(), b"mine");
}

#[test]
fn what_another_program_writes_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive(dir.path(), Some("--gzip"));
    let mut cat = Command::new("cat").arg(&archive).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(cat.stdout.take().unwrap()));
    let source = Source::pipe(pipe, "standard input").unwrap();
    let version = import_source(dir.path(), source, &Stop::default()).unwrap().version;
    assert_eq!(version.kernel_version, KERNEL);
    assert!(cat.wait().unwrap().success());
}

#[test]
fn a_silent_pipe_can_be_stopped_and_one_that_ends_early_is_no_archive() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(archive(dir.path(), None)).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&whole[..1024]).unwrap();
    let stop = Stop::default();
    let stopper = {
        let stop = stop.clone();
        let half = whole[1024..whole.len() / 2].to_vec();
        std::thread::spawn(move || {
            writer.write_all(&half).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            stop.stop();
            writer
        })
    };
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    let source = Source::pipe(pipe, "standard input").unwrap();
    let stopped = import_source(dir.path(), source, &stop).unwrap_err();
    assert!(matches!(stopped, ImportError::Stopped), "{stopped:?}");
    drop(stopper.join().unwrap());

    let cut = dir.path().join("cut.tar");
    // Where an archive ends there is a mark, so that one that ends between two files is told from a whole one.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512);
    for length in [600, whole.len() / 2, whole.len() * 9 / 10, end] {
        fs::write(&cut, &whole[..length]).unwrap();
        let told = full_text(&import(dir.path(), &cut).unwrap_err());
        assert!(told.contains("cut.tar"), "{told}");
        assert!(length != end || told.contains("without the mark of its end"), "{told}");
    }
    let store = Store::open(&dir.path().join("images")).unwrap();
    assert!(store.list().unwrap().is_empty());
}

/// An archive with one entry more, made by hand.
fn with_entry(
    dir: &Path,
    edit: impl FnOnce(&mut tar::Header),
    path: &[u8],
    link: &[u8],
    content: &[u8],
) -> PathBuf {
    let whole = fs::read(archive(dir, None)).unwrap();
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    edit(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(whole);
    let path = dir.join("hostile.tar");
    fs::write(&path, bytes).unwrap();
    path
}

/// An archive with a symbolic link to a name of 5,000 letters.
fn linked_far(dir: &Path) -> PathBuf {
    let path = dir.join("far.tar");
    let mut archive = tar::Builder::new(File::create(&path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_link(&mut header, "far", "a".repeat(5000)).unwrap();
    archive.finish().unwrap();
    path
}

#[test]
fn hostile_archives_are_refused_or_lose_what_is_hostile() {
    use tar::EntryType;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = |archive: PathBuf, why: &str| {
        let told = full_text(&import(dir, &archive).unwrap_err());
        assert!(told.contains(why), "expected {why:?} in: {told}");
    };
    refused(with_entry(dir, |_| (), b"../../etc/passwd", b"", b"x"), "leads out of the archive");
    refused(
        with_entry(dir, |it| it.set_entry_type(EntryType::Link), b"in", b"/etc/shadow", b""),
        "a link to a file that is not in the archive",
    );
    refused(
        with_entry(dir, |it| it.set_entry_type(EntryType::Link), b"in", b"../out", b""),
        "leads out of the archive",
    );
    refused(
        with_entry(dir, |it| it.set_entry_type(EntryType::Symlink), b"l", b"", b""),
        "a link to nothing",
    );
    refused(linked_far(dir), "a longer path than Linux has");
    refused(with_entry(dir, |it| it.set_size(1 << 50), b"huge", b"", b"x"), "4 TiB");
    refused(with_entry(dir, |it| it.set_uid(u64::MAX >> 1), b"f", b"", b""), "no number of Linux");
    // What a repair has left is told, and keeps nothing else out.
    let found = import(dir, &with_entry(dir, |_| (), b"lost+found/#12", b"", b"x")).unwrap();
    assert!(found.left_out[0].contains("lost+found/#12"), "{:?}", found.left_out);
    // Of a device nothing is left but a remark.
    let device = |it: &mut tar::Header| {
        it.set_entry_type(EntryType::Block);
        it.set_device_major(8).unwrap();
        it.set_device_minor(0).unwrap();
    };
    let imported = import(dir, &with_entry(dir, device, b"home/sda", b"", b"")).unwrap();
    assert!(imported.left_out[0].contains("home/sda: it is a device"), "{:?}", imported.left_out);
    assert!(!root(dir, 2).exists("/home/sda").unwrap());
}

#[test]
fn what_does_not_fit_and_what_is_no_system_is_told_with_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let files = dir.join("files");
    system_files(&files);
    fs::write(files.join("large"), vec![7; 150 << 20]).unwrap();
    let told = full_text(&import(dir, &archive(dir, Some("--zstd"))).unwrap_err());
    assert!(told.contains("do not fit into the disk") && told.contains("--size"), "{told}");
    fs::remove_file(files.join("large")).unwrap();

    // As `docker export` gives it: there is no kernel in it.
    for path in ["boot", "usr/lib/modules"] {
        fs::remove_dir_all(files.join(path)).unwrap();
    }
    let told = full_text(&import(dir, &archive(dir, None)).unwrap_err());
    assert!(told.contains("no kernel") && told.contains("linux-image-amd64"), "{told}");

    let ova = dir.join("machine.ova");
    fs::write(dir.join("machine.ovf"), "<Envelope/>").unwrap();
    run(Command::new("tar").arg("-cf").arg(&ova).arg("-C").arg(dir).arg("machine.ovf"));
    let told = full_text(&import(dir, &ova).unwrap_err());
    assert!(told.contains("perhaps an OVA"), "{told}");
}

#[test]
fn files_that_make_the_difference_between_versions_are_told() {
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), &archive(dir.path(), None)).unwrap();
    let files = dir.path().join("files");
    fs::write(files.join("srv-new"), vec![7; 300_000]).unwrap();
    fs::hard_link(files.join("srv-new"), files.join("srv-same")).unwrap();
    fs::write(files.join("etc/added"), "x").unwrap();
    fs::write(files.join("usr/lib/os-release"), "ID=other\n".repeat(1000)).unwrap();
    import(dir.path(), &archive(dir.path(), None)).unwrap();
    let (old, new) = (root(dir.path(), 1), root(dir.path(), 2));
    let found = file_changes(&old, &new).unwrap();
    assert_eq!((found.n_added, found.n_removed, found.n_changed), (3, 0, 1));
    let grown = found.new_bytes - found.old_bytes;
    assert!((300_000..310_000).contains(&grown), "{grown}: a file with two names is one");
    let told = |change: &FileChange| (change.path.clone(), change.new_bytes);
    let told: Vec<_> = found.largest.iter().map(told).collect();
    let expected = [
        ("/srv-new".to_owned(), Some(300_000)),
        ("/srv-same".to_owned(), Some(300_000)),
        ("/usr/lib/os-release".to_owned(), Some(9000)),
        ("/etc/added".to_owned(), Some(1)),
    ];
    assert_eq!(told, expected);
    let back = file_changes(&new, &old).unwrap();
    assert_eq!((back.n_added, back.n_removed, back.n_changed), (0, 3, 1));
    assert_eq!(back.largest[0].new_bytes, None);
    let same = file_changes(&new, &new).unwrap();
    assert_eq!((same.largest, same.n_changed), (vec![], 0));
}
