//! Write layers, as a machine and an administrator notice them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{base, content};
use images::{Base, Block, Expected, ForBoot, LayerError, LayerMode, Layers, WriteLayer};
use model::DiskId;
use proptest::prelude::*;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

const GRANULE: usize = 4096;

fn whose() -> DiskId {
    "lab-07".parse().unwrap()
}

fn layers(dir: &Path) -> Layers {
    Layers::open(&dir.join("layers"), &dir.join("run"), None).unwrap()
}

fn open(layers: &Layers, base: &Base, mode: LayerMode, boot: u64) -> Arc<WriteLayer> {
    layers.open_or_create(&whose(), base, mode, boot.into(), Expected::Perhaps).unwrap()
}

/// As after a restart of the host: the volatile map is gone.
fn forget_run(dir: &Path) {
    fs::remove_dir_all(dir.join("run")).unwrap();
}

#[derive(Clone, Debug)]
enum Action {
    Write {
        offset: usize,
        length: usize,
        byte: u8,
    },
    Zero {
        offset: usize,
        length: usize,
    },
    Trim {
        offset: usize,
        length: usize,
    },
    Read {
        offset: usize,
        length: usize,
    },
    Flush,
    /// The daemon dies and starts again.
    Restart,
    /// The host loses its memory; only in persistent mode.
    PowerCut,
}

/// 2 stripes and a half, and a last granule that is not whole.
const SIZE: usize = 640 * GRANULE + 1536;

fn range() -> impl Strategy<Value = (usize, usize)> {
    let length = prop_oneof![0..200usize, 0..3 * GRANULE, 0..300 * GRANULE];
    let aligned = (0..=SIZE / GRANULE, 0..40usize)
        .prop_map(|(granule, count)| (granule * GRANULE, count * GRANULE));
    let to_end = (0..8 * GRANULE).prop_map(|length| (SIZE - length, length));
    prop_oneof![3 => (0..=SIZE, length), 2 => aligned, 1 => to_end]
        .prop_map(|(offset, length)| (offset, length.min(SIZE - offset)))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (range(), 1..=255u8)
            .prop_map(|((offset, length), byte)| Action::Write { offset, length, byte }),
        2 => range().prop_map(|(offset, length)| Action::Zero { offset, length }),
        2 => range().prop_map(|(offset, length)| Action::Trim { offset, length }),
        4 => range().prop_map(|(offset, length)| Action::Read { offset, length }),
        2 => Just(Action::Flush),
        1 => Just(Action::Restart),
        1 => Just(Action::PowerCut),
    ]
}

fn behaves_like_a_disk(mode: LayerMode, actions: &[Action]) {
    let dir = tempfile::tempdir().unwrap();
    let original: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8).collect();
    let base = base(original.clone());
    let mut expected = original.clone();
    // What a power cut must leave: per byte, one of the values since the last flush.
    let mut possible: Vec<Vec<u8>> = vec![original.clone()];
    let mut store = Some(layers(dir.path()));
    let mut layer = Some(open(store.as_ref().unwrap(), &base, mode, 1));
    for action in actions {
        let disk = layer.as_ref().unwrap();
        match *action {
            Action::Write { offset, length, byte } => {
                let data: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                disk.write_at(&data, offset as u64).unwrap();
                expected[offset..offset + length].copy_from_slice(&data);
                possible.push(expected.clone());
            }
            Action::Zero { offset, length } => {
                disk.write_zeroes(offset as u64, length as u64, images::Zeroes::default()).unwrap();
                expected[offset..offset + length].fill(0);
                possible.push(expected.clone());
            }
            Action::Trim { offset, length } => {
                disk.trim(offset as u64, length as u64).unwrap();
                expected[offset..offset + length].fill(0);
                possible.push(expected.clone());
            }
            Action::Read { offset, length } => {
                let mut bytes = vec![0xaa; length];
                disk.read_at(&mut bytes, offset as u64).unwrap();
                assert!(bytes == expected[offset..offset + length], "read of {length} at {offset}");
            }
            Action::Flush => {
                disk.flush().unwrap();
                possible = vec![expected.clone()];
            }
            Action::Restart => {
                drop(layer.take());
                drop(store.take());
                let store = store.insert(layers(dir.path()));
                layer = Some(open(store, &base, mode, 1));
            }
            Action::PowerCut if mode == LayerMode::Persistent => {
                drop(layer.take());
                drop(store.take());
                forget_run(dir.path());
                let store = store.insert(layers(dir.path()));
                let disk = layer.insert(open(store, &base, mode, 1));
                let now = content(disk.as_ref());
                for (at, byte) in now.iter().enumerate() {
                    assert!(
                        possible.iter().any(|content| content[at] == *byte),
                        "byte {at} is neither old nor new after a power cut"
                    );
                }
                expected = now;
                possible = vec![expected.clone()];
            }
            Action::PowerCut => {}
        }
    }
    assert!(content(layer.unwrap().as_ref()) == expected);
    assert!(content(base.block.as_ref()) == original, "the base changed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_persistent_layer_behaves_like_a_disk(actions in proptest::collection::vec(action(), 1..40)) {
        behaves_like_a_disk(LayerMode::Persistent, &actions);
    }

    #[test]
    fn a_discard_layer_behaves_like_a_disk(actions in proptest::collection::vec(action(), 1..40)) {
        behaves_like_a_disk(LayerMode::Discard, &actions);
    }
}

