//! The superblock of ext2, ext3 and ext4: what their reader can't tell, and what it can't read.

mod mounts;

pub(crate) use mounts::{
    Kind, Node, NotMounted, Times, Visit, check as check_mounts, crc32c, is_power_of_3_5_or_7,
    of_descriptor, u16_of, u32_of, walk,
};

/// Where the superblock begins, from the file system's start, and how long it is.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;

/// `metadata_csum`, among the features without which one may still read: byte of the superblock, and bit.
pub(crate) const CHECKSUMS: (usize, u8) = (0x65, 0x04);
/// An inode that is smaller has room for the lower half of its checksum only.
const INODE_BYTES_CHECKED: u16 = 256;

/// mke2fs makes no smaller groups; a file system of smaller ones would be a table of groups, gigabytes long.
const BLOCKS_PER_GROUP_MIN: u32 = 256;

/// In `s_state`; `s_error_count` says the same since Linux 2.6.36. e2fsck takes both back.
const STATE_ERRORS: u16 = 2;

const FILETYPE: u32 = 0x2;
const RECOVER: u32 = 0x4;
const HAS_64BIT: u32 = 0x80;

/// Features that the reader has to know and does not, by the names of mke2fs.
const NOT_READ: [(u32, &str); 9] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x100, "mmp"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x2_0000, "casefold"),
];
/// Those that it knows: filetype, needs_recovery, extent, 64bit, flex_bg, metadata_csum_seed, encrypt.
const READ: u32 = 0x2 | 0x4 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x1_0000;
/// tune2fs(8) can take these off again.
const REMOVABLE: [&str; 2] = ["mmp", "casefold"];

/// In the place of a name.
const NEWER: &str = "features that are newer than this program";

/// What a superblock says about its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Bytes of the whole file system.
    pub(crate) size_bytes: u64,
    /// Names of the features that can't be read.
    pub(crate) not_read: Vec<&'static str>,
    /// It was not unmounted, and what its journal holds is not in its place.
    pub(crate) needs_recovery: bool,
    /// Linux has met errors in it, and nobody has repaired them since.
    pub(crate) has_errors: bool,
    /// How many files and folders it has room for.
    pub(crate) n_inodes: u32,
    /// Bytes, and the bits of them, that the reader takes for what they are not.
    pub(crate) hidden: Vec<(usize, u8)>,
}

