//! The descriptors of groups, and which blocks are the file system's own.

use super::checksums::{of_descriptor, of_old_descriptor};
use super::superblock::{FLEX_BG, FileSystem, GROUP_CHECKSUMS, SPARSE_SUPER, SPARSE_SUPER2};
use super::{NotMounted, damaged, u16_of, u32_of};
use std::collections::BTreeMap;

/// Descriptors of groups that are read at once.
const GROUPS_AT_ONCE: u64 = 4096;

/// Blocks that are nobody's but one structure's (`ext4_setup_system_zone`): first, and end.
pub(super) struct Used(BTreeMap<u64, u64>);

impl Used {
    /// Whether any of these blocks is taken.
    pub(super) fn has(&self, first: u64, n: u64) -> bool {
        let before = self.0.range(..first.saturating_add(n)).next_back();
        before.is_some_and(|(_, &end)| end > first)
    }

    /// Takes blocks for `what`.
    ///
    /// Stricter than `add_system_zone`, which does not see blocks that begin before others and run into them.
    ///
    /// # Errors
    /// They are taken.
    pub(super) fn take(
        &mut self,
        first: u64,
        n: u64,
        what: &dyn Fn() -> String,
    ) -> Result<(), NotMounted> {
        if self.has(first, n) {
            return damaged(format!("the {} lies where something else is", what()));
        }
        let (mut begin, mut end) = (first, first.saturating_add(n));
        if let Some((&other, _)) = self.0.range(..end).next_back().filter(|it| *it.1 == first) {
            begin = other;
        }
        // What lies side by side is one: a file system of many groups would be too many.
        if let Some(behind) = self.0.remove(&end) {
            end = behind;
        }
        self.0.insert(begin, end);
        Ok(())
    }
}

/// Such groups, beside 0 and 1, have a copy of the superblock (`sparse_super`).
pub(crate) fn is_power_of_3_5_or_7(group: u64) -> bool {
    let is_power = |of: u64| {
        let mut power = of;
        while power < group {
            power *= of;
        }
        power == group
    };
    is_power(3) || is_power(5) || is_power(7)
}

impl FileSystem<'_> {
    /// Each group has its bitmaps and inodes in places that are there and are nobody else's, and the checksum of its
    /// descriptor is right (`ext4_check_descriptors`, `ext4_setup_system_zone`).
    pub(super) fn check_groups(&self) -> Result<Used, NotMounted> {
        let bytes_at_once = self.descriptor_bytes * usize::try_from(GROUPS_AT_ONCE).unwrap_or(1);
        let mut descriptors = vec![0; bytes_at_once];
        let mut used = Used(BTreeMap::new());
        let mut group = 0;
        while group < self.n_groups {
            let n = GROUPS_AT_ONCE.min(self.n_groups - group);
            let length = self.descriptor_bytes * usize::try_from(n).unwrap_or(0);
            (self.read)(&mut descriptors[..length], self.descriptor_at(group))?;
            for descriptor in descriptors[..length].chunks(self.descriptor_bytes) {
                self.check_group(group, descriptor, &mut used)?;
                group += 1;
            }
        }
        Ok(used)
    }

    fn check_group(
        &self,
        group: u64,
        descriptor: &[u8],
        used: &mut Used,
    ) -> Result<(), NotMounted> {
        let own_first = self.first_data_block + group * self.blocks_per_group;
        let (first, last) = match () {
            () if self.has_incompatible(FLEX_BG) => (self.first_data_block, self.n_blocks - 1),
            () if group + 1 == self.n_groups => (own_first, self.n_blocks - 1),
            () => (own_first, own_first + self.blocks_per_group - 1),
        };
        // Its copy of the superblock and of all descriptors (`ext4_num_base_meta_blocks`).
        if self.has_superblock(group) {
            let n_reserved = u64::from(u16_of(&self.superblock, 0xce));
            let n = 1 + self.descriptor_blocks() + n_reserved;
            used.take(own_first, n, &|| format!("superblock of its group {group}"))?;
        }
        let table_blocks = (self.inodes_per_group * self.inode_bytes).div_ceil(self.block_bytes);
        let superblock = self.superblock_block();
        for (what, at, high_at, length) in [
            ("block bitmap", 0x0, 0x20, 1),
            ("inode bitmap", 0x4, 0x24, 1),
            ("inode table", 0x8, 0x28, table_blocks),
        ] {
            let begin = self.block_of(descriptor, at, high_at);
            let end = begin.checked_add(length - 1);
            if begin < first || end.is_none_or(|end| end > last) {
                return damaged(format!("the {what} of its group {group} lies outside"));
            }
            if (superblock..=superblock + self.descriptor_blocks()).contains(&begin) {
                return damaged(format!(
                    "the {what} of its group {group} lies in the superblock or the descriptors of groups"
                ));
            }
            used.take(begin, length, &|| format!("{what} of its group {group}"))?;
        }
        self.check_checksum(group, descriptor)
    }

    fn check_checksum(&self, group: u64, descriptor: &[u8]) -> Result<(), NotMounted> {
        let number = group as u32;
        let calculated = match self.seed {
            Some(seed) => of_descriptor(seed, number, descriptor),
            None if self.has_read_only(GROUP_CHECKSUMS) => {
                of_old_descriptor(&self.superblock[0x68..0x78], number, descriptor)
            }
            None => return Ok(()),
        };
        if calculated != u16_of(descriptor, 0x1e) {
            return damaged(format!(
                "the checksum of the descriptor of its group {group} is wrong"
            ));
        }
        Ok(())
    }

    /// Whether a group begins with a copy of the superblock (`ext4_bg_has_super`).
    fn has_superblock(&self, group: u64) -> bool {
        match group {
            0 => true,
            _ if self.has_compatible(SPARSE_SUPER2) => {
                [0x24c, 0x250].iter().any(|&at| u64::from(self.u32_at(at)) == group)
            }
            1 => true,
            _ if !self.has_read_only(SPARSE_SUPER) => true,
            _ => is_power_of_3_5_or_7(group),
        }
    }

    /// How many blocks hold the descriptors of all groups.
    fn descriptor_blocks(&self) -> u64 {
        self.n_groups.div_ceil(self.block_bytes / self.descriptor_bytes as u64)
    }

    /// Where the descriptor of a group is: they begin in the block behind the superblock.
    pub(super) fn descriptor_at(&self, group: u64) -> u64 {
        (self.superblock_block() + 1) * self.block_bytes + group * self.descriptor_bytes as u64
    }

    /// The number of a block in a descriptor.
    pub(super) fn block_of(&self, descriptor: &[u8], at: usize, high_at: usize) -> u64 {
        let high = if self.descriptor_bytes > 32 { u32_of(descriptor, high_at) } else { 0 };
        u64::from(high) << 32 | u64::from(u32_of(descriptor, at))
    }
}
