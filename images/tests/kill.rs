//! The daemon is killed while machines write: nothing that was acknowledged is lost.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{base, content};
use images::{Block, Expected, LayerError, LayerMode, Layers, Merged};
use model::{SnapshotKind, WriteMode};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: u64 = 16 << 20;
const SECTOR: u64 = 512;
/// Where the child finds its folder; set only there.
const DIR: &str = "BOOTLACE_TEST_KILL_DIR";
const SNAPSHOTS_DIR: &str = "BOOTLACE_TEST_SNAPSHOTS_DIR";
const MODE: &str = "BOOTLACE_TEST_KILL_MODE";

fn open(dir: &Path, mode: WriteMode) -> (Layers, std::sync::Arc<images::WriteLayer>) {
    let layers = Layers::open(&dir.join("layers"), &dir.join("run"), None).unwrap();
    let base = base(vec![0xee; SIZE as usize]);
    let mode = LayerMode::of(mode).unwrap();
    let layer = layers
        .open_or_create(&"lab-07".parse().unwrap(), &base, mode, 1.into(), Expected::Perhaps)
        .unwrap();
    (layers, layer)
}

/// What write number `number` puts where.
fn write(number: u64) -> (u64, Vec<u8>) {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n_sectors = 1 + (spread >> 60);
    let offset = (spread >> 20) % (SIZE / SECTOR - n_sectors) * SECTOR;
    (offset, number.to_le_bytes().repeat((n_sectors * SECTOR / 8) as usize))
}

/// Not a test of its own: the child of the next one, which writes until it is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mode = std::env::var(MODE).unwrap().parse().unwrap();
    let (_layers, layer) = open(Path::new(&dir), mode);
    let mut acknowledge = std::io::stderr();
    let start: u64 = 1 + u64::from(std::process::id()) * 1_000_000;
    for number in start.. {
        let (offset, data) = write(number);
        layer.write_at(&data, offset).unwrap();
        acknowledge.write_all(&number.to_le_bytes()).unwrap();
        if number % 50 == 0 {
            layer.flush().unwrap();
        }
    }
}

