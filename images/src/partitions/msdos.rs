//! The partition table of a boot record (MBR), as `block/partitions/msdos.c` of the kernel reads it.
//!
//! Partitions inside of those of BSD, Solaris, Unixware and Minix come last there, and are left out here.

use super::gpt::PROTECTIVE;
use super::{Entry, PARTITION_NUMBER_MAX, Partition, entries, sector};
use crate::block::Block;
use std::io;

/// Boot records without data that are followed in a row.
const EMPTY_RECORDS_MAX: usize = 100;
/// The number of the first logical partition.
const FIRST_LOGICAL: usize = 5;

/// The partitions of a disk that has this boot record; none if it is no partition table.
pub(super) fn partitions(
    disk: &dyn Block,
    record: &[u8; 512],
    sector_bytes: u64,
) -> io::Result<Vec<Partition>> {
    let Some(table) = entries(record) else { return Ok(Vec::new()) };
    // Else this is the boot code of a file system.
    if table.iter().any(|entry| entry.boot_flag & 0x7f != 0) {
        return Ok(Vec::new());
    }
    if table.iter().any(|entry| entry.kind == PROTECTIVE) {
        return Ok(Vec::new());
    }
    let mut partitions = Vec::new();
    let mut logical = Logical { sector_bytes, next: FIRST_LOGICAL, found: Vec::new() };
    for (entry, number) in table.iter().zip(1u8..) {
        if entry.n_sectors == 0 {
            continue;
        }
        let (offset, size_bytes) = (entry.start * sector_bytes, entry.n_sectors * sector_bytes);
        if entry.is_extended() {
            logical.follow(disk, offset, size_bytes)?;
        } else {
            // Whatever its type is, even 0.
            partitions.push(Partition { number, offset, size_bytes });
        }
    }
    partitions.append(&mut logical.found);
    Ok(partitions)
}

/// Logical partitions: a chain of boot records inside of an extended partition. Each holds a partition,
/// relative to itself, and the next record, relative to the extended partition. Several extended
/// partitions count on.
struct Logical {
    sector_bytes: u64,
    next: usize,
    found: Vec<Partition>,
}

impl Logical {
    fn follow(&mut self, disk: &dyn Block, first: u64, first_bytes: u64) -> io::Result<()> {
        let (mut place, mut place_bytes) = (first, first_bytes);
        let mut n_empty = 0;
        while n_empty < EMPTY_RECORDS_MAX && self.next <= PARTITION_NUMBER_MAX {
            n_empty += 1;
            let Some(record) = sector(disk, place)? else { return Ok(()) };
            let Some(table) = entries(&record) else { return Ok(()) };
            for (index, entry) in table.iter().enumerate() {
                if entry.n_sectors == 0 || entry.is_extended() {
                    continue;
                }
                let (distance, size_bytes) = self.bytes(entry);
                let offset = place + distance;
                // The third and the fourth are often garbage.
                let is_inside = distance + size_bytes <= place_bytes
                    && offset >= first
                    && offset + size_bytes <= first + first_bytes;
                if index >= 2 && !is_inside {
                    continue;
                }
                let Ok(number) = u8::try_from(self.next) else { return Ok(()) };
                self.found.push(Partition { number, offset, size_bytes });
                self.next += 1;
                n_empty = 0;
            }
            let Some(next) = table.iter().find(|entry| entry.n_sectors > 0 && entry.is_extended())
            else {
                return Ok(());
            };
            let (distance, size_bytes) = self.bytes(next);
            (place, place_bytes) = (first + distance, size_bytes);
        }
        Ok(())
    }

    /// Start and length of an entry. Both are below 16 TiB, so that sums of a few don't overflow.
    fn bytes(&self, entry: &Entry) -> (u64, u64) {
        (entry.start * self.sector_bytes, entry.n_sectors * self.sector_bytes)
    }
}
