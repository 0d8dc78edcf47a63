//! Inodes that Linux reads when it mounts.

use super::checksums::{is_inode_right, seed_of_inode};
use super::superblock::{DIR_INDEX, FileSystem, HAS_64BIT, HUGE_FILE};
use super::{NotMounted, damaged, u16_of, u32_of};

const ROOT: u32 = 2;

/// Flags of inodes (`EXT4_*_FL`).
pub(super) const ENCRYPTED: u32 = 0x800;
const HASHED_FOLDER: u32 = 0x1000;
const COUNTS_BLOCKS: u32 = 0x4_0000;
pub(super) const BY_EXTENTS: u32 = 0x8_0000;
const ATTRIBUTE: u32 = 0x20_0000;
const HOLDS_CONTENT: u32 = 0x1000_0000;
const CASE_FOLDED: u32 = 0x4000_0000;

const FOLDER: u16 = 0x4000;
const FILE: u16 = 0x8000;

/// Blocks that an inode names itself, and not by blocks that name blocks (`EXT4_NDIR_BLOCKS`).
pub(super) const N_DIRECT: usize = 12;

/// An inode that Linux takes.
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    /// For people: "the root folder".
    pub(super) what: &'static str,
    /// What the checksums of its blocks begin with, if there are any.
    pub(super) seed: Option<u32>,
    pub(super) size_bytes: u64,
}

impl Inode {
    pub(super) fn flags(&self) -> u32 {
        u32_of(&self.bytes, 0x20)
    }

    pub(super) fn is_folder(&self) -> bool {
        u16_of(&self.bytes, 0) & 0xf000 == FOLDER
    }

    pub(super) fn is_file(&self) -> bool {
        u16_of(&self.bytes, 0) & 0xf000 == FILE
    }

    pub(super) fn is_by_extents(&self) -> bool {
        self.flags() & BY_EXTENTS != 0
    }

    /// Where its blocks are, as it says itself (`i_data`).
    pub(super) fn map(&self) -> &[u8] {
        &self.bytes[0x28..0x64]
    }
}

