//! The superblock: its features, and the sizes of what is in the file system.

use super::checksums::crc32c;
use super::{COPY, NotMounted, Read, damaged, u16_of, u32_of, unfit};
use crate::ext4::{CHECKSUMS, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET};

/// Features of `s_feature_compat`.
pub(super) const HAS_JOURNAL: u32 = 0x4;
pub(super) const DIR_INDEX: u32 = 0x20;
pub(super) const SPARSE_SUPER2: u32 = 0x200;
pub(super) const FAST_COMMIT: u32 = 0x400;
pub(super) const ORPHAN_FILE: u32 = 0x1000;

/// Features of `s_feature_incompat`.
pub(super) const EXTENTS: u32 = 0x40;
pub(super) const HAS_64BIT: u32 = 0x80;
pub(super) const FLEX_BG: u32 = 0x200;
const CHECKSUM_SEED: u32 = 0x2000;
const ENCRYPT: u32 = 0x1_0000;

/// Features of `s_feature_ro_compat`.
pub(super) const SPARSE_SUPER: u32 = 0x1;
pub(super) const HUGE_FILE: u32 = 0x8;
pub(super) const GROUP_CHECKSUMS: u32 = 0x10;
pub(super) const QUOTA: u32 = 0x100;
const EXTRA_ISIZE: u32 = 0x40;
const BIGALLOC: u32 = 0x200;
const READ_ONLY: u32 = 0x1000;
/// Those with which Linux writes (`EXT4_FEATURE_RO_COMPAT_SUPP`): sparse_super, large_file, btree_dir, huge_file,
/// uninit_bg, dir_nlink, extra_isize, quota, bigalloc, metadata_csum, project, verity, orphan_present.
const WRITTEN: u32 = 0x7f | QUOTA | BIGALLOC | 0x400 | 0x2000 | 0x8000 | 0x1_0000;

/// `s_creator_os` of the Hurd.
const HURD: u32 = 1;
/// The only kind of checksum that there is, CRC-32C (`EXT4_CRC32C_CHKSUM`).
const CHECKSUM_KIND: u8 = 1;
/// Of `s_def_hash_version`: the last that may be a file system's (`DX_HASH_TEA_UNSIGNED`).
const HASH_MAX: u8 = 5;
/// `EXT4_GOOD_OLD_FIRST_INO`.
const FIRST_INODE_MIN: i32 = 11;
/// Blocks have no more bytes than a page of memory.
const BLOCK_BYTES_MAX: u64 = 4096;
/// `EXT4_MAX_CLUSTER_LOG_SIZE`, less the 10 bits of the smallest block.
const CLUSTER_LOG_MAX: u32 = 20;
/// `ext4_mb_init_backend` shifts a number of 32 bits by `s_log_groups_per_flex`.
const FLEX_LOG_MAX: u8 = 31;

/// A superblock with which all else can be read.
pub(super) struct FileSystem<'a> {
    pub(super) read: Read<'a>,
    pub(super) superblock: [u8; SUPERBLOCK_BYTES],
    pub(super) block_bytes: u64,
    pub(super) n_blocks: u64,
    pub(super) first_data_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) n_groups: u64,
    pub(super) descriptor_bytes: usize,
    pub(super) inodes_per_group: u64,
    pub(super) inode_bytes: u64,
    /// What all checksums begin with, if there are any.
    pub(super) seed: Option<u32>,
}