#[test]
fn a_new_boot_begins_with_the_image_and_the_old_one_is_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let layers = layers(dir.path());
    let first = open(&layers, &base, LayerMode::Discard, 1);
    first.write_at(&[2; 100], 0).unwrap();
    assert!(!first.is_durable());
    let again = open(&layers, &base, LayerMode::Discard, 1);
    assert_eq!(content(again.as_ref())[0], 2, "the same boot keeps its writes");

    let second = open(&layers, &base, LayerMode::Discard, 2);
    assert_eq!(content(second.as_ref())[0], 1);
    let error = first.write_at(&[3; 100], 0).unwrap_err();
    assert!(error.to_string().contains("discarded by a new boot"), "{error}");
    assert!(first.read_at(&mut [0], 0).is_err() && first.flush().is_err());
    assert_eq!(content(second.as_ref())[0], 1);

    second.write_at(&[4; 100], 0).unwrap();
    layers.discard(&whose()).unwrap();
    assert!(second.write_at(&[4], 0).is_err());
    assert_eq!(content(open(&layers, &base, LayerMode::Discard, 2).as_ref())[0], 1);
}

#[test]
fn a_persistent_disk_outlives_boots_and_trying_out_discard_mode() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let layers = layers(dir.path());
    open(&layers, &base, LayerMode::Persistent, 1).write_at(&[2; 10], 0).unwrap();
    assert_eq!(content(open(&layers, &base, LayerMode::Discard, 2).as_ref())[0], 1);
    let disk = open(&layers, &base, LayerMode::Persistent, 3);
    assert_eq!(content(disk.as_ref())[0], 2);
    assert!(disk.is_durable() && disk.layer_bytes().unwrap() >= GRANULE as u64);
    layers.reset(&whose()).unwrap();
    assert!(disk.write_at(&[4], 0).is_err());
    assert_eq!(content(open(&layers, &base, LayerMode::Persistent, 4).as_ref())[0], 1);
}

#[test]
fn a_persistent_disk_is_not_put_on_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let old = base(vec![1; 8 * GRANULE]);
    let mut new = base(vec![5; 8 * GRANULE]);
    new.version.version = 2;
    let layers = layers(dir.path());
    open(&layers, &old, LayerMode::Persistent, 1).write_at(&[2; 10], 0).unwrap();
    let error = layers
        .open_or_create(&whose(), &new, LayerMode::Persistent, 2.into(), Expected::Perhaps)
        .err()
        .unwrap();
    assert!(matches!(error, LayerError::OtherParent { .. }));
    assert!(error.to_string().contains("debian-12/v1, not on debian-12/v2"), "{error}");
    // Another disk has the same number.
    new.version.version = 1;
    let error = layers
        .check(&whose(), &new, LayerMode::Persistent, 2.into(), Expected::There)
        .unwrap_err()
        .to_string();
    let digests = [&old, &new].map(|base| base.version.digest[..12].to_owned());
    assert!(error.contains("debian-12/v1 when that had other content"), "{error}");
    assert!(digests.iter().all(|digest| error.contains(digest)), "{error}");
    assert_eq!(content(open(&layers, &old, LayerMode::Persistent, 3).as_ref())[0], 2);

    open(&layers, &old, LayerMode::Discard, 4).write_at(&[2; 10], 0).unwrap();
    assert_eq!(content(open(&layers, &new, LayerMode::Discard, 4).as_ref())[0], 5);
}

