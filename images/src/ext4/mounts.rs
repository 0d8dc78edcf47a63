//! Whether Linux mounts an ext2, ext3 or ext4: what it looks at before (`fs/ext4/super.c`, `ext4_fill_super` and
//! `ext4_check_descriptors`; `fs/jbd2/journal.c`, `journal_check_superblock`), beyond what files need that are read.

use super::{CHECKSUMS, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET};
use crc::{CRC_16_MODBUS, CRC_32_ISCSI, Crc};
use std::io;

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// With the start value that the kernel gives it.
static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

const HAS_JOURNAL: u32 = 0x4;
const HAS_64BIT: u32 = 0x80;
const FLEX_BG: u32 = 0x200;
const CHECKSUM_SEED: u32 = 0x2000;
const GROUP_CHECKSUMS: u32 = 0x10;
const BIGALLOC: u32 = 0x200;

/// Of the journal: revoke, 64bit, async_commit, csum_v2, csum_v3, fast_commit.
const JOURNAL_FEATURES: u32 = 0x3f;
const JOURNAL_CHECKSUMS: u32 = 0x8 | 0x10;
const JOURNAL_MAGIC: u32 = 0xc03b_3998;
const JOURNAL_SUPERBLOCK_BYTES: usize = 1024;

/// Descriptors of groups that are read at once.
const GROUPS_AT_ONCE: u64 = 4096;

/// Inodes lead to their blocks over as many steps at most (`EXT4_MAX_EXTENT_DEPTH`).
const DEPTH_MAX: u16 = 5;

/// Why Linux does not mount it.
#[derive(Debug)]
pub(crate) enum NotMounted {
    /// It can't be read.
    Io(io::Error),
    /// What is wrong.
    Because(String),
}

impl From<io::Error> for NotMounted {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn because<T>(why: impl Into<String>) -> Result<T, NotMounted> {
    Err(NotMounted::Because(why.into()))
}

/// Looks at the file system that `read` reads, from its start on.
///
/// # Errors
/// Linux does not mount it, or it can't be read.
pub(crate) fn check(read: &dyn Fn(&mut [u8], u64) -> io::Result<()>) -> Result<(), NotMounted> {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    read(&mut superblock, SUPERBLOCK_OFFSET)?;
    let file_system = FileSystem::parse(read, superblock)?;
    file_system.check_groups()?;
    file_system.check_journal()
}

struct FileSystem<'a> {
    read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
    superblock: [u8; SUPERBLOCK_BYTES],
    block_bytes: u64,
    n_blocks: u64,
    first_data_block: u64,
    n_groups: u64,
    descriptor_bytes: usize,
    inode_bytes: u64,
    /// What all checksums begin with, if there are any.
    seed: Option<u32>,
}

impl<'a> FileSystem<'a> {
    fn parse(
        read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
        superblock: [u8; SUPERBLOCK_BYTES],
    ) -> Result<Self, NotMounted> {
        let u16_at = |at: usize| u16_of(&superblock, at);
        let u32_at = |at: usize| u32_of(&superblock, at);
        let (incompatible, read_only) = (u32_at(0x60), u32_at(0x64));
        let Some(block_bytes) = 1024_u64.checked_shl(u32_at(0x18)).filter(|it| *it <= 64 << 10)
        else {
            return because("its blocks have a size that no kernel knows");
        };
        let high = if incompatible & HAS_64BIT == 0 { 0 } else { u32_at(0x150) };
        let n_blocks = u64::from(high) << 32 | u64::from(u32_at(0x4));
        let first_data_block = u64::from(u32_at(0x14));
        if first_data_block >= n_blocks {
            return because("its first data block lies behind its end");
        }
        let has_clusters = read_only & BIGALLOC != 0;
        if first_data_block == 0 && block_bytes == 1024 && !has_clusters {
            return because("its first data block is 0, which is the superblock's");
        }
        let blocks_per_group = u64::from(u32_at(0x20));
        let clusters_per_group = u64::from(u32_at(0x24));
        let cluster_blocks = match has_clusters {
            true => 1_u64.checked_shl(u32_at(0x1c).wrapping_sub(u32_at(0x18))).unwrap_or(0),
            false => 1,
        };
        let bits = block_bytes * 8;
        let is_group = match has_clusters {
            true => clusters_per_group.checked_mul(cluster_blocks) == Some(blocks_per_group),
            false => true,
        };
        let of_group = if has_clusters { clusters_per_group } else { blocks_per_group };
        if !is_group || of_group == 0 || of_group > bits || blocks_per_group == 0 {
            return because("its groups have an impossible size");
        }
        let inode_bytes = match u32_at(0x4c) {
            0 => 128,
            _ => u64::from(u16_at(0x58)),
        };
        if !inode_bytes.is_power_of_two() || !(128..=block_bytes).contains(&inode_bytes) {
            return because("its inodes have an impossible size");
        }
        let inodes_per_group = u64::from(u32_at(0x28));
        if inodes_per_group < block_bytes / inode_bytes || inodes_per_group > bits {
            return because("its groups have an impossible number of inodes");
        }
        let n_groups = (n_blocks - first_data_block).div_ceil(blocks_per_group);
        if n_groups.checked_mul(inodes_per_group) != Some(u64::from(u32_at(0))) {
            return because("its number of inodes does not fit its groups");
        }
        if u64::from(u16_at(0xce)) > block_bytes / 4 {
            return because("it keeps an impossible number of blocks for more groups");
        }
        let descriptor_bytes = match (incompatible & HAS_64BIT != 0, usize::from(u16_at(0xfe))) {
            (false, _) => 32,
            (true, bytes @ 64..=1024) if bytes.is_power_of_two() => bytes,
            (true, _) => return because("the descriptors of its groups have an impossible size"),
        };
        let has_checksums = superblock[CHECKSUMS.0] & CHECKSUMS.1 != 0;
        let seed = has_checksums.then(|| match incompatible & CHECKSUM_SEED {
            0 => crc32c(!0, &superblock[0x68..0x78]),
            _ => u32_at(0x270),
        });
        if seed.is_some() && crc32c(!0, &superblock[..0x3fc]) != u32_at(0x3fc) {
            return because("the checksum of its superblock is wrong");
        }
        Ok(Self {
            read,
            block_bytes,
            n_blocks,
            first_data_block,
            n_groups,
            descriptor_bytes,
            inode_bytes,
            seed,
            superblock,
        })
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32_of(&self.superblock, at)
    }

