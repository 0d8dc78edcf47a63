//! Times of files that Linux knows and our reader takes for damage: those before 1970, and those from 2038 to 2106 and later in each
//! round of 136 years. The reader is shown the nearest one that it knows, with a checksum that fits.

use super::checksums::{inode_checksum, is_inode_right, put_checksum, seed_of_inode};
use super::superblock::FileSystem;
use super::{Read, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, u32_of};
use std::collections::BTreeMap;
use std::io;

/// Where an inode has its times, and what more it has of each, from which size on (`struct ext4_inode`).
const TIMES: [(usize, usize); 4] = [(0x8, 0x8c), (0xc, 0x84), (0x10, 0x88), (0x90, 0x94)];
const SIZE_WITH_MORE: usize = 0x98;
const NANOSECONDS: u32 = 1_000_000_000;

/// The tables of inodes of a file system.
pub(crate) struct Times {
    /// Where each begins, and the number of its first inode.
    tables: BTreeMap<u64, u32>,
    table_bytes: u64,
    inode_bytes: usize,
    seed: Option<u32>,
}

impl Times {
    /// Those of the file system that `read` reads; `None` if it is not understood, which others say.
    pub(crate) fn of(read: Read<'_>) -> Option<Self> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        read(&mut superblock, SUPERBLOCK_OFFSET).ok()?;
        let file_system = FileSystem::parse(read, superblock).ok()?;
        let inode_bytes = usize::try_from(file_system.inode_bytes).ok()?;
        let mut tables = BTreeMap::new();
        let mut descriptor = vec![0; file_system.descriptor_bytes];
        for group in 0..file_system.n_groups {
            read(&mut descriptor, file_system.descriptor_at(group)).ok()?;
            let table = file_system.block_of(&descriptor, 0x8, 0x28);
            let first = u32::try_from(group * file_system.inodes_per_group + 1).ok()?;
            tables.insert(table.checked_mul(file_system.block_bytes)?, first);
        }
        let table_bytes = file_system.inodes_per_group * file_system.inode_bytes;
        Some(Self { tables, table_bytes, inode_bytes, seed: file_system.seed })
    }

    /// Changes what was read at an offset, as far as it is of inodes.
    ///
    /// # Errors
    /// An inode that is only there in part can't be read.
    pub(crate) fn mend(&self, bytes: &mut [u8], offset: u64, read: Read<'_>) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let before = self.tables.range(..=offset).next_back();
        for (&table, &first) in before.into_iter().chain(self.tables.range(offset + 1..end)) {
            let (start, stop) =
                (offset.max(table), end.min(table.saturating_add(self.table_bytes)));
            if start >= stop {
                continue;
            }
            let inode_bytes = self.inode_bytes as u64;
            let indices = (start - table) / inode_bytes..(stop - table).div_ceil(inode_bytes);
            for index in indices {
                let at = table + index * inode_bytes;
                let number = first.saturating_add(index as u32);
                match at.checked_sub(offset).filter(|_| at + inode_bytes <= end) {
                    Some(place) => {
                        let place = place as usize;
                        self.mend_inode(number, &mut bytes[place..place + self.inode_bytes]);
                    }
                    None => {
                        let mut whole = vec![0; self.inode_bytes];
                        read(&mut whole, at)?;
                        self.mend_inode(number, &mut whole);
                        let (from, to) = (at.max(offset), (at + inode_bytes).min(end));
                        bytes[(from - offset) as usize..(to - offset) as usize]
                            .copy_from_slice(&whole[(from - at) as usize..(to - at) as usize]);
                    }
                }
            }
        }
        Ok(())
    }

    fn mend_inode(&self, number: u32, inode: &mut [u8]) {
        let has_more = inode.len() >= SIZE_WITH_MORE;
        let times = &TIMES[..if has_more { TIMES.len() } else { 3 }];
        let more = |inode: &[u8], at: usize| if has_more { u32_of(inode, at) } else { 0 };
        let is_strange = |inode: &[u8], &(at, more_at): &(usize, usize)| {
            i32::try_from(u32_of(inode, at)).is_err() || more(inode, more_at) >> 2 >= NANOSECONDS
        };
        if !times.iter().any(|time| is_strange(inode, time)) {
            return;
        }
        let seed = self.seed.map(|seed| seed_of_inode(seed, number, inode));
        if seed.is_some_and(|seed| !is_inode_right(seed, inode)) {
            // It is damaged, and not by its times.
            return;
        }
        for &(at, more_at) in times {
            let (low, round) = (u32_of(inode, at), more(inode, more_at) & 3);
            // What is before 1970 is of round 0: each round but the first begins with the half that the reader does not know.
            let (low, round) = match (i32::try_from(low), round) {
                (Ok(_), round) => (low, round),
                (Err(_), 0) => (0, 0),
                (Err(_), round) => (u32::MAX >> 1, round - 1),
            };
            inode[at..at + 4].copy_from_slice(&low.to_le_bytes());
            if has_more {
                let nanoseconds = more(inode, more_at) >> 2;
                let nanoseconds = if nanoseconds < NANOSECONDS { nanoseconds } else { 0 };
                let value = nanoseconds << 2 | round;
                inode[more_at..more_at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        if let Some(seed) = seed {
            let checksum = inode_checksum(seed, inode);
            put_checksum(inode, checksum);
        }
    }
}
