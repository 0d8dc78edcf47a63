//! What else Linux reads when it mounts: the root folder, the file of orphans, and quotas.

use super::checksums::crc32c;
use super::descriptors::Used;
use super::inodes::Inode;
use super::superblock::{FileSystem, ORPHAN_FILE, QUOTA};
use super::{NotMounted, damaged, u32_of};

const ROOT: u32 = 2;

/// `EXT4_ORPHAN_BLOCK_MAGIC`, at the end of each block of orphans.
const ORPHANS_MAGIC: u32 = 0x0b10_ca04;
/// Linux 6.17 takes no larger file of orphans.
const ORPHAN_BYTES_MAX: u64 = 8 << 20;

/// Of users, groups and projects: where their inode's number is, what it has to be (a range), and with what the file
/// begins (`V2_INITQMAGICS`).
const QUOTAS: [(usize, std::ops::RangeInclusive<u32>, u32); 3] =
    [(0x240, 3..=3, 0xd9c0_1f11), (0x244, 4..=4, 0xd9c0_1927), (0x26c, 11..=u32::MAX, 0xd9c0_3f14)];

impl FileSystem<'_> {
    /// It is a folder that has something (`ext4_fill_super`).
    pub(super) fn check_root(&self) -> Result<(), NotMounted> {
        let root = self.inode(ROOT, "its root folder")?;
        if !root.is_folder() || root.size_bytes == 0 || !self.has_any_blocks(&root) {
            return damaged("its root folder is none");
        }
        Ok(())
    }

    /// As `ext4_init_orphan_info`.
    pub(super) fn check_orphan_file(&self, used: &Used) -> Result<(), NotMounted> {
        if !self.has_compatible(ORPHAN_FILE) {
            return Ok(());
        }
        let inode = self.inode_beside(used, self.u32_at(0x280), "its file of orphans")?;
        let n_blocks = inode.size_bytes / self.block_bytes;
        if inode.size_bytes > ORPHAN_BYTES_MAX {
            return damaged(format!(
                "its file of orphans has an impossible size, {} bytes",
                inode.size_bytes
            ));
        }
        let mut n_seen = 0;
        self.runs(&inode, n_blocks, &mut |run| {
            for number in run.first..run.first + run.n {
                self.check_orphans(number, inode.seed)?;
                n_seen += 1;
            }
            Ok(())
        })?;
        if n_seen != n_blocks {
            return damaged("its file of orphans has holes");
        }
        Ok(())
    }

    /// An inode whose blocks are not the file system's own: by the time that it is read Linux knows which those are.
    fn inode_beside(
        &self,
        used: &Used,
        number: u32,
        what: &'static str,
    ) -> Result<Inode, NotMounted> {
        let inode = self.inode(number, what)?;
        let attributes = self.attributes_of(&inode);
        let mut is_inside = attributes != 0 && used.has(attributes, 1);
        let n_blocks = inode.size_bytes.min(ORPHAN_BYTES_MAX).div_ceil(self.block_bytes);
        self.runs(&inode, n_blocks, &mut |run| {
            is_inside |= used.has(run.first, run.n);
            Ok(())
        })?;
        if is_inside {
            return damaged(format!("{what} lies where something else is"));
        }
        Ok(inode)
    }

    fn check_orphans(&self, number: u64, seed: Option<u32>) -> Result<(), NotMounted> {
        let block = self.block(number)?;
        let tail = block.len() - 8;
        if u32_of(&block, tail) != ORPHANS_MAGIC {
            return damaged("its file of orphans does not end as one");
        }
        let calculated =
            seed.map(|seed| crc32c(crc32c(seed, &number.to_le_bytes()), &block[..tail]));
        if calculated.is_some_and(|calculated| calculated != u32_of(&block, tail + 4)) {
            return damaged("the checksum of its file of orphans is wrong");
        }
        Ok(())
    }

    /// As `ext4_enable_quotas` and `v2_check_quota_file`.
    pub(super) fn check_quota_files(&self, used: &Used) -> Result<(), NotMounted> {
        if !self.has_read_only(QUOTA) {
            return Ok(());
        }
        for (at, numbers, magic) in QUOTAS {
            let number = self.u32_at(at);
            if number == 0 {
                continue;
            }
            if !numbers.contains(&number) {
                return damaged(format!(
                    "its quotas are in the inode {number}, where they can't be"
                ));
            }
            let inode = self.inode_beside(used, number, "its quotas")?;
            let mut begin = None;
            self.runs(&inode, 1, &mut |run| {
                begin = Some(run.first);
                Ok(())
            })?;
            let mut header = [0; 8];
            if let Some(begin) = begin {
                self.read_block(&mut header, begin)?;
            }
            // Version 0, or 1 with 64 bits.
            if u32_of(&header, 0) != magic || u32_of(&header, 4) > 1 {
                return damaged("its quotas do not begin as such");
            }
        }
        Ok(())
    }
}