impl<'a> FileSystem<'a> {
    /// As `ext4_load_super`, `ext4_init_metadata_csum`, `ext4_inode_info_init`, `ext4_check_feature_compatibility`,
    /// `ext4_block_group_meta_init`, `ext4_hash_info_init`, `ext4_handle_clustersize` and `ext4_check_geometry`.
    pub(super) fn parse(
        read: Read<'a>,
        superblock: [u8; SUPERBLOCK_BYTES],
    ) -> Result<Self, NotMounted> {
        let fields = Fields(&superblock);
        let block_bytes = fields.block_bytes()?;
        let seed = fields.seed()?;
        let inode_bytes = fields.inode_bytes(block_bytes)?;
        fields.check_features()?;
        let descriptor_bytes = fields.descriptor_bytes()?;
        let inodes_per_group = u64::from(fields.u32_at(0x28));
        if inodes_per_group < block_bytes / inode_bytes || inodes_per_group > block_bytes * 8 {
            return damaged(format!(
                "its groups have an impossible number of inodes, {inodes_per_group}"
            ));
        }
        if superblock[0xfc] > HASH_MAX {
            return damaged(format!(
                "its folders have hashes of no known kind, {}",
                superblock[0xfc]
            ));
        }
        let cluster_blocks = fields.cluster_blocks(block_bytes)?;
        let n_blocks = fields.n_blocks();
        let first_data_block = u64::from(fields.u32_at(0x14));
        if first_data_block >= n_blocks {
            return damaged("its first data block lies behind its end");
        }
        if fields.has_read_only(BIGALLOC) && first_data_block != 0 {
            return damaged("it has bigalloc, and its first data block is not 0");
        }
        if first_data_block == 0 && block_bytes == 1024 && cluster_blocks == 1 {
            return damaged("its first data block is 0, which is the superblock's");
        }
        if u64::from(fields.u16_at(0xce)) > block_bytes / 4 {
            return damaged("it keeps an impossible number of blocks for more groups");
        }
        let blocks_per_group = u64::from(fields.u32_at(0x20));
        let n_groups = (n_blocks - first_data_block).div_ceil(blocks_per_group);
        if n_groups.checked_mul(inodes_per_group) != Some(u64::from(fields.u32_at(0))) {
            return damaged("its number of inodes does not fit its groups");
        }
        Ok(Self {
            read,
            superblock,
            block_bytes,
            n_blocks,
            first_data_block,
            blocks_per_group,
            n_groups,
            descriptor_bytes,
            inodes_per_group,
            inode_bytes,
            seed,
        })
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        u32_of(&self.superblock, at)
    }

    pub(super) fn has_compatible(&self, feature: u32) -> bool {
        self.u32_at(0x5c) & feature != 0
    }

    pub(super) fn has_incompatible(&self, feature: u32) -> bool {
        self.u32_at(0x60) & feature != 0
    }

    pub(super) fn has_read_only(&self, feature: u32) -> bool {
        self.u32_at(0x64) & feature != 0
    }

    /// The block that the superblock is in.
    pub(super) fn superblock_block(&self) -> u64 {
        SUPERBLOCK_OFFSET / self.block_bytes
    }

    /// Whether these blocks may be a file's (`ext4_sb_block_valid`).
    pub(super) fn has_blocks(&self, first: u64, n: u64) -> bool {
        first > self.first_data_block
            && first.checked_add(n).is_some_and(|end| end <= self.n_blocks)
    }

    /// Reads from the beginning of a block.
    pub(super) fn read_block(&self, buffer: &mut [u8], block: u64) -> Result<(), NotMounted> {
        if block >= self.n_blocks {
            return damaged(format!("its block {block} lies behind its end"));
        }
        Ok((self.read)(buffer, block * self.block_bytes)?)
    }

    /// Reads a whole block.
    pub(super) fn block(&self, block: u64) -> Result<Vec<u8>, NotMounted> {
        let mut buffer = vec![0; usize::try_from(self.block_bytes).unwrap_or(0)];
        self.read_block(&mut buffer, block)?;
        Ok(buffer)
    }
}

/// A superblock of which nothing is known yet.
struct Fields<'a>(&'a [u8; SUPERBLOCK_BYTES]);

