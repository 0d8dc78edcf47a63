//! Disks that machines have beside their roots, as an administrator notices them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_ext4, run, system_files};
use images::{
    EmptyDisk, Import, ImportError, ImportRequest, ReceiveRequest, SendRequest, Source, Stop, Store,
};
use model::VersionState;
use std::fs;
use std::path::Path;
use std::process::Command;

fn empty(store: &Store, size_bytes: u64) -> Result<Import, ImportError> {
    let order = EmptyDisk { name: "home".parse().unwrap(), size_bytes, note: None };
    store.make_empty(&order, &Stop::default(), &mut |_| ())
}

fn import(store: &Store, disk: &Path, is_data: bool) -> Result<Import, ImportError> {
    let request = ImportRequest {
        fix: None,
        source: Source::open(disk).unwrap(),
        name: "courses".parse().unwrap(),
        note: None,
        state: VersionState::Released,
        disk_bytes: None,
        is_data,
    };
    store.import(&request, &Stop::default(), &mut |_| ())
}

#[test]
fn an_empty_disk_takes_no_room_and_is_an_image_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("here")).unwrap();
    let made = empty(&store, (3 << 30) - 5).unwrap();
    let version = made.version;
    assert!(version.is_data() && version.size_bytes == 3 << 30 && made.harms.is_empty());
    let disk = store.disk_path(&version.image, version.version);
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(&disk));
    let taken = store.disk_bytes(&version.image, version.version).unwrap();
    assert!(taken < 8 << 20, "{taken} bytes");
    assert!(store.trouble(&version).is_none(), "{:?}", store.trouble(&version));
    let verified = store.verify(&version.image, 1, 0, &Stop::default(), &mut |_| ()).unwrap();
    assert!(verified.flaw.is_none(), "{verified:?}");

    // And comes to another server.
    let mut stream = Vec::new();
    let request = SendRequest { image: version.image.clone(), version: 1, from: None, at_bytes: 0 };
    store.send(&request, &mut stream, &Stop::default(), &mut |_| ()).unwrap();
    let there = Store::open(&dir.path().join("there")).unwrap();
    let request =
        ReceiveRequest { name: None, state: VersionState::Released, keeps_partial: false };
    there.receive(&stream[..], &request, &Stop::default(), &mut |_| (), &mut |_| ()).unwrap();
    assert_eq!(there.version(&version.image, 1).unwrap().digest, version.digest);
    assert!(there.trouble(&version).is_none());

    for size_bytes in [0, 63 << 20, u64::MAX] {
        let refused = empty(&store, size_bytes).unwrap_err().to_string();
        assert!(refused.contains("67 MB"), "{refused}");
    }
}

#[test]
fn a_disk_with_files_needs_no_kernel_if_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("book"), "pages").unwrap();
    let disk = dir.path().join("disk.raw");
    make_ext4(&files, &disk, 0, 8 << 20);
    assert!(matches!(import(&store, &disk, false), Err(ImportError::NotBootable { .. })));
    let version = import(&store, &disk, true).unwrap().version;
    assert!(version.is_data() && version.partition.is_none());
    // What was damaged is put back, as of a system.
    fs::remove_file(store.vmlinuz_path(&version.image, 1)).unwrap();
    assert!(!import(&store, &disk, true).unwrap().put_back.is_empty());
    assert!(matches!(import(&store, &disk, true), Err(ImportError::SameAsNewest { .. })));

    // An image has versions of one kind.
    let request = EmptyDisk { name: "courses".parse().unwrap(), size_bytes: 64 << 20, note: None };
    store.make_empty(&request, &Stop::default(), &mut |_| ()).unwrap();
    let system = dir.path().join("system");
    system_files(&system);
    let system_disk = dir.path().join("system.raw");
    make_ext4(&system, &system_disk, 0, 24 << 20);
    let said = import(&store, &system_disk, false).unwrap_err().to_string();
    assert!(said.contains("of one kind only"), "{said}");

    fs::write(&disk, vec![1; 1 << 20]).unwrap();
    let refused = import(&store, &disk, true).unwrap_err().to_string();
    assert!(refused.contains("that a machine could mount"), "{refused}");
}