impl FileSystem<'_> {
    /// Reads one, if Linux does (`ext4_iget`).
    pub(super) fn inode(&self, number: u32, what: &'static str) -> Result<Inode, NotMounted> {
        if number < ROOT || number > self.u32_at(0) {
            return damaged(format!("the inode of {what} is not there ({number})"));
        }
        let index = u64::from(number - 1);
        let (group, index) = (index / self.inodes_per_group, index % self.inodes_per_group);
        let mut descriptor = vec![0; self.descriptor_bytes];
        (self.read)(&mut descriptor, self.descriptor_at(group))?;
        let table = self.block_of(&descriptor, 0x8, 0x28) * self.block_bytes;
        let mut bytes = vec![0; usize::try_from(self.inode_bytes).unwrap_or(0)];
        (self.read)(&mut bytes, table + index * self.inode_bytes)?;
        let seed = self.seed.map(|seed| seed_of_inode(seed, number, &bytes));
        let mut inode = Inode { bytes, what, seed, size_bytes: 0 };
        self.check_extra(&inode)?;
        if seed.is_some_and(|seed| !is_inode_right(seed, &inode.bytes)) {
            return damaged(format!("the checksum of {what}'s inode is wrong"));
        }
        if u16_of(&inode.bytes, 0x1a) == 0 {
            return damaged(format!("the inode of {what} is a deleted one"));
        }
        inode.size_bytes = u64::from(u32_of(&inode.bytes, 0x4));
        if inode.is_file() {
            inode.size_bytes |= u64::from(u32_of(&inode.bytes, 0x6c)) << 32;
        }
        if inode.size_bytes > self.size_max(inode.is_by_extents()) {
            return damaged(format!("{what} has an impossible size, {} bytes", inode.size_bytes));
        }
        if inode.flags() & HASHED_FOLDER != 0 && seed.is_some() && !self.has_compatible(DIR_INDEX) {
            return damaged(format!("{what} has hashes, and the file system has none"));
        }
        if inode.flags() & ATTRIBUTE != 0 {
            return damaged(format!("the inode of {what} is an attribute's"));
        }
        if inode.is_by_extents() && inode.flags() & HOLDS_CONTENT != 0 {
            return damaged(format!("{what} is in its inode and elsewhere"));
        }
        // With the feature of this name it would not have been read.
        if inode.flags() & CASE_FOLDED != 0 {
            return damaged(format!("{what} has casefold, and the file system does not"));
        }
        self.check_references(&inode)?;
        Ok(inode)
    }

    fn check_extra(&self, inode: &Inode) -> Result<(), NotMounted> {
        if self.inode_bytes > 128 {
            let extra = u16_of(&inode.bytes, 0x80);
            if !extra.is_multiple_of(4) || 128 + u64::from(extra) > self.inode_bytes {
                return damaged(format!(
                    "the inode of {} has an impossible size ({extra} beside 128 bytes)",
                    inode.what
                ));
            }
        }
        Ok(())
    }

    /// As `ext4_ext_check_inode` and `ext4_ind_check_inode`.
    fn check_references(&self, inode: &Inode) -> Result<(), NotMounted> {
        let attributes = self.attributes_of(inode);
        if attributes != 0 && !self.has_blocks(attributes, 1) {
            return damaged(format!("the attributes of {} lie outside", inode.what));
        }
        if !inode.is_file() && !inode.is_folder() {
            return Ok(());
        }
        if inode.is_by_extents() {
            let depth = u16_of(inode.map(), 6);
            return self.check_extents(inode, inode.map(), depth, None).map(|_| ());
        }
        let is_there = |n: usize| match u32_of(inode.map(), n * 4) {
            0 => true,
            block => self.has_blocks(block.into(), 1),
        };
        if !(0..N_DIRECT).all(is_there) {
            return damaged(format!("a block of {} lies outside", inode.what));
        }
        Ok(())
    }

    /// The block with its attributes, if it is not 0.
    pub(super) fn attributes_of(&self, inode: &Inode) -> u64 {
        let low = u64::from(u32_of(&inode.bytes, 0x68));
        match self.has_incompatible(HAS_64BIT) {
            true => u64::from(u16_of(&inode.bytes, 0x76)) << 32 | low,
            false => low,
        }
    }

    /// How many sectors, or blocks, an inode says that it has (`ext4_inode_blocks`); only 0 matters.
    pub(super) fn has_any_blocks(&self, inode: &Inode) -> bool {
        let low = u64::from(u32_of(&inode.bytes, 0x1c));
        if !self.has_read_only(HUGE_FILE) {
            return low != 0;
        }
        let n = u64::from(u16_of(&inode.bytes, 0x74)) << 32 | low;
        let sectors =
            if inode.flags() & COUNTS_BLOCKS != 0 { n * self.block_bytes / 512 } else { n };
        sectors != 0
    }

    /// The largest size that a file may have (`ext4_max_size`, `ext4_max_bitmap_size`).
    fn size_max(&self, is_by_extents: bool) -> u64 {
        let has_huge_files = self.has_read_only(HUGE_FILE);
        // Without huge files their sectors are counted in 32 bits.
        let blocks_counted = u64::from(u32::MAX) / (self.block_bytes / 512);
        let size_max = if is_by_extents {
            match has_huge_files {
                true => u64::from(u32::MAX),
                false => blocks_counted,
            }
        } else {
            let per_block = self.block_bytes / 4;
            let mapped = N_DIRECT as u64 + per_block + per_block.pow(2) + per_block.pow(3);
            let mapping = 3 + 2 * per_block + per_block.pow(2);
            let limit = if has_huge_files { (1 << 48) - 1 } else { blocks_counted };
            match mapped + mapping <= limit {
                true => mapped,
                false => mapped_within(limit, per_block),
            }
        };
        size_max * self.block_bytes
    }
}

/// How many blocks of a file fit into `limit`, along with those that map them.
fn mapped_within(limit: u64, per_block: u64) -> u64 {
    let beyond_direct = limit - N_DIRECT as u64 - per_block;
    if beyond_direct < per_block.pow(2) {
        return limit - (2 + beyond_direct.div_ceil(per_block));
    }
    let rest = beyond_direct - per_block.pow(2);
    let mapping = 3 + per_block + rest.div_ceil(per_block) + rest.div_ceil(per_block.pow(2));
    limit - mapping
}