impl Fields<'_> {
    fn u16_at(&self, at: usize) -> u16 {
        u16_of(self.0, at)
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32_of(self.0, at)
    }

    fn has_incompatible(&self, feature: u32) -> bool {
        self.u32_at(0x60) & feature != 0
    }

    fn has_read_only(&self, feature: u32) -> bool {
        self.u32_at(0x64) & feature != 0
    }

    fn n_blocks(&self) -> u64 {
        let high = if self.has_incompatible(HAS_64BIT) { self.u32_at(0x150) } else { 0 };
        u64::from(high) << 32 | u64::from(self.u32_at(0x4))
    }

    fn block_bytes(&self) -> Result<u64, NotMounted> {
        match 1024_u64.checked_shl(self.u32_at(0x18)) {
            Some(bytes @ 1024..=BLOCK_BYTES_MAX) => Ok(bytes),
            Some(bytes @ 8192..=65536) => unfit(format!(
                "its blocks have {bytes} bytes, and kernels of PCs take {BLOCK_BYTES_MAX} at most: {COPY}"
            )),
            _ => damaged("its blocks have a size that no kernel knows"),
        }
    }

    fn seed(&self) -> Result<Option<u32>, NotMounted> {
        if self.0[CHECKSUMS.0] & CHECKSUMS.1 == 0 {
            return Ok(None);
        }
        if self.0[0x175] != CHECKSUM_KIND {
            return damaged(format!("its checksums are of no known kind, {}", self.0[0x175]));
        }
        if crc32c(!0, &self.0[..0x3fc]) != self.u32_at(0x3fc) {
            return damaged("the checksum of its superblock is wrong");
        }
        Ok(Some(match self.has_incompatible(CHECKSUM_SEED) {
            true => self.u32_at(0x270),
            false => crc32c(!0, &self.0[0x68..0x78]),
        }))
    }

    fn inode_bytes(&self, block_bytes: u64) -> Result<u64, NotMounted> {
        match self.u32_at(0x4c) {
            0 => return Ok(128),
            1 => (),
            revision => {
                return damaged(format!(
                    "its revision is {revision}, and nobody writes to a later one than 1"
                ));
            }
        }
        let first = self.u32_at(0x54);
        // Linux takes it for a number with a sign.
        if first.cast_signed() < FIRST_INODE_MIN {
            return damaged(format!("its first inode for files is {first}, which can't be"));
        }
        let bytes = u64::from(self.u16_at(0x58));
        if !bytes.is_power_of_two() || !(128..=block_bytes).contains(&bytes) {
            return damaged(format!("its inodes have an impossible size, {bytes} bytes"));
        }
        let extra = self.u16_at(0x15c).max(self.u16_at(0x15e));
        if bytes > 128 && self.has_read_only(EXTRA_ISIZE) && u64::from(extra) > bytes - 128 {
            return damaged(format!(
                "its inodes of {bytes} bytes are to have {extra} more than the first 128"
            ));
        }
        Ok(bytes)
    }

    /// As `ext4_feature_set_ok` for a mount read-write; the features of `s_feature_incompat` were looked at before.
    fn check_features(&self) -> Result<(), NotMounted> {
        if self.has_read_only(READ_ONLY) {
            return unfit(
                "it has the feature read-only: take it off with `tune2fs -O ^read-only`, and import again",
            );
        }
        let unknown = self.u32_at(0x64) & !WRITTEN;
        if unknown != 0 {
            return unfit(format!(
                "it has features with which Linux does not write to it (ro_compat {unknown:#x}): if you don't know \
                 them, repair it with `e2fsck -f`; else {COPY}"
            ));
        }
        if self.has_read_only(BIGALLOC) && !self.has_incompatible(EXTENTS) {
            return damaged("it has bigalloc without extents");
        }
        if self.u32_at(0x48) == HURD && self.has_incompatible(HAS_64BIT) {
            return unfit(format!("it is the Hurd's, and has 64bit: {COPY}"));
        }
        if self.has_incompatible(ENCRYPT) && self.0[0x176] != 0 {
            return damaged(format!("it is encrypted in no known way, {}", self.0[0x176]));
        }
        let groups_log = self.0[0x174];
        if self.has_incompatible(FLEX_BG) && groups_log > FLEX_LOG_MAX {
            return damaged(format!("it puts 2^{groups_log} groups together, too many"));
        }
        Ok(())
    }

    fn descriptor_bytes(&self) -> Result<usize, NotMounted> {
        match (self.has_incompatible(HAS_64BIT), self.u16_at(0xfe)) {
            (false, _) => Ok(32),
            (true, bytes @ 64..=1024) if bytes.is_power_of_two() => Ok(bytes.into()),
            (true, bytes) => damaged(format!(
                "the descriptors of its groups have an impossible size, {bytes} bytes"
            )),
        }
    }

    /// How many blocks there are in a cluster, after a look at the sizes of groups (`ext4_handle_clustersize`).
    fn cluster_blocks(&self, block_bytes: u64) -> Result<u64, NotMounted> {
        let (block_log, cluster_log) = (self.u32_at(0x18), self.u32_at(0x1c));
        let is_possible = match self.has_read_only(BIGALLOC) {
            true => (block_log..=CLUSTER_LOG_MAX).contains(&cluster_log),
            false => cluster_log == block_log,
        };
        if !is_possible {
            return damaged("its clusters have an impossible size");
        }
        let cluster_blocks = 1 << (cluster_log - block_log);
        let blocks = u64::from(self.u32_at(0x20));
        let clusters = u64::from(self.u32_at(0x24));
        if clusters == 0 || clusters > block_bytes * 8 || clusters * cluster_blocks != blocks {
            return damaged(format!(
                "its groups have an impossible size, {blocks} blocks and {clusters} clusters"
            ));
        }
        Ok(cluster_blocks)
    }
}