#[test]
fn what_a_host_restart_lost_is_said_and_a_new_boot_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let store = layers(dir.path());
    drop(open(&store, &base, LayerMode::Discard, 7));
    drop(store);
    forget_run(dir.path());
    let store = layers(dir.path());
    let error = store
        .open_or_create(&whose(), &base, LayerMode::Discard, 7.into(), Expected::Perhaps)
        .err()
        .unwrap();
    assert!(matches!(error, LayerError::Lost { boot: 7, .. }), "{error}");
    assert!(error.to_string().contains("lab-07 must boot again"), "{error}");
    assert_eq!(content(open(&store, &base, LayerMode::Discard, 8).as_ref())[0], 1);
}

#[test]
fn damaged_files_of_a_persistent_disk_are_named() {
    let check = |file: &str, bytes: &[u8], expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let base = base(vec![1; 8 * GRANULE]);
        let store = layers(dir.path());
        let layer = open(&store, &base, LayerMode::Persistent, 1);
        layer.write_at(&[2; 10], 0).unwrap();
        layer.flush().unwrap();
        drop((layer, store));
        forget_run(dir.path());
        fs::write(dir.path().join("layers/lab-07").join(file), bytes).unwrap();
        let store = layers(dir.path());
        let error = store
            .open_or_create(&whose(), &base, LayerMode::Persistent, 2.into(), Expected::Perhaps)
            .err()
            .unwrap();
        assert!(error.to_string().contains("lab-07 is damaged"), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("layer.toml", b"format = 1", "it is not what was written there");
    check("layer.toml", b"\xff", "layer.toml");
    check("data", b"short", "it has 5 bytes instead of 32768");
    check("map", &[0; 8192], "not the map of a write layer");
    check("map", b"BLTL", "map");
}

#[test]
fn one_server_at_a_time_and_leftovers_go() {
    let dir = tempfile::tempdir().unwrap();
    let first = layers(dir.path());
    let error =
        Layers::open(&dir.path().join("layers"), &dir.path().join("run"), None).err().unwrap();
    assert!(error.to_string().contains("in use by another storage server"), "{error}");
    drop(first);
    fs::create_dir(dir.path().join("layers/.new-lab-07")).unwrap();
    fs::write(dir.path().join("layers/.new-lab-07/data"), "x").unwrap();
    let _second = layers(dir.path());
    assert!(!dir.path().join("layers/.new-lab-07").exists());
}

#[test]
fn out_of_range_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let size = 3 * GRANULE as u64 + 512;
    let base = base(vec![1; size as usize]);
    let layers = layers(dir.path());
    let layer = open(&layers, &base, LayerMode::Discard, 1);
    let refused = |result: io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    };
    for (offset, length) in [(size, 1), (size - 1, 2), (u64::MAX, 1), (u64::MAX - 5, 10)] {
        refused(layer.write_at(&vec![0; length], offset));
        refused(layer.read_at(&mut vec![0; length], offset));
        refused(layer.trim(offset, length as u64));
        refused(layer.write_zeroes(offset, length as u64, images::Zeroes::default()));
    }
    refused(layer.trim(1, u64::MAX));
    layer.write_at(&[], size).unwrap();
    assert_eq!(content(layer.as_ref()), vec![1; size as usize]);
}

#[test]
fn trimmed_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 4 << 20]);
    let layers = layers(dir.path());
    let layer = open(&layers, &base, LayerMode::Discard, 1);
    layer.write_at(&vec![9; 4 << 20], 0).unwrap();
    assert!(layer.layer_bytes().unwrap() >= 4 << 20);
    layer.trim(0, 4 << 20).unwrap();
    assert!(layer.layer_bytes().unwrap() < 64 << 10, "{}", layer.layer_bytes().unwrap());
    assert_eq!(content(layer.as_ref()), vec![0; 4 << 20]);
}

/// AoE at MTU 1500 sends a 4 KiB write as four frames; several threads may have them.
#[test]
fn threads_that_write_into_the_same_granules_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    const SECTORS: usize = 4096;
    let base = base(vec![0xee; SECTORS * 512]);
    let layers = layers(dir.path());
    let layer = open(&layers, &base, LayerMode::Persistent, 1);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let layer = &layer;
            scope.spawn(move || {
                // Every thread writes each eighth sector: all granules are fought for.
                for sector in (thread..SECTORS).step_by(8) {
                    layer.write_at(&[thread as u8; 512], sector as u64 * 512).unwrap();
                    if sector % 1024 < 8 {
                        layer.flush().unwrap();
                    }
                }
            });
        }
    });
    for (sector, bytes) in content(layer.as_ref()).chunks(512).enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == sector % 8), "sector {sector}");
    }
    layer.flush().unwrap();
    drop((layer, layers));
    forget_run(dir.path());
    let layers = self::layers(dir.path());
    let layer = open(&layers, &base, LayerMode::Persistent, 2);
    for (sector, bytes) in content(layer.as_ref()).chunks(512).enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == sector % 8), "sector {sector}");
    }
}

