//! What a machine has changed of a version becomes the next one, as an administrator notices it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{make_ext4, run, system_files};
use images::{
    Block, ChangedDisk, Expected, Import, ImportError, ImportRequest, LayerMode, Layers,
    SnapshotDisk, Source, Stop, Store, write_changes,
};
use model::{DiskId, ImageName, ImageVersion, SnapshotKind, VersionState};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE_BYTES: u64 = 24 << 20;
/// Where the root is, behind what its partition table takes.
const OFFSET: u64 = 1 << 20;

fn name() -> ImageName {
    "debian-12".parse().unwrap()
}

fn whose() -> DiskId {
    "lab-07".parse().unwrap()
}

/// A store with a version whose root is in a partition, and its disk.
fn version(dir: &Path) -> (Store, ImageVersion, PathBuf) {
    let store = Store::open(&dir.join("images")).unwrap();
    let files = dir.join("files");
    system_files(&files);
    fs::write(files.join("old"), vec![7; 300_000]).unwrap();
    let disk = dir.join("disk.raw");
    make_ext4(&files, &disk, OFFSET, SIZE_BYTES - OFFSET);
    // One partition of Linux, as a PC's BIOS reads it.
    let raw = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    let sectors = |bytes: u64| ((bytes / 512) as u32).to_le_bytes();
    let entry = [&[0, 0, 0, 0, 0x83, 0, 0, 0][..], &sectors(OFFSET), &sectors(SIZE_BYTES - OFFSET)];
    raw.write_all_at(&entry.concat(), 446).unwrap();
    raw.write_all_at(&[0x55, 0xaa], 510).unwrap();
    drop(raw);
    let request = ImportRequest {
        fix: None,
        source: Source::open(&disk).unwrap(),
        name: name(),
        note: None,
        state: VersionState::Released,
        disk_bytes: None,
        is_data: false,
    };
    let version = store.import(&request, &Stop::default(), &mut |_| ()).unwrap().version;
    (store, version, disk)
}

/// What a machine has on its disk that was changed by `debugfs`, and what that has made of the disk.
fn changed(dir: &Path, store: &Store, version: &ImageVersion, disk: &Path) -> SnapshotDisk {
    let after = dir.join("after.raw");
    fs::copy(disk, &after).unwrap();
    fs::write(dir.join("new"), vec![9; 500_000]).unwrap();
    let commands = dir.join("commands");
    fs::write(&commands, "write new /new\nrm /old\n").unwrap();
    let mut debugfs = Command::new("debugfs");
    debugfs.current_dir(dir).arg("-w").arg("-f").arg(&commands);
    run(debugfs.arg(format!("{}?offset={OFFSET}", after.display())));
    let (before, after) = (fs::read(disk).unwrap(), fs::read(after).unwrap());
    let layers = Layers::open(&dir.join("layers"), &dir.join("run"), None).unwrap();
    let base = store.open_base(&version.image, version.version).unwrap();
    let mode = LayerMode::Persistent;
    let layer =
        layers.open_or_create(&whose(), &base, mode, 1_u64.into(), Expected::Perhaps).unwrap();
    for (index, block) in after.chunks(4096).enumerate() {
        let offset = index * 4096;
        if before[offset..offset + block.len()] != *block {
            layer.write_at(block, offset as u64).unwrap();
        }
    }
    layer.flush().unwrap();
    let made = layers.snapshot(&whose(), 7, SnapshotKind::Asked, None).unwrap().unwrap();
    layers.view(&whose(), made.number, &base).unwrap()
}

fn changes_of(disk: &SnapshotDisk) -> Vec<u8> {
    let mut changes = Vec::new();
    write_changes(disk, |piece| {
        changes.extend(piece);
        Ok(())
    })
    .unwrap();
    changes
}

fn publish(store: &Store, base: &ImageVersion, changes: &[u8]) -> Result<Import, ImportError> {
    let disk = ChangedDisk {
        source: PathBuf::from("what lab-07 has changed"),
        base: base.clone(),
        note: Some("one file more".to_owned()),
        state: VersionState::Test,
        fix: None,
    };
    store.import_changed(&disk, changes, &Stop::default(), &mut |_| ())
}

#[test]
fn what_was_changed_is_the_next_version_and_the_first_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first, disk) = version(dir.path());
    let changes = changes_of(&changed(dir.path(), &store, &first, &disk));
    assert!(changes.len() < 2 << 20, "only what differs: {}", changes.len());
    let import = publish(&store, &first, &changes).unwrap();
    assert_eq!((import.version.version, import.warnings.len()), (2, 0), "{:?}", import.warnings);
    let read = |number, path: &str| store.rootfs(&name(), number).unwrap().read(path);
    assert_eq!(read(2, "/new").unwrap(), vec![9; 500_000]);
    assert!(read(2, "/old").is_err());
    assert_eq!(read(1, "/old").unwrap(), vec![7; 300_000]);
    assert!(read(1, "/new").is_err());
}

#[test]
fn what_is_damaged_or_cut_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first, disk) = version(dir.path());
    let changes = changes_of(&changed(dir.path(), &store, &first, &disk));
    for length in [0, 5, 12, 30, 40, changes.len() / 2, changes.len() - 1] {
        let error = publish(&store, &first, &changes[..length]).unwrap_err().to_string();
        assert!(error.contains("what lab-07 has changed"), "{length}: {error}");
    }
    let mut damaged = b"rbd diff v1\ns".to_vec();
    damaged.extend(first.size_bytes.to_le_bytes());
    damaged.push(b'w');
    // The table of groups, behind the superblock.
    damaged.extend((OFFSET + 4096).to_le_bytes());
    damaged.extend(4096_u64.to_le_bytes());
    damaged.extend([0xa5; 4096]);
    damaged.push(b'e');
    let error = publish(&store, &first, &damaged).unwrap_err();

    let error = error.to_string();
    assert!(error.contains("what lab-07 has changed can't be booted"), "{error}");
    let left: Vec<_> = store.list().unwrap().iter().map(|version| version.version).collect();
    assert_eq!(left, [1]);
    let names = fs::read_dir(dir.path().join("images")).unwrap();
    let drafts = names.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().contains("draft") && entry.path().is_dir()
    });
    let files = drafts.flat_map(|draft| fs::read_dir(draft.path()).unwrap().flatten());
    assert_eq!(files.count(), 0);
}
