//! Snapshots of persistent disks, as a machine and an administrator notice them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{base, content};
use images::{Base, Block, Expected, LayerError, LayerMode, Layers, Merged, WriteLayer};
use model::{DiskId, SnapshotKind};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const GRANULE: usize = 4096;
/// 2 stripes and a half, and a last granule that is not whole.
const SIZE: usize = 640 * GRANULE + 1536;

fn whose() -> DiskId {
    "lab-07".parse().unwrap()
}

fn layers(dir: &Path) -> Layers {
    Layers::open(&dir.join("layers"), &dir.join("run"), None).unwrap()
}

fn open(layers: &Layers, base: &Base, boot: u64) -> Arc<WriteLayer> {
    let mode = LayerMode::Persistent;
    layers.open_or_create(&whose(), base, mode, boot.into(), Expected::Perhaps).unwrap()
}

fn snapshot(layers: &Layers) -> Option<u32> {
    let made = layers.snapshot(&whose(), 7, SnapshotKind::Daily, None).unwrap();
    made.map(|snapshot| snapshot.number)
}

fn numbers(layers: &Layers) -> Vec<u32> {
    layers.snapshots(&whose()).unwrap().iter().map(|info| info.snapshot.number).collect()
}

fn held(layers: &Layers, base: &Base, number: u32) -> Vec<u8> {
    content(&layers.view(&whose(), number, base).unwrap())
}

/// All that can be done is.
fn tidy(layers: &Layers) {
    while layers.tidy(&whose(), &|_| true).unwrap() == Merged::Done {}
}

fn n_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir.join("layers/lab-07")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("data")).count()
}

#[derive(Clone, Debug)]
enum Action {
    Write {
        offset: usize,
        length: usize,
        byte: u8,
    },
    Trim {
        offset: usize,
        length: usize,
    },
    Flush,
    Snapshot,
    /// Of those that there are, this one.
    Remove(usize),
    /// Copies so many pieces, and stops then.
    Tidy(usize),
    /// The machine boots, and goes back.
    RollBack(usize),
    /// The daemon dies and starts again.
    Restart,
    /// Everything that is not durable is gone.
    PowerCut,
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    let length = prop_oneof![0..200usize, 0..3 * GRANULE, 0..300 * GRANULE];
    let aligned = (0..=SIZE / GRANULE, 0..40usize)
        .prop_map(|(granule, count)| (granule * GRANULE, count * GRANULE));
    prop_oneof![3 => (0..=SIZE, length), 2 => aligned]
        .prop_map(|(offset, length)| (offset, length.min(SIZE - offset)))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (range(), 1..=255u8)
            .prop_map(|((offset, length), byte)| Action::Write { offset, length, byte }),
        3 => range().prop_map(|(offset, length)| Action::Trim { offset, length }),
        1 => Just(Action::Flush),
        5 => Just(Action::Snapshot),
        3 => (0..8usize).prop_map(Action::Remove),
        4 => (0..6usize).prop_map(Action::Tidy),
        2 => (0..8usize).prop_map(Action::RollBack),
        1 => Just(Action::Restart),
        1 => Just(Action::PowerCut),
    ]
}