    /// Where the descriptors of groups begin: in the block behind the superblock.
    fn descriptors_at(&self) -> u64 {
        (SUPERBLOCK_OFFSET / self.block_bytes + 1) * self.block_bytes
    }

    /// Each group has its bitmaps and inodes in places that are there, and the checksum of its descriptor is right.
    fn check_groups(&self) -> Result<(), NotMounted> {
        let bytes_at_once = self.descriptor_bytes * usize::try_from(GROUPS_AT_ONCE).unwrap_or(1);
        let mut descriptors = vec![0; bytes_at_once];
        let mut group = 0;
        while group < self.n_groups {
            let n = GROUPS_AT_ONCE.min(self.n_groups - group);
            let length = self.descriptor_bytes * usize::try_from(n).unwrap_or(0);
            let at = self.descriptors_at() + group * self.descriptor_bytes as u64;
            (self.read)(&mut descriptors[..length], at)?;
            for descriptor in descriptors[..length].chunks(self.descriptor_bytes) {
                self.check_group(group, descriptor)?;
                group += 1;
            }
        }
        Ok(())
    }

    fn check_group(&self, group: u64, descriptor: &[u8]) -> Result<(), NotMounted> {
        let has_flexible_groups = self.u32_at(0x60) & FLEX_BG != 0;
        let blocks_per_group = u64::from(self.u32_at(0x20));
        let own_first = self.first_data_block + group * blocks_per_group;
        let (first, last) = match () {
            () if has_flexible_groups => (self.first_data_block, self.n_blocks - 1),
            () if group + 1 == self.n_groups => (own_first, self.n_blocks - 1),
            () => (own_first, own_first + blocks_per_group - 1),
        };
        let table_blocks =
            (u64::from(self.u32_at(0x28)) * self.inode_bytes).div_ceil(self.block_bytes);
        for (what, at, high_at, length) in [
            ("block bitmap", 0x0, 0x20, 1),
            ("inode bitmap", 0x4, 0x24, 1),
            ("inode table", 0x8, 0x28, table_blocks),
        ] {
            let begin = self.block_of(descriptor, at, high_at);
            let end = begin.checked_add(length - 1);
            if begin < first || end.is_none_or(|end| end > last) {
                return because(format!("the {what} of its group {group} lies outside"));
            }
        }
        let number = (group as u32).to_le_bytes();
        let stored = u16_of(descriptor, 0x1e);
        let calculated = if let Some(seed) = self.seed {
            let begun = crc32c(crc32c(seed, &number), &descriptor[..0x1e]);
            let begun = crc32c(begun, &[0; 2]);
            Some(crc32c(begun, &descriptor[0x20..]) as u16)
        } else if self.u32_at(0x64) & GROUP_CHECKSUMS != 0 {
            let mut digest = CRC16.digest();
            digest.update(&self.superblock[0x68..0x78]);
            digest.update(&number);
            digest.update(&descriptor[..0x1e]);
            digest.update(&descriptor[0x20..]);
            Some(digest.finalize())
        } else {
            None
        };
        if calculated.is_some_and(|calculated| calculated != stored) {
            return because(format!(
                "the checksum of the descriptor of its group {group} is wrong"
            ));
        }
        Ok(())
    }

    fn block_of(&self, descriptor: &[u8], at: usize, high_at: usize) -> u64 {
        let high = if self.descriptor_bytes > 32 { u32_of(descriptor, high_at) } else { 0 };
        u64::from(high) << 32 | u64::from(u32_of(descriptor, at))
    }