/// After a database was lost, or an older one was restored, boots have numbers that others had.
#[test]
fn a_boot_never_has_what_another_one_with_its_number_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let store = layers(dir.path());
    let boot = |byte: u8| {
        let identity = Some(model::BootIdentity::new([byte; 16]));
        ForBoot { number: 7, identity }
    };
    let first = |layers: &Layers, boot: ForBoot| {
        let layer = layers
            .open_or_create(&whose(), &base, LayerMode::Discard, boot, Expected::Perhaps)
            .unwrap();
        let first = content(layer.as_ref())[0];
        layer.write_at(&[9; 10], 0).unwrap();
        first
    };
    assert_eq!(first(&store, 7.into()), 1);
    assert_eq!(first(&store, boot(1)), 1, "an earlier Bootlace did not tell its boots apart");
    assert_eq!(first(&store, boot(1)), 9, "it is the same boot");
    drop(store);
    let store = layers(dir.path());
    assert_eq!(first(&store, boot(1)), 9, "this server has restarted");
    assert_eq!(first(&store, 7.into()), 9, "the boot server is an earlier one again");
    assert_eq!(first(&store, boot(2)), 1);
}

#[test]
fn a_layer_that_should_be_there_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let store = layers(dir.path());
    let refused = |store: &Layers, mode: LayerMode, boot: u64| {
        let opened = store.open_or_create(&whose(), &base, mode, boot.into(), Expected::There);
        opened.err().unwrap().to_string()
    };
    assert!(refused(&store, LayerMode::Discard, 7).contains("must boot again"));
    let error = refused(&store, LayerMode::Persistent, 7);
    assert!(
        error.contains("probably not mounted") && error.contains("machine reset lab-07"),
        "{error}"
    );
    let checked = store.check(&whose(), &base, LayerMode::Persistent, 7.into(), Expected::There);
    assert!(matches!(checked, Err(LayerError::Missing { .. })), "{checked:?}");
    // The layer of another boot is not thrown away for it.
    open(&store, &base, LayerMode::Discard, 8).write_at(&[2; 10], 0).unwrap();
    refused(&store, LayerMode::Discard, 7);
    assert_eq!(content(open(&store, &base, LayerMode::Discard, 8).as_ref())[0], 2);
}

#[test]
fn a_persistent_disk_of_which_a_part_is_missing_is_left_as_it_is() {
    for file in ["layer.toml", "data", "map"] {
        let dir = tempfile::tempdir().unwrap();
        let base = base(vec![1; 8 * GRANULE]);
        let store = layers(dir.path());
        drop(open(&store, &base, LayerMode::Persistent, 1));
        drop(store);
        forget_run(dir.path());
        let folder = dir.path().join("layers/lab-07");
        fs::remove_file(folder.join(file)).unwrap();
        let store = layers(dir.path());
        let opened = store.open_or_create(
            &whose(),
            &base,
            LayerMode::Persistent,
            2.into(),
            Expected::Perhaps,
        );
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(file) && error.contains("it is missing"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "the rest of it is there");
        assert_eq!(store.kept().unwrap(), [whose()]);
    }
}

#[test]
fn the_disk_of_another_machine_is_no_machine_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; 8 * GRANULE]);
    let store = layers(dir.path());
    drop(open(&store, &base, LayerMode::Persistent, 1));
    fs::rename(dir.path().join("layers/lab-07"), dir.path().join("layers/lab-08")).unwrap();
    let opened = store.open_or_create(
        &"lab-08".parse().unwrap(),
        &base,
        LayerMode::Persistent,
        2.into(),
        Expected::Perhaps,
    );
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("it is the disk of lab-07"), "{error}");
}

#[test]
fn what_is_not_ours_in_the_folder_stays() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("layers/.snapshots");
    fs::create_dir_all(&theirs).unwrap();
    fs::write(dir.path().join("layers/.new-note"), "a file").unwrap();
    let _store = layers(dir.path());
    assert!(theirs.exists() && dir.path().join("layers/.new-note").exists());
}