fn behaves(actions: &[Action]) {
    let dir = tempfile::tempdir().unwrap();
    let original: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8).collect();
    let base = base(original.clone());
    let mut now = original.clone();
    let mut kept = BTreeMap::<u32, Vec<u8>>::new();
    let mut boot = 1;
    let mut store = Some(layers(dir.path()));
    let mut disk = Some(open(store.as_ref().unwrap(), &base, boot));
    for action in actions {
        let (layers_now, layer) = (store.as_ref().unwrap(), disk.as_ref().unwrap());
        let chosen = |index: usize| {
            let all: Vec<u32> = kept.keys().copied().collect();
            (!all.is_empty()).then(|| all[index % all.len()])
        };
        match *action {
            Action::Write { offset, length, byte } => {
                let data: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                layer.write_at(&data, offset as u64).unwrap();
                now[offset..offset + length].copy_from_slice(&data);
            }
            Action::Trim { offset, length } => {
                layer.trim(offset as u64, length as u64).unwrap();
                now[offset..offset + length].fill(0);
            }
            Action::Flush => layer.flush().unwrap(),
            Action::Snapshot => {
                if let Some(number) = snapshot(layers_now) {
                    assert!(kept.insert(number, now.clone()).is_none(), "a number came twice");
                }
            }
            Action::Remove(index) => {
                let Some(number) = chosen(index) else { continue };
                layers_now.remove_snapshot(&whose(), number).unwrap();
                kept.remove(&number);
            }
            Action::Tidy(n_pieces) => {
                let left = std::cell::Cell::new(n_pieces);
                let pace = |_| {
                    left.set(left.get().saturating_sub(1));
                    left.get() > 0
                };
                layers_now.tidy(&whose(), &pace).unwrap();
            }
            Action::RollBack(index) => {
                let Some(number) = chosen(index) else { continue };
                layers_now.ask_roll_back(&whose(), number, boot).unwrap();
                assert_eq!(layers_now.roll_back_for(&whose(), boot, 8).unwrap(), None);
                boot += 1;
                let gone_back = layers_now.roll_back_for(&whose(), boot, 8).unwrap();
                assert_eq!(gone_back, Some(number));
                assert!(layer.read_at(&mut [0], 0).is_err(), "it goes on with the former disk");
                let before = numbers(layers_now).into_iter().max().unwrap();
                kept.entry(before).or_insert_with(|| now.clone());
                now = kept[&number].clone();
                disk = Some(open(layers_now, &base, boot));
            }
            Action::Restart | Action::PowerCut => {
                if matches!(action, Action::PowerCut) {
                    layer.flush().unwrap();
                }
                drop(disk.take());
                drop(store.take());
                if matches!(action, Action::PowerCut) {
                    fs::remove_dir_all(dir.path().join("run")).unwrap();
                }
                let store = store.insert(layers(dir.path()));
                disk = Some(open(store, &base, boot));
            }
        }
        let (store, disk) = (store.as_ref().unwrap(), disk.as_ref().unwrap());
        assert!(content(disk.as_ref()) == now, "the disk differs after {action:?}");
        assert_eq!(numbers(store), kept.keys().copied().collect::<Vec<_>>());
        for (number, expected) in &kept {
            assert!(held(store, &base, *number) == *expected, "{number} after {action:?}");
        }
    }
    let store = store.unwrap();
    tidy(&store);
    assert!(content(disk.unwrap().as_ref()) == now);
    for (number, expected) in &kept {
        assert!(held(&store, &base, *number) == *expected, "{number} differs in the end");
    }
    assert!(content(base.block.as_ref()) == original, "the base changed");
    for number in kept.keys() {
        store.remove_snapshot(&whose(), *number).unwrap();
    }
    tidy(&store);
    assert_eq!(n_files(dir.path()), 1, "nothing is left of snapshots");
    drop(store);
    let store = layers(dir.path());
    assert!(content(open(&store, &base, boot).as_ref()) == now);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_with_snapshots_behaves_like_one(actions in proptest::collection::vec(action(), 1..40)) {
        behaves(&actions);
    }
}

#[test]
fn who_writes_nothing_gets_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; SIZE]);
    let store = layers(dir.path());
    let refused = store.snapshot(&whose(), 7, SnapshotKind::Asked, None).unwrap_err();
    assert!(matches!(refused, LayerError::NoDisk(_)), "{refused}");
    let disk = open(&store, &base, 1);
    assert_eq!(snapshot(&store), None);
    disk.write_at(&[2], 0).unwrap();
    assert_eq!(snapshot(&store), Some(1));
    assert_eq!(snapshot(&store), None);
    disk.trim(0, 4096).unwrap();
    assert_eq!(snapshot(&store), Some(2));
    // Nobody has it open.
    disk.write_at(&[3], 9).unwrap();
    drop((disk, store));
    let store = layers(dir.path());
    assert_eq!(snapshot(&store), Some(3));
    assert_eq!(snapshot(&store), None);
    assert_eq!(held(&store, &base, 3)[9], 3);
    let refused = store.remove_snapshot(&whose(), 4).unwrap_err().to_string();
    assert!(
        refused.contains("no snapshot 4") && refused.contains("machine snapshots"),
        "{refused}"
    );
}

#[test]
fn a_rollback_waits_for_another_boot_and_can_be_withdrawn_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; SIZE]);
    let store = layers(dir.path());
    let disk = open(&store, &base, 4);
    disk.write_at(&[2], 0).unwrap();
    snapshot(&store);
    disk.write_at(&[3], 0).unwrap();
    store.ask_roll_back(&whose(), 1, 4).unwrap();
    assert!(store.snapshots(&whose()).unwrap()[0].is_next);
    assert_eq!(store.roll_back_for(&whose(), 4, 8).unwrap(), None, "it runs in this boot");
    assert!(store.withdraw_roll_back(&whose()).unwrap());
    assert!(!store.withdraw_roll_back(&whose()).unwrap());
    assert_eq!(store.roll_back_for(&whose(), 5, 8).unwrap(), None);
    store.ask_roll_back(&whose(), 1, 4).unwrap();
    assert_eq!(store.roll_back_for(&whose(), 5, 8).unwrap(), Some(1));
    assert!(disk.write_at(&[9], 0).is_err());
    assert_eq!(content(open(&store, &base, 5).as_ref())[0], 2);
    let kinds: Vec<_> = store.snapshots(&whose()).unwrap();
    assert_eq!(kinds[1].snapshot.kind, SnapshotKind::BeforeRollback);
    store.ask_roll_back(&whose(), 2, 5).unwrap();
    assert_eq!(store.roll_back_for(&whose(), 6, 9).unwrap(), Some(2));
    assert_eq!(content(open(&store, &base, 6).as_ref())[0], 3);
    assert_eq!(numbers(&store), [1, 2], "nothing was written since the rollback");
}