    /// Its journal is a file in it, and begins as a journal does.
    fn check_journal(&self) -> Result<(), NotMounted> {
        if self.u32_at(0x5c) & HAS_JOURNAL == 0 {
            return Ok(());
        }
        let number = self.u32_at(0xe0);
        if number == 0 {
            return because("its journal is on another disk");
        }
        let inode = self.inode(number)?;
        let mode = u16_of(&inode, 0);
        if u16_of(&inode, 0x1a) == 0 || mode & 0xf000 != 0x8000 {
            return because("its journal is no file");
        }
        if let Some(seed) = self.seed
            && !is_inode_right(seed, number, &inode)
        {
            return because("the checksum of its journal's inode is wrong");
        }
        let size_bytes = u64::from(u32_of(&inode, 0x6c)) << 32 | u64::from(u32_of(&inode, 0x4));
        let first = self.first_block(&inode)?;
        let mut journal = [0; JOURNAL_SUPERBLOCK_BYTES];
        self.read_block(&mut journal, first)?;
        let at = |at: usize| u32::from_be_bytes(std::array::from_fn(|n| journal[at + n]));
        let is_second = match (at(0), at(4)) {
            (JOURNAL_MAGIC, 3) => false,
            (JOURNAL_MAGIC, 4) => true,
            _ => return because("its journal does not begin as one"),
        };
        let n_blocks = at(0x10);
        if u64::from(at(0xc)) != self.block_bytes
            || u64::from(n_blocks) > size_bytes / self.block_bytes
            || at(0x14) == 0
            || at(0x14) >= n_blocks
        {
            return because("its journal does not have the size that it says");
        }
        if !is_second {
            return Ok(());
        }
        if at(0x28) & !JOURNAL_FEATURES != 0 {
            return because("its journal has features that are newer than this program");
        }
        if at(0x28) & JOURNAL_CHECKSUMS != 0 {
            let mut without = journal;
            without[0xfc..0x100].fill(0);
            if crc32c(!0, &without) != at(0xfc) {
                return because("the checksum of its journal is wrong");
            }
        }
        Ok(())
    }

    fn read_block(&self, buffer: &mut [u8], block: u64) -> Result<(), NotMounted> {
        if block >= self.n_blocks {
            return because("its journal lies outside");
        }
        Ok((self.read)(buffer, block * self.block_bytes)?)
    }

    fn inode(&self, number: u32) -> Result<Vec<u8>, NotMounted> {
        let per_group = u64::from(self.u32_at(0x28));
        let index = u64::from(number - 1);
        let (group, index) = (index / per_group, index % per_group);
        if group >= self.n_groups {
            return because("its journal's inode is not there");
        }
        let mut descriptor = vec![0; self.descriptor_bytes];
        let at = self.descriptors_at() + group * self.descriptor_bytes as u64;
        (self.read)(&mut descriptor, at)?;
        let table = self.block_of(&descriptor, 0x8, 0x28) * self.block_bytes;
        let mut inode = vec![0; usize::try_from(self.inode_bytes).unwrap_or(0)];
        (self.read)(&mut inode, table + index * self.inode_bytes)?;
        Ok(inode)
    }

    /// The block with which the file begins.
    fn first_block(&self, inode: &[u8]) -> Result<u64, NotMounted> {
        const EXTENTS: u32 = 0x8_0000;
        if u32_of(inode, 0x20) & EXTENTS == 0 {
            return Ok(u32_of(inode, 0x28).into());
        }
        let mut node = [0; 24];
        node.copy_from_slice(&inode[0x28..0x40]);
        for _ in 0..=DEPTH_MAX {
            let (magic, n, depth) = (u16_of(&node, 0), u16_of(&node, 2), u16_of(&node, 6));
            if magic != 0xf30a || n == 0 || depth > DEPTH_MAX || u32_of(&node, 12) != 0 {
                break;
            }
            if depth == 0 {
                let high = u64::from(u16_of(&node, 18));
                return Ok(high << 32 | u64::from(u32_of(&node, 20)));
            }
            let high = u64::from(u16_of(&node, 20));
            let leaf = high << 32 | u64::from(u32_of(&node, 16));
            self.read_block(&mut node, leaf)?;
        }
        because("it can't be told where its journal begins")
    }
}

/// Whether the checksum of an inode is right (`ext4_inode_csum`).
fn is_inode_right(seed: u32, number: u32, inode: &[u8]) -> bool {
    const LOW: std::ops::Range<usize> = 0x7c..0x7e;
    const HIGH: std::ops::Range<usize> = 0x82..0x84;
    let has_high = inode.len() > 128 && u16_of(inode, 0x80) >= 4;
    let mut without = inode.to_vec();
    without[LOW].fill(0);
    if has_high {
        without[HIGH].fill(0);
    }
    let begun = crc32c(crc32c(seed, &number.to_le_bytes()), &inode[0x64..0x68]);
    let calculated = crc32c(begun, &without);
    let high = if has_high { u32::from(u16_of(inode, HIGH.start)) << 16 } else { 0 };
    let stored = high | u32::from(u16_of(inode, LOW.start));
    if has_high { calculated == stored } else { calculated & 0xffff == stored }
}

/// As in the kernel: without the last inversion, and begun with what came before.
fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(before.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

fn u16_of(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