fn check(mode: WriteMode) {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = vec![0xee; SIZE as usize];
    let mut n_acknowledged = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .env(MODE, mode.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        std::thread::sleep(Duration::from_millis(150 + 70 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reader.join().unwrap();
        let mut last = None;
        for number in acknowledged.as_chunks::<8>().0 {
            let number = u64::from_le_bytes(*number);
            let (offset, data) = write(number);
            expected[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
            last = Some(number);
            n_acknowledged += 1;
        }

        let (_layers, layer) = open(dir.path(), mode);
        let found = content(layer.as_ref());
        // One write may have been done and not acknowledged any more.
        let unsure = last.map(|last| write(last + 1)).unwrap_or_default();
        let unsure = unsure.0..unsure.0 + unsure.1.len() as u64;
        let mut wrong = HashMap::new();
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if found != expected && !unsure.contains(&(at as u64)) {
                *wrong.entry(at as u64 / SECTOR).or_insert(0) += 1;
            }
        }
        assert!(wrong.is_empty(), "{mode}: {} sectors lost in round {round}", wrong.len());
        expected = found;
    }
    assert!(n_acknowledged > 100, "only {n_acknowledged} writes");
    println!("{mode}: {n_acknowledged} acknowledged writes are there after 4 kills");
}

/// What the child of the next test tells, each with a number.
const WROTE: u64 = 1;
const SNAPSHOT: u64 = 2;
/// It is about to delete it.
const REMOVES: u64 = 3;

/// Not a test of its own: the child of the next one, which writes, makes snapshots, deletes and merges them until it is killed.
#[test]
fn child_with_snapshots_that_is_killed() {
    let Some(dir) = std::env::var_os(SNAPSHOTS_DIR) else { return };
    let (layers, layer) = open(Path::new(&dir), WriteMode::Persistent);
    let machine = "lab-07".parse().unwrap();
    let tell = |what: u64, number: u64| {
        let bytes = [what.to_le_bytes(), number.to_le_bytes()].concat();
        std::io::stderr().write_all(&bytes).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                layers.tidy(&machine, &|_| true).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let start: u64 = 1 + u64::from(std::process::id()) * 1_000_000;
        for number in start.. {
            let (offset, data) = write(number);
            layer.write_at(&data, offset).unwrap();
            tell(WROTE, number);
            if number % 30 != 0 {
                continue;
            }
            let made = loop {
                match layers.snapshot(&machine, 7, SnapshotKind::Daily, None) {
                    // They are made faster here than merges bring places back.
                    Err(LayerError::TooManySnapshots { .. }) => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    made => break made.unwrap(),
                }
            };
            tell(SNAPSHOT, u64::from(made.unwrap().number));
            let all = layers.snapshots(&machine).unwrap();
            if all.len() > 4 {
                // Not always the oldest.
                let number = all[number as usize / 30 % 4].snapshot.number;
                tell(REMOVES, u64::from(number));
                layers.remove_snapshot(&machine, number).unwrap();
            }
        }
    });
}

/// As many kills as the environment says, or a few.
#[test]
fn snapshots_survive_sigkill() {
    let n_kills = std::env::var("BOOTLACE_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let machine = "lab-07".parse().unwrap();
    let mut expected = vec![0xee; SIZE as usize];
    let mut snapshots = BTreeMap::<u32, Vec<u8>>::new();
    let (mut n_writes, mut n_snapshots, mut n_merged) = (0, 0, 0);
    for round in 0..n_kills.unwrap_or(6u64) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_with_snapshots_that_is_killed", "--nocapture"])
            .env(SNAPSHOTS_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        std::thread::sleep(Duration::from_millis(70 + round * 7919 % 331));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = reader.join().unwrap();
        let mut last = None;
        for pair in told.as_chunks::<16>().0 {
            let number = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().unwrap());
            match (number(0), number(8)) {
                (WROTE, number) => {
                    let (offset, data) = write(number);
                    expected[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
                    last = Some(number);
                    n_writes += 1;
                }
                (SNAPSHOT, number) => {
                    snapshots.insert(number as u32, expected.clone());
                    n_snapshots += 1;
                }
                (REMOVES, number) => drop(snapshots.remove(&(number as u32))),
                _ => panic!("round {round}: {}", String::from_utf8_lossy(&told)),
            }
        }
        let (layers, layer) = open(dir.path(), WriteMode::Persistent);
        let base = base(vec![0xee; SIZE as usize]);
        let found = content(layer.as_ref());
        let unsure = last.map(|last| write(last + 1)).unwrap_or_default();
        let unsure = unsure.0 as usize..unsure.0 as usize + unsure.1.len();
        let is_lost = |at: &usize| found[*at] != expected[*at] && !unsure.contains(at);
        assert_eq!((0..SIZE as usize).find(is_lost), None, "a byte is lost in round {round}");
        expected = found;
        let check = |when: &str| {
            for (number, held) in &snapshots {
                let view = layers.view(&machine, *number, &base).unwrap();
                assert!(content(&view) == *held, "snapshot {number} in round {round} {when}");
            }
            assert!(content(layer.as_ref()) == expected, "the disk in round {round} {when}");
        };
        check("before a merge");
        // One that was made and not told of any more.
        let all = layers.snapshots(&machine).unwrap();
        let untold = all.iter().filter(|info| !snapshots.contains_key(&info.snapshot.number));
        for info in untold {
            layers.remove_snapshot(&machine, info.snapshot.number).unwrap();
        }
        while layers.tidy(&machine, &|_| true).unwrap() == Merged::Done {
            n_merged += 1;
        }
        check("after a merge");
    }
    println!("{n_writes} writes, {n_snapshots} snapshots, {n_merged} merges that were begun again");
    assert!(n_writes > 100 && n_snapshots > 3, "{n_writes} writes, {n_snapshots} snapshots");
}

/// One after the other: a child of one would hold the lock of the other until it has executed.
#[test]
fn layers_survive_sigkill() {
    check(WriteMode::Discard);
    check(WriteMode::Persistent);
}
