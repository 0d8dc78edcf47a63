//! Versions that are exported, as other programs see them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{run, system_disk};
use images::{ExportError, ExportFormat, ExportTo, ImportRequest, Source, Stop, Store};
use model::{ImageName, VersionState};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

fn imported(dir: &Path) -> (Store, ImageName) {
    let store = Store::open(&dir.join("images")).unwrap();
    let name: ImageName = "debian-12".parse().unwrap();
    let request = ImportRequest {
        fix: None,
        source: Source::open(&system_disk(dir)).unwrap(),
        name: name.clone(),
        note: None,
        state: VersionState::Released,
        disk_bytes: None,
        is_data: false,
    };
    store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
    (store, name)
}

#[test]
fn raw_and_qcow2_are_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, name) = imported(dir.path());
    let disk = store.disk_path(&name, 1);
    for (word, format) in [("raw", ExportFormat::Raw), ("qcow2", ExportFormat::Qcow2)] {
        let path = dir.path().join(word);
        let file = File::create_new(&path).unwrap();
        let mut told = 0;
        store
            .export(&name, 1, (format, ExportTo::File(&file)), &Stop::default(), &mut |it| {
                told = it.done_bytes
            })
            .unwrap();
        assert_eq!(told, fs::metadata(&disk).unwrap().len());
        let taken = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
        assert!(taken(&path) <= taken(&disk) + (1 << 20), "{word}: {}", taken(&path));
        let mut compare = Command::new("qemu-img");
        run(compare.args(["compare", "-f", word, "-F", "raw"]).arg(&path).arg(&disk));
        if format == ExportFormat::Qcow2 {
            run(Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path));
        }
    }
    let mut piped = Vec::new();
    let raw = (ExportFormat::Raw, ExportTo::Pipe(&mut piped));
    store.export(&name, 1, raw, &Stop::default(), &mut |_| ()).unwrap();
    assert!(piped == fs::read(&disk).unwrap());
}

#[test]
fn what_is_stopped_or_rotten_is_no_export() {
    let dir = tempfile::tempdir().unwrap();
    let (store, name) = imported(dir.path());
    let export = |stop: &Stop, n: u32| {
        let file = File::create_new(dir.path().join(n.to_string())).unwrap();
        store.export(&name, 1, (ExportFormat::Qcow2, ExportTo::File(&file)), stop, &mut |_| ())
    };
    let stopped = Stop::default();
    stopped.stop();
    assert!(matches!(export(&stopped, 1), Err(ExportError::Stopped)));
    let none = (ExportFormat::Qcow2, ExportTo::Pipe(&mut Vec::new()));
    let error = store.export(&name, 1, none, &Stop::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("name a file"), "{error}");
    let disk = store.disk_path(&name, 1);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o600)).unwrap();
    OpenOptions::new().write(true).open(&disk).unwrap().write_all_at(b"rotten", 9 << 20).unwrap();
    let error = export(&Stop::default(), 2).unwrap_err();
    assert!(error.to_string().contains("has changed since it was imported"), "{error}");
}

#[test]
fn a_tar_has_owners_links_devices_and_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    common::system_files(&files);
    let long = "a/".repeat(60) + &"long".repeat(20);
    fs::create_dir_all(files.join(&long).parent().unwrap()).unwrap();
    fs::write(files.join(&long), "far").unwrap();
    fs::write(files.join("etc/one"), "twice").unwrap();
    fs::hard_link(files.join("etc/one"), files.join("etc/two")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), files.join("etc/long-link")).unwrap();
    let holes = File::create(files.join("holes")).unwrap();
    holes.set_len(3 << 20).unwrap();
    holes.write_all_at(b"middle", 1 << 20).unwrap();
    fs::set_permissions(files.join("etc/one"), fs::Permissions::from_mode(0o4751)).unwrap();
    for n in 0..600 {
        fs::write(files.join(format!("usr/lib/{n}-{}", "name".repeat(10))), [n as u8]).unwrap();
    }
    let disk = dir.path().join("disk.raw");
    common::make_ext4(&files, &disk, 0, 32 << 20);
    let debugfs = |requests: &str| {
        let script = dir.path().join("requests");
        fs::write(&script, requests).unwrap();
        run(Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(&disk));
    };
    debugfs(
        "mkdir dev\ncd dev\nmknod null c 1 3\nmknod big b 8 17\nmknod pipe p\ncd /\nset_inode_field dev/big block[0] 0\nset_inode_field dev/big block[1] 0x11110370\n\
         set_inode_field etc/one uid 1000\nset_inode_field etc/one gid 70000\nset_inode_field etc/one mtime 20240102030405\n\
         ea_set etc/one user.note \"as installed\"\nea_set usr/sbin/init user.on-a-link x\n",
    );
    let store = Store::open(&dir.path().join("images")).unwrap();
    let name: ImageName = "debian-12".parse().unwrap();
    let request = ImportRequest {
        fix: None,
        source: Source::open(&disk).unwrap(),
        name: name.clone(),
        note: None,
        state: VersionState::Released,
        disk_bytes: None,
        is_data: false,
    };
    store.import(&request, &Stop::default(), &mut |_| ()).unwrap();
    let path = dir.path().join("files.tar");
    let file = File::create_new(&path).unwrap();
    let to = (ExportFormat::Tar, ExportTo::File(&file));
    store.export(&name, 1, to, &Stop::default(), &mut |_| ()).unwrap();
    let list = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-tvvf"])
        .arg(&path)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let has = |parts: &[&str]| {
        let found = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "{parts:?}");
    };
    has(&["-rwsr-x--x", "1000/70000", " 5 ", "2024-01-02 03:04", "etc/one"]);
    has(&["user.note"]);
    has(&["hrw", "etc/two link to etc/one"]);
    has(&["c---", "1,3", "dev/null"]);
    has(&["b---", "259,70000", "dev/big"]);
    has(&["p---", "dev/pipe"]);
    has(&["lrwx", "usr/sbin/init -> /lib/systemd/systemd"]);
    let there = dir.path().join("there");
    fs::create_dir(&there).unwrap();
    run(Command::new("tar").args(["--exclude=dev", "-xf"]).arg(&path).arg("-C").arg(&there));
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "-x", "lost+found"]).arg(&files).arg(&there);
    let diff = diff.output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    assert_eq!(fs::metadata(there.join("etc/one")).unwrap().nlink(), 2);
    let tar = || {
        let mut piped = Vec::new();
        let to = (ExportFormat::Tar, ExportTo::Pipe(&mut piped));
        store.export(&name, 1, to, &Stop::default(), &mut |_| ()).map(|_| piped)
    };
    assert!(tar().unwrap() == fs::read(&path).unwrap());
    // Whatever is wrong with its tables, it ends, with words.
    let disk = store.disk_path(&name, 1);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o600)).unwrap();
    let raw = OpenOptions::new().read(true).write(true).open(&disk).unwrap();
    let mut n_refused = 0;
    for n in 0..300_u64 {
        let (at, mut byte) = (1024 + n * 7919 % (1 << 20), [0]);
        raw.read_exact_at(&mut byte, at).unwrap();
        raw.write_all_at(&[!byte[0]], at).unwrap();
        n_refused += u32::from(tar().is_err());
        raw.write_all_at(&byte, at).unwrap();
    }
    assert!(n_refused > 0);
}