impl Superblock {
    /// Reads a superblock; `None` if it is none. Never panics.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SUPERBLOCK_BYTES] = bytes.get(..SUPERBLOCK_BYTES)?.try_into().ok()?;
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        if u16_at(0x38) != 0xef53 || u32_at(0x20) < BLOCKS_PER_GROUP_MIN {
            return None;
        }
        let features = u32_at(0x60);
        let high = if features & HAS_64BIT == 0 { 0 } else { u32_at(0x150) };
        let n_blocks = u64::from(high) << 32 | u64::from(u32_at(0x4));
        // The kernel takes blocks of 1 to 64 KiB.
        let block_bytes = 1024_u64.checked_shl(u32_at(0x18)).filter(|&bytes| bytes <= 64 << 10)?;
        let mut not_read: Vec<&str> = NOT_READ
            .iter()
            .filter(|&&(bit, _)| features & bit != 0)
            .map(|&(_, name)| name)
            .collect();
        let known = NOT_READ.iter().fold(READ, |known, (bit, _)| known | bit);
        if features & !known != 0 {
            not_read.push(NEWER);
        }
        if features & FILETYPE == 0 {
            not_read.push("no filetype");
        }
        let mut hidden = Vec::new();
        if bytes[CHECKSUMS.0] & CHECKSUMS.1 != 0 && u16_at(0x58) < INODE_BYTES_CHECKED {
            // The reader refuses file systems with checksums whose inodes are too small for the upper half of theirs
            // (mke2fs made them for small partitions until 2021). Without this feature it reads them, unchecked.
            hidden.push(CHECKSUMS);
        }
        if features & HAS_64BIT == 0 {
            // The upper half of the number of blocks, which the reader takes in any case.
            hidden.extend((0x150..0x154).map(|at| (at, 0xff)));
        }
        Some(Self {
            size_bytes: n_blocks.saturating_mul(block_bytes),
            not_read,
            needs_recovery: features & RECOVER != 0,
            has_errors: u16_at(0x3a) & STATE_ERRORS != 0 || u32_at(0x194) != 0,
            n_inodes: u32_at(0),
            hidden,
        })
    }

    /// Why this file system can't be read, and what helps, if it has features that can't.
    pub(crate) fn unreadable(&self) -> Option<String> {
        if self.not_read.is_empty() {
            return None;
        }
        let names = self.not_read.join(", ");
        let help = if self.not_read.iter().all(|name| REMOVABLE.contains(name)) {
            let off: Vec<String> = self.not_read.iter().map(|name| format!("^{name}")).collect();
            format!("take them off with `tune2fs -O {}`, or copy its files", off.join(","))
        } else {
            "copy its files".to_owned()
        };
        let damage = match self.not_read.contains(&NEWER) {
            true => ". Or its superblock is damaged, which `e2fsck -fn` tells",
            false => "",
        };
        Some(format!(
            "it is an ext4 with features that Bootlace can't read ({names}): {help} to a new ext4 with `mkfs.ext4 -d`{damage}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(features: u32, checksums: bool, inode_bytes: u16) -> Vec<u8> {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[0x4..0x8].copy_from_slice(&1000u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x20..0x24].copy_from_slice(&32768u32.to_le_bytes());
        bytes[0x58..0x5a].copy_from_slice(&inode_bytes.to_le_bytes());
        bytes[0x60..0x64].copy_from_slice(&features.to_le_bytes());
        bytes[CHECKSUMS.0] = if checksums { CHECKSUMS.1 } else { 0 };
        bytes
    }

    #[test]
    fn features_that_are_not_read_are_named_with_what_helps() {
        let check = |features: u32, expected: &str| {
            let superblock = Superblock::parse(&superblock(features, true, 256)).unwrap();
            assert_eq!(superblock.size_bytes, 4_096_000);
            match superblock.unreadable() {
                Some(text) => assert!(text.contains(expected), "{text}"),
                None => assert_eq!(expected, ""),
            }
        };
        check(0x2c2, "");
        check(0x2c6 | 0x1_2000, "");
        check(0x82c2, "(inline_data): copy its files to a new ext4");
        check(0x2_02c2, "(casefold): take them off with `tune2fs -O ^casefold`, or copy its files");
        check(0x2_83d2, "(meta_bg, mmp, inline_data, casefold): copy its files");
        check(0x2c0, "(no filetype)");
        check(0x4000_02c2, "newer than this program");
        check(0x4000_02c2, "Or its superblock is damaged");
    }

    #[test]
    fn errors_that_linux_has_met_are_seen() {
        let has_errors = |at: usize, value: u8| {
            let mut bytes = superblock(2, false, 256);
            bytes[at] = value;
            Superblock::parse(&bytes).unwrap().has_errors
        };
        assert!(has_errors(0x3a, 3) && has_errors(0x194, 1));
        assert!(!has_errors(0x3a, 1) && !has_errors(0x3a, 0));
    }

    #[test]
    fn what_the_reader_takes_for_something_else_is_hidden_from_it() {
        let hidden = |features, checksums, inode_bytes| {
            Superblock::parse(&superblock(features, checksums, inode_bytes)).unwrap().hidden
        };
        let upper_blocks = [0x150, 0x151, 0x152, 0x153].map(|at| (at, 0xff));
        assert_eq!(hidden(0x82, true, 128), [CHECKSUMS], "inodes with half a checksum");
        assert_eq!(hidden(0x82, false, 128), []);
        assert_eq!(hidden(0x82, true, 256), []);
        assert_eq!(hidden(2, true, 256), upper_blocks);
    }

    #[test]
    fn no_prefix_panics() {
        let bytes = superblock(0x2c2, true, 256);
        for length in 0..SUPERBLOCK_BYTES {
            assert_eq!(Superblock::parse(&bytes[..length]), None);
        }
        let mut strange = bytes.clone();
        strange[0x20..0x24].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(Superblock::parse(&strange), None);
        let mut strange = bytes;
        strange[0x18..0x1c].fill(0xff);
        assert_eq!(Superblock::parse(&strange), None);
        assert_eq!(Superblock::parse(&[0; SUPERBLOCK_BYTES]), None);
    }
}
