//! qcow2 (QEMU, `docs/interop/qcow2.rst`): a table of tables of clusters.

use super::{Container, Unfit, be, must_reach, needed};
use crate::block::Block;

/// `qemu-img` takes no longer first table.
const L1_BYTES_MAX: u64 = 32 << 20;
const SECTOR_BYTES: u64 = 512;
/// Where a table or a cluster of data is, in an entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// Incompatible features.
const CORRUPT: u64 = 1 << 1;
const EXTENDED_L2: u64 = 1 << 4;

pub(super) fn inspect(file: &dyn Block) -> Result<Container, Unfit> {
    let header = needed(file, 0, 72)?;
    let version = be::<4>(&header, 4);
    let features = if version >= 3 { be::<8>(&needed(file, 72, 8)?, 0) } else { 0 };
    if features & CORRUPT != 0 {
        return Err(Unfit::Refused(
            "QEMU has marked it as corrupt; repair a copy with `qemu-img check -r all` and import that",
        ));
    }
    let cluster_bits = be::<4>(&header, 20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(Unfit::Damaged("its clusters have a size that there is not"));
    }
    let cluster_bytes = 1_u64 << cluster_bits;
    let entry_bytes = if features & EXTENDED_L2 == 0 { 8 } else { 16 };
    let layout = Layout {
        size_bytes: be::<8>(&header, 24),
        cluster_bits,
        cluster_bytes,
        entry_bytes,
        // The last cluster may be there in part only; but a file that is no whole number of sectors was not
        // written by QEMU to its end.
        slack_bytes: if file.size_bytes().is_multiple_of(SECTOR_BYTES) {
            cluster_bytes - 1
        } else {
            0
        },
    };
    let l1_bytes = be::<4>(&header, 36) * 8;
    if l1_bytes > L1_BYTES_MAX {
        return Err(Unfit::Damaged("its first table is too long"));
    }
    let l1 = needed(file, be::<8>(&header, 40), l1_bytes)?;
    let table_covers = cluster_bytes / entry_bytes * cluster_bytes;
    // Each table is there once; more of them than clusters is a circle or an attack.
    let mut n_tables = file.size_bytes() / cluster_bytes + 1;
    for (index, entry) in (0u64..).zip(l1.chunks_exact(8)) {
        let offset = be::<8>(entry, 0) & OFFSET;
        if offset == 0 {
            continue;
        }
        n_tables = n_tables
            .checked_sub(1)
            .ok_or(Unfit::Damaged("it has more tables than there is room for"))?;
        let table = needed(file, offset, cluster_bytes)?;
        layout.follow(file, index.saturating_mul(table_covers), &table)?;
    }
    Ok(Container { size_bytes: layout.size_bytes })
}

struct Layout {
    size_bytes: u64,
    cluster_bits: u64,
    cluster_bytes: u64,
    entry_bytes: u64,
    slack_bytes: u64,
}

impl Layout {
    /// Checks that all clusters of a second table, which begins at `start` of the disk, are there.
    fn follow(&self, file: &dyn Block, start: u64, table: &[u8]) -> Result<(), Unfit> {
        let mut place = start;
        for entry in table.chunks_exact(self.entry_bytes as usize) {
            let entry = be::<8>(entry, 0);
            // What lies behind the disk's end needs not be there.
            let length = self.size_bytes.saturating_sub(place).min(self.cluster_bytes);
            place = place.saturating_add(self.cluster_bytes);
            if entry & COMPRESSED != 0 {
                let offset_bits = 62 - (self.cluster_bits - 8);
                let offset = entry & ((1 << offset_bits) - 1);
                let n_more = (entry & (COMPRESSED - 1)) >> offset_bits;
                let end = (offset - offset % SECTOR_BYTES) + (n_more + 1) * SECTOR_BYTES;
                // The data ends somewhere in the last sector.
                must_reach(file, end - (SECTOR_BYTES - 1))?;
            } else {
                let offset = entry & OFFSET;
                let is_zero = self.entry_bytes == 8 && entry & ZERO != 0;
                if !offset.is_multiple_of(self.cluster_bytes) {
                    return Err(Unfit::Damaged("a table of it is overwritten"));
                }
                if offset != 0 && !is_zero {
                    must_reach(file, (offset + length).saturating_sub(self.slack_bytes))?;
                }
            }
        }
        Ok(())
    }
}
