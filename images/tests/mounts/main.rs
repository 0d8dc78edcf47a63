//! What an import takes is what Linux mounts.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod linux;

use common::system_files;
use disk::{Disk, KINDS, Random};
use images::{Block, Memory, Rootfs, find_volumes};
use linux::Mounts;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use tempfile::TempDir;

/// Changes for each kind of file system: those of every run, and with `RUN_SLOW_TESTS=1`.
const CHANGES: usize = 6;
const CHANGES_SLOW: usize = 150;

/// What the import says of it, if it is refused.
fn refusal(bytes: &[u8]) -> Option<String> {
    refusal_of(Arc::new(Memory::new(bytes.to_vec())))
}

fn refusal_of(disk: Arc<dyn Block>) -> Option<String> {
    let volume = match find_volumes(&disk) {
        Ok(volumes) => volumes.into_iter().next(),
        Err(error) => return Some(error.to_string()),
    };
    let Some(volume) = volume else { return Some("no file system".to_owned()) };
    let checked = Rootfs::open(disk, &volume).and_then(|rootfs| {
        rootfs.check_mounts()?;
        rootfs.list("/")
    });
    checked.err().map(|error| error.to_string())
}

/// A place of a file system.
enum At {
    Superblock(usize),
    /// Of the first group.
    Descriptor(usize),
    Inode(usize, usize),
    Journal(usize),
}

#[test]
fn what_linux_does_not_mount_is_refused_by_name() {
    use At::{Descriptor, Inode, Journal, Superblock};
    let dir = TempDir::new().unwrap();
    system_files(&dir.path().join("files"));
    let [plain, sums, old, ext3, orphans, _] = KINDS.map(|options| Disk::make(dir.path(), options));
    let check = |disk: &Disk, at: At, bytes: &[u8], expected: &str| {
        let place = match at {
            Superblock(at) => 1024 + at,
            Descriptor(at) => disk.descriptors + at,
            Inode(number, at) => disk.inode(number) + at,
            Journal(at) => disk.journal + at,
        };
        let mut changed = disk.bytes.clone();
        changed[place..place + bytes.len()].copy_from_slice(bytes);
        let said = refusal(&changed).unwrap_or_default();
        let is_expected = said.contains(expected) && said.is_empty() == expected.is_empty();
        assert!(is_expected, "expected {expected:?} of {bytes:02x?} in: {said}");
        assert!(said.contains("`") || expected.is_empty(), "nothing helps: {said}");
    };
    check(&old, Superblock(0x1c), &[0, 0, 0x40], "its clusters have an impossible size");
    check(&ext3, Superblock(0x1c), &[0x80], "its clusters have an impossible size");
    check(&ext3, Superblock(0x24), &[0, 0x20, 0x40], "its groups have an impossible size");
    check(&plain, Superblock(0x14), &[3], "lies where something else is");
    check(&plain, Superblock(0x54), &[2, 0], "its first inode for files is 2");
    check(&plain, Superblock(0x54), &[0xff; 4], "its first inode for files is 4294967295");
    check(&plain, Superblock(0x4c), &[2], "its revision is 2");
    check(&plain, Superblock(0x5d), &[0x10], "the inode of its file of orphans is not there (0)");
    let inside = "its file of orphans lies where something else is";
    check(&orphans.with_attributes_of_orphans(1), Superblock(0x38), &[0x53], inside);
    check(&ext3, Superblock(0x5c), &[0xff, 0xff, 0xff, 0x7f], "256 are for fast commits");
    check(&ext3, Superblock(0x64), &[2], "lies where something else is");
    check(&old, Superblock(0x64), &[0xff], "features with which Linux does not write to it");
    check(&old, Superblock(0x65), &[2], "it has bigalloc, and its first data block is not 0");
    check(&plain, Superblock(0x65), &[0x10], "tune2fs -O ^read-only");
    check(&old, Superblock(0xe4), &[1], "a journal inside and one on another disk");
    check(&plain, Superblock(0xe0), &[0], "its journal is on another disk");
    check(&plain, Superblock(0xfc), &[0xff], "hashes of no known kind, 255");
    check(&old, Superblock(0x15c), &[0x20, 0x80], "its inodes of 256 bytes are to have 32800 more");
    check(&plain, Superblock(0x15e), &[0xb3, 0x48], "are to have 18611 more");
    check(&plain, Superblock(0x174), &[0x24], "it puts 2^36 groups together");
    check(&sums, Superblock(0x175), &[2], "invalid superblock checksum");
    check(&plain, Descriptor(0), &[2, 0], "lies in the superblock or the descriptors of groups");
    check(&plain, Descriptor(4), &[2, 0], "lies in the superblock or the descriptors of groups");
    check(&plain, Descriptor(4), &[3, 0], "lies where something else is");
    for at in [0x36, 0x3a, 0x4a] {
        check(&ext3, Inode(8, at), &[0xff, 0xff], "a block of its journal lies outside");
    }
    check(&ext3, Inode(8, 0x5a), &[0xff, 0xff], "a block of its journal lies outside");
    check(&ext3, Inode(8, 0x58), &[0; 4], "its journal has a hole at its block 12");
    check(&old, Inode(8, 0x23), &[0x10], "its journal is in its inode and elsewhere");
    check(&old, Inode(8, 0x23), &[0x40], "its journal has casefold");
    check(&old, Inode(8, 0x2c), &[0xff], "its map has an impossible length");
    check(&old, Inode(8, 0x3a), &[0xff], "its map leads outside, or in circles");
    check(&old, Inode(8, 0x6f), &[0x7f], "its journal has an impossible size");
    check(&old, Inode(8, 0x80), &[0xff], "the inode of its journal has an impossible size");
    for at in [0x3a, 0x3e, 0x4e] {
        check(&ext3, Inode(2, at), &[0xff, 0xff], "a block of its root folder lies outside");
    }
    check(&plain, Inode(2, 0x1a), &[0; 2], "the inode of its root folder is a deleted one");
    check(&plain, Journal(0x14), &[9], "its journal is too short");
    check(&sums, Journal(0x1c), &[0x40], "its journal begins behind its end");
    check(&ext3, Journal(0x2c), &[1], "its journal has features");
    // What the kernel does not look at.
    check(&ext3, Superblock(0x150), &[3], "");
    check(&ext3, Journal(0x20), &[3], "");
}

