//! The daemon is killed while machines write: nothing that was acknowledged is lost.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use common::{base, content};
use images::{Block, Expected, LayerMode, Layers};
use model::WriteMode;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: u64 = 16 << 20;
const SECTOR: u64 = 512;
/// Where the child finds its folder; set only there.
const DIR: &str = "BOOTLACE_TEST_KILL_DIR";
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

/// One after the other: a child of one would hold the lock of the other until it has executed.
#[test]
fn layers_survive_sigkill() {
    check(WriteMode::Discard);
    check(WriteMode::Persistent);
}
