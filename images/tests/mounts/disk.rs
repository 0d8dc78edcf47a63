//! File systems, and changes to them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use crate::common::run;
use crc::{CRC_32_ISCSI, Crc};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Options of mke2fs.
pub(crate) const KINDS: [&[&str]; 6] = [
    &["-t", "ext4", "-O", "^metadata_csum"],
    &["-t", "ext4"],
    &["-t", "ext4", "-O", "^metadata_csum,^flex_bg,uninit_bg", "-b", "1024"],
    &["-t", "ext3", "-O", "^metadata_csum,^resize_inode"],
    &["-t", "ext4", "-b", "4096", "-O", "orphan_file,metadata_csum_seed,fast_commit"],
    &["-t", "ext4", "-I", "128", "-O", "bigalloc,^metadata_csum,sparse_super2"],
];

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(before.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

/// Numbers that look random and are the same in each run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// A file system, and where its structures are.
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: usize,
    descriptor_bytes: usize,
    inodes: usize,
    inode_bytes: usize,
    pub(crate) journal: usize,
}

impl Disk {
    pub(crate) fn make(folder: &Path, options: &[&str]) -> Self {
        let path = folder.join("made.raw");
        let _ = fs::remove_file(&path);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F"]).args(options).arg("-d").arg(folder.join("files"));
        run(mke2fs.arg(&path).arg("24M"));
        let told = Command::new("debugfs").args(["-R", "blocks <8>"]).arg(&path).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let journal: usize = told.split_whitespace().next().unwrap().parse().unwrap();
        let mut disk = Self {
            bytes: fs::read(&path).unwrap(),
            descriptors: 0,
            descriptor_bytes: 32,
            inodes: 0,
            inode_bytes: 0,
            journal: 0,
        };
        let block_bytes = 1024 << disk.u32_at(1024 + 0x18);
        disk.descriptors = (1024 / block_bytes + 1) * block_bytes;
        if disk.u32_at(1024 + 0x60) & 0x80 != 0 {
            disk.descriptor_bytes = disk.u16_at(1024 + 0xfe).into();
        }
        disk.inodes = disk.u32_at(disk.descriptors + 8) as usize * block_bytes;
        disk.inode_bytes = disk.u16_at(1024 + 0x58).into();
        disk.journal = journal * block_bytes;
        disk
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn inode(&self, number: usize) -> usize {
        self.inodes + (number - 1) * self.inode_bytes
    }

    /// Whether it has the feature quota, or project.
    pub(crate) fn has_quotas(&self) -> bool {
        self.u32_at(1024 + 0x64) & 0x2100 != 0
    }

    /// The same, but the attributes of its file of orphans are in this block.
    pub(crate) fn with_attributes_of_orphans(mut self, block: u8) -> Self {
        let at = self.inode(self.u32_at(1024 + 0x280) as usize) + 0x68;
        self.bytes[at] = block;
        self.correct_checksums();
        self
    }

    /// Changes one field; returns which, and where bytes differ now.
    pub(crate) fn change(&mut self, random: &mut Random) -> Change {
        let (what, begin, field, length) = match random.below(10) {
            0..=3 => {
                let field = SUPERBLOCK_FIELDS[random.below(SUPERBLOCK_FIELDS.len())];
                ("superblock", 1024, field.0, field.1)
            }
            4 => {
                let group = random.below(2) * self.descriptor_bytes;
                let field = random.below(self.descriptor_bytes / 2) * 2;
                ("descriptor", self.descriptors + group, field, 2)
            }
            5 | 6 => ("journal", self.journal, random.below(0x60 / 4) * 4, 4),
            n => {
                let (what, number) = match n {
                    7 => ("root inode", 2),
                    8 => ("journal inode", 8),
                    _ if self.u32_at(1024 + 0x280) != 0 => {
                        ("orphan inode", self.u32_at(1024 + 0x280))
                    }
                    _ => ("journal inode", 8),
                };
                let field = random.below(0x90.min(self.inode_bytes) / 2) * 2;
                (what, self.inode(number as usize), field, 2)
            }
        };
        let at = begin + field;
        let old = self.bytes[at..at + length].to_vec();
        match random.below(3) {
            0 => {
                let values = [0, 1, 2, 3, 0xff, 0x7fff_ffff, 0xffff_ffff, random.next()];
                let value = values[random.below(values.len())].to_le_bytes();
                self.bytes[at..at + length].copy_from_slice(&value[..length]);
            }
            1 => {
                let add = u8::try_from(random.below(5)).unwrap();
                self.bytes[at] = self.bytes[at].wrapping_add(add).wrapping_sub(2);
            }
            _ => self.bytes[at + random.below(length)] ^= 1 << random.below(8),
        }
        let new = &self.bytes[at..at + length];
        let told = format!("{what} {field:#x} {old:02x?} -> {new:02x?}");
        if random.below(4) > 0 {
            self.correct_checksums();
        }
        Change { told, what }
    }

    /// So that more than the checksum is looked at.
    fn correct_checksums(&mut self) {
        if self.u32_at(1024 + 0x64) & 0x400 == 0 {
            return;
        }
        let seed = match self.u32_at(1024 + 0x60) & 0x2000 {
            0 => crc32c(!0, &self.bytes[1024 + 0x68..1024 + 0x78]),
            _ => self.u32_at(1024 + 0x270),
        };
        for group in 0..2 {
            let at = self.descriptors + group * self.descriptor_bytes;
            self.bytes[at + 0x1e..at + 0x20].fill(0);
            let begun = crc32c(seed, &u32::try_from(group).unwrap().to_le_bytes());
            let sum = crc32c(begun, &self.bytes[at..at + self.descriptor_bytes]);
            self.bytes[at + 0x1e..at + 0x20].copy_from_slice(&sum.to_le_bytes()[..2]);
        }
        for number in [2, 8, self.u32_at(1024 + 0x280)] {
            if !(1..100).contains(&number) {
                continue;
            }
            let at = self.inode(number as usize);
            self.bytes[at + 0x7c..at + 0x7e].fill(0);
            self.bytes[at + 0x82..at + 0x84].fill(0);
            let begun = crc32c(seed, &number.to_le_bytes());
            let begun = crc32c(begun, &self.bytes[at + 0x64..at + 0x68]);
            let sum = crc32c(begun, &self.bytes[at..at + self.inode_bytes]).to_le_bytes();
            self.bytes[at + 0x7c..at + 0x7e].copy_from_slice(&sum[..2]);
            self.bytes[at + 0x82..at + 0x84].copy_from_slice(&sum[2..]);
        }
        let sum = crc32c(!0, &self.bytes[1024..1024 + 0x3fc]);
        self.bytes[1024 + 0x3fc..1024 + 0x400].copy_from_slice(&sum.to_le_bytes());
    }
}

pub(crate) struct Change {
    pub(crate) told: String,
    what: &'static str,
}

impl Change {
    /// Where the import is stricter than Linux, and why.
    pub(crate) fn is_refused_on_purpose(&self, refusal: &str) -> bool {
        // Of features that Bootlace can't read it names the feature.
        let cannot_be_read = refusal.contains("that Bootlace can't read");
        // Linux mounts it, and writes no more as soon as it comes to the hole.
        let has_a_hole = refusal.contains("its journal has a hole");
        // Linux mounts it, minutes later.
        let is_slow = refusal.contains("its journal has an impossible size");
        // Linux mounts it, and reports an error each time that it looks at the folder.
        let is_root_damaged =
            self.what == "root inode" && refusal.contains("can't read / in the image");
        // Linux sees it only if the one that comes later begins in the other.
        let overlaps = refusal.contains("lies where something else is");
        overlaps || cannot_be_read || has_a_hole || is_slow || is_root_damaged
    }
}

/// Fields of the superblock, and how long they are; no times, names, and counts of what is free.
const SUPERBLOCK_FIELDS: [(usize, usize); 56] = [
    (0x0, 4),
    (0x4, 4),
    (0x8, 4),
    (0xc, 4),
    (0x10, 4),
    (0x14, 4),
    (0x18, 4),
    (0x1c, 4),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x34, 2),
    (0x36, 2),
    (0x38, 2),
    (0x3a, 2),
    (0x3c, 2),
    (0x3e, 2),
    (0x48, 4),
    (0x4c, 4),
    (0x54, 4),
    (0x58, 2),
    (0x5a, 2),
    (0x5c, 4),
    (0x60, 4),
    (0x64, 4),
    (0xcc, 2),
    (0xce, 2),
    (0xe0, 4),
    (0xe4, 4),
    (0xe8, 4),
    (0xfc, 1),
    (0xfd, 1),
    (0xfe, 2),
    (0x100, 4),
    (0x104, 4),
    (0x10c, 4),
    (0x14c, 4),
    (0x150, 4),
    (0x154, 4),
    (0x158, 4),
    (0x15c, 2),
    (0x15e, 2),
    (0x160, 4),
    (0x164, 2),
    (0x166, 2),
    (0x170, 4),
    (0x174, 1),
    (0x175, 1),
    (0x176, 1),
    (0x240, 4),
    (0x24c, 4),
    (0x250, 4),
    (0x254, 4),
    (0x26c, 4),
    (0x270, 4),
    (0x280, 4),
];