/// A disk with a few other bytes.
struct Changed {
    bytes: Arc<Vec<u8>>,
    changes: Vec<(usize, u8)>,
}

impl Block for Changed {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let begin = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[begin..begin + buffer.len()]);
        for &(at, byte) in &self.changes {
            if let Some(place) = at.checked_sub(begin).and_then(|at| buffer.get_mut(at)) {
                *place = byte;
            }
        }
        Ok(())
    }
}

#[test]
fn no_change_panics() {
    let dir = TempDir::new().unwrap();
    system_files(&dir.path().join("files"));
    for options in KINDS {
        let disk = Disk::make(dir.path(), options);
        let places = [1024, disk.descriptors, disk.inode(2), disk.inode(8), disk.journal];
        let bytes = Arc::new(disk.bytes);
        let changes = prop::collection::vec((0..places.len(), 0..0x100usize, any::<u8>()), 1..4);
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = TestRunner::new(config);
        let ran = runner.run(&changes, |changes| {
            let changes = changes.into_iter().map(|(place, at, byte)| (places[place] + at, byte));
            let changed = Changed { bytes: Arc::clone(&bytes), changes: changes.collect() };
            let said = refusal_of(Arc::new(changed));
            prop_assert_ne!(said.as_deref(), Some(""));
            Ok(())
        });
        ran.unwrap();
    }
}

#[test]
fn what_is_taken_is_what_linux_mounts() {
    let dir = TempDir::new().unwrap();
    system_files(&dir.path().join("files"));
    let mounts = Mounts::new(dir.path());
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let is_slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
    let mut random = Random(seed);
    let (mut n_compared, mut wrong) = (0, Vec::new());
    // Kernels are built with them or not; those of distributions are.
    let with_quotas = Disk::make(dir.path(), &["-t", "ext4", "-O", "quota,project"]);
    let knows_quotas = mounts.mounts_both_ways(&with_quotas.bytes);
    for options in KINDS {
        let mut disk = Disk::make(dir.path(), options);
        assert_eq!(refusal(&disk.bytes), None, "{options:?}");
        if !mounts.mounts_both_ways(&disk.bytes) {
            let reason = "no loop device can be mounted: run as root";
            assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "{reason}");
            println!("skipped {options:?}: {reason}");
            continue;
        }
        let bytes = disk.bytes.clone();
        for _ in 0..if is_slow { CHANGES_SLOW } else { CHANGES } {
            disk.bytes.copy_from_slice(&bytes);
            let change = disk.change(&mut random);
            if disk.has_quotas() && !knows_quotas {
                continue;
            }
            let refusal = refusal(&disk.bytes);
            let mounts = mounts.mounts_both_ways(&disk.bytes);
            n_compared += 1;
            let is_on_purpose = |said: &String| change.is_refused_on_purpose(said);
            if mounts == refusal.is_some() && !refusal.as_ref().is_some_and(is_on_purpose) {
                let said = refusal.unwrap_or_else(|| "taken".to_owned());
                let line = format!("{options:?} {}: {said}", change.told);
                println!("{line}");
                wrong.push(line);
            }
        }
    }
    println!("{n_compared} changes were compared (SEED={seed})");
    assert!(wrong.is_empty(), "{} differ", wrong.len());
}
