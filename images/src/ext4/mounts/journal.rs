//! The journal: an inode, and what it begins with.

use super::checksums::crc32c;
use super::descriptors::Used;
use super::inodes::{ENCRYPTED, Inode};
use super::superblock::{FAST_COMMIT, FileSystem, HAS_64BIT, HAS_JOURNAL};
use super::{NotMounted, damaged, unfit};

/// Features of the journal: revoke, 64bit, async_commit, csum_v2, csum_v3, fast_commit.
const FEATURES: u32 = 0x3f;
const CHECKSUMS_2: u32 = 0x8;
const CHECKSUMS_3: u32 = 0x10;
const HAS_FAST_COMMITS: u32 = 0x20;
/// Among those without which it may be read.
const CHECKSUMS_1: u32 = 0x1;
/// CRC-32C (`JBD2_CRC32C_CHKSUM`).
const CHECKSUM_KIND: u8 = 4;

const MAGIC: u32 = 0xc03b_3998;
const SUPERBLOCK_BYTES: usize = 1024;
/// `JBD2_MIN_JOURNAL_BLOCKS`.
const BLOCKS_MIN: u32 = 1024;
/// mke2fs and tune2fs make no longer one; Linux looks for each block of one that is, and does not end for minutes.
const BLOCKS_MAX: u64 = 10_240_000;
/// `JBD2_DEFAULT_FAST_COMMIT_BLOCKS`.
const FAST_BLOCKS: u32 = 256;

/// Of `s_default_mount_opts`: which way data goes to the disk; without one, or all through the journal, an old
/// journal does.
const DATA_MODE: u32 = 0x60;
const DATA_MODE_JOURNAL: u32 = 0x20;

impl FileSystem<'_> {
    /// It is a file in the file system, begins as a journal does, and has all its blocks (`ext4_load_journal`,
    /// `jbd2_journal_init_inode`, `jbd2_journal_load`, `ext4_protect_reserved_inode`).
    ///
    /// Stricter than Linux, which mounts one with holes and gives up writing when it comes to them.
    pub(super) fn check_journal(&self, used: &mut Used) -> Result<(), NotMounted> {
        if !self.has_compatible(HAS_JOURNAL) {
            return Ok(());
        }
        let (number, device) = (self.u32_at(0xe0), self.u32_at(0xe4));
        if number != 0 && device != 0 {
            return damaged("it has a journal inside and one on another disk");
        }
        if number == 0 {
            return unfit(
                "its journal is on another disk: put it inside with `tune2fs -O ^has_journal` and `tune2fs -j`, and \
                 import again",
            );
        }
        let inode = self.inode(number, "its journal")?;
        if !inode.is_file() || inode.flags() & ENCRYPTED != 0 {
            return damaged("its journal is no file");
        }
        let n_blocks = inode.size_bytes.div_ceil(self.block_bytes);
        if n_blocks > BLOCKS_MAX {
            return damaged(format!(
                "its journal has an impossible size, {} bytes",
                inode.size_bytes
            ));
        }
        let mut first = None;
        // Blocks of the journal up to the first hole.
        let mut n_complete = 0;
        self.runs(&inode, n_blocks, &mut |run| {
            if run.logical == 0 && run.is_written {
                first = Some(run.first);
            }
            if run.logical == n_complete {
                n_complete += run.n;
            }
            used.take(run.first, run.n, &|| "journal".to_owned())
        })?;
        let Some(first) = first else {
            return damaged("it can't be told where its journal begins");
        };
        let mut superblock = [0; SUPERBLOCK_BYTES];
        self.read_block(&mut superblock, first)?;
        let n_used = self.check_journal_superblock(&inode, &superblock)?;
        if n_complete < n_used.into() {
            return damaged(format!("its journal has a hole at its block {n_complete}"));
        }
        Ok(())
    }

    /// As `journal_check_superblock`, `journal_reset` and `ext4_load_and_init_journal`; returns how many blocks of
    /// the file are the journal's.
    fn check_journal_superblock(
        &self,
        inode: &Inode,
        superblock: &[u8; SUPERBLOCK_BYTES],
    ) -> Result<u32, NotMounted> {
        let at = |at: usize| u32::from_be_bytes(std::array::from_fn(|n| superblock[at + n]));
        let is_second = match (at(0), at(4)) {
            (MAGIC, 3) => false,
            (MAGIC, 4) => true,
            _ => return damaged("its journal does not begin as one"),
        };
        let (n_blocks, first, start) = (at(0x10), at(0x14), at(0x1c));
        if u64::from(at(0xc)) != self.block_bytes
            || u64::from(n_blocks) > inode.size_bytes / self.block_bytes
        {
            return damaged("its journal does not have the size that it says");
        }
        if first == 0 || n_blocks < BLOCKS_MIN || first > n_blocks + 1 - BLOCKS_MIN {
            return damaged(format!(
                "its journal is too short: {n_blocks} blocks, of which the first {first} are for nothing"
            ));
        }
        if start >= n_blocks {
            return damaged(format!("its journal begins behind its end, at its block {start}"));
        }
        if !is_second {
            self.check_first_version()?;
            return Ok(n_blocks);
        }
        let (compatible, features, read_only) = (at(0x24), at(0x28), at(0x2c));
        if features & !FEATURES != 0 || read_only != 0 {
            return damaged("its journal has features that are newer than this program");
        }
        let n_fast = if at(0x54) == 0 { FAST_BLOCKS } else { at(0x54) };
        let has_fast = features & HAS_FAST_COMMITS != 0 || self.has_compatible(FAST_COMMIT);
        if has_fast && n_fast > n_blocks - BLOCKS_MIN {
            return damaged(format!(
                "its journal is too short: {n_blocks} blocks, of which {n_fast} are for fast commits"
            ));
        }
        let checksums = features & (CHECKSUMS_2 | CHECKSUMS_3);
        if checksums == 0 {
            return Ok(n_blocks);
        }
        if checksums == CHECKSUMS_2 | CHECKSUMS_3
            || compatible & CHECKSUMS_1 != 0
            || superblock[0x50] != CHECKSUM_KIND
        {
            return damaged("its journal has checksums of no known kind");
        }
        let mut without = *superblock;
        without[0xfc..0x100].fill(0);
        if crc32c(!0, &without) != at(0xfc) {
            return damaged("the checksum of its journal is wrong");
        }
        Ok(n_blocks)
    }

    /// A journal of the first version has no features, and is not given any that the file system asks for
    /// (`jbd2_journal_set_features`).
    fn check_first_version(&self) -> Result<(), NotMounted> {
        let mode = self.u32_at(0x100) & DATA_MODE;
        let asks = self.has_incompatible(HAS_64BIT)
            || self.seed.is_some()
            || self.has_compatible(FAST_COMMIT)
            || ![0, DATA_MODE_JOURNAL].contains(&mode);
        if asks {
            return damaged("its journal is of an old version, which has no features");
        }
        Ok(())
    }
}