/// An earlier Bootlace would take the oldest files for all: it must see that it does not know the format.
#[test]
fn a_disk_with_snapshots_says_that_it_is_of_another_format() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; SIZE]);
    let store = layers(dir.path());
    let disk = open(&store, &base, 1);
    let about = || fs::read_to_string(dir.path().join("layers/lab-07/layer.toml")).unwrap();
    assert!(about().starts_with("format = 1\n") && !about().contains("tree"));
    disk.write_at(&[2], 0).unwrap();
    snapshot(&store);
    assert!(about().starts_with("format = 2\n"), "{}", about());
}

#[test]
fn what_is_damaged_below_is_named() {
    for (name, bytes) in [("data", &b"short"[..]), ("map.1", b"BLTL"), ("data.1", b"")] {
        let dir = tempfile::tempdir().unwrap();
        let base = base(vec![1; SIZE]);
        let store = layers(dir.path());
        let disk = open(&store, &base, 1);
        for byte in 2..4 {
            disk.write_at(&[byte], 0).unwrap();
            snapshot(&store);
        }
        store.check_files(&whose()).unwrap();
        fs::write(dir.path().join("layers/lab-07").join(name), bytes).unwrap();
        assert!(store.check_files(&whose()).is_err(), "{name}");
        drop((disk, store));
        let store = layers(dir.path());
        let opened =
            store.open_or_create(&whose(), &base, LayerMode::Persistent, 2.into(), Expected::There);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("lab-07 is damaged") && error.contains(name), "{error}");
    }
}

#[test]
fn what_a_broken_off_snapshot_left_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![1; SIZE]);
    let store = layers(dir.path());
    open(&store, &base, 1).write_at(&[2], 0).unwrap();
    drop(store);
    let folder = dir.path().join("layers/lab-07");
    for name in ["data.1", "map.1", "data.x", "mine.1"] {
        fs::write(folder.join(name), "left over").unwrap();
    }
    let store = layers(dir.path());
    let is_there = |name: &str| folder.join(name).exists();
    assert!(!is_there("data.1") && !is_there("map.1") && is_there("data.x") && is_there("mine.1"));
    assert_eq!(snapshot(&store), Some(1));
}

/// Four threads write, one makes snapshots, one deletes and merges: each thread finds what it wrote, and each snapshot what was
/// there when it was made.
#[test]
fn a_machine_writes_while_snapshots_come_and_go() {
    const THREADS: usize = 4;
    const EACH: usize = 160 * GRANULE;
    let dir = tempfile::tempdir().unwrap();
    let base = base(vec![0; THREADS * EACH]);
    let store = layers(dir.path());
    let disk = open(&store, &base, 1);
    let (is_over, n_merged) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (disk, is_over) = (&disk, &is_over);
                scope.spawn(move || {
                    let mut expected = vec![0; EACH];
                    for round in 1u64.. {
                        if is_over.load(Ordering::Acquire) {
                            break;
                        }
                        // Parts of granules, too.
                        let spread = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 13;
                        let offset = spread as usize % (EACH - 6000) / 512 * 512;
                        let length = 512 + spread as usize % 11 * 512;
                        let length = length.min(EACH - offset);
                        let data = round.to_le_bytes().repeat(length / 8);
                        disk.write_at(&data, (thread * EACH + offset) as u64).unwrap();
                        expected[offset..offset + data.len()].copy_from_slice(&data);
                        let mut found = vec![0; length];
                        disk.read_at(&mut found, (thread * EACH + offset) as u64).unwrap();
                        assert!(found == data, "thread {thread} in round {round}");
                        if round % 200 == 0 {
                            disk.flush().unwrap();
                        }
                    }
                    expected
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let done = store.tidy(&whose(), &|_| true).unwrap();
                n_merged.fetch_add(usize::from(done == Merged::Done), Ordering::AcqRel);
                // Somebody looks, which ends a merge.
                if let Some(last) = numbers(&store).last()
                    && let Ok(view) = store.view(&whose(), *last, &base)
                {
                    assert_eq!(view.size_bytes(), (THREADS * EACH) as u64);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut n_made = 0;
        while n_made < 12 || n_merged.load(Ordering::Acquire) < 4 {
            n_made += usize::from(snapshot(&store).is_some());
            for number in numbers(&store).iter().rev().skip(5).rev() {
                store.remove_snapshot(&whose(), *number).unwrap();
            }
        }
        is_over.store(true, Ordering::Release);
        let expected: Vec<u8> =
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        assert!(content(disk.as_ref()) == expected);
    });
    let expected = content(disk.as_ref());
    tidy(&store);
    assert!(content(disk.as_ref()) == expected);
}
