//! VHDX (Hyper-V, \[MS-VHDX\]): regions, of which one holds what the disk is, and one the table of its blocks.

use super::{Container, Unfit, le, must_reach, needed};
use crate::block::Block;

const REGIONS_OFFSET: u64 = 192 << 10;
const REGIONS_BYTES: u64 = 64 << 10;
/// \[MS-VHDX\] 2.2.3: at most so many.
const REGIONS_MAX: u64 = 2047;
const METADATA_BYTES: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// First bytes of the identifiers, which are enough to tell them apart.
const BAT: [u8; 8] = [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42];
const METADATA: [u8; 8] = [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b];
const FILE_PARAMETERS: [u8; 8] = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d];
const DISK_SIZE: [u8; 8] = [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48];
const SECTOR_SIZE: [u8; 8] = [0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47];

/// States of a block: data, all of it or some.
const PRESENT: std::ops::RangeInclusive<u64> = 6..=7;

pub(super) fn inspect(file: &dyn Block) -> Result<Container, Unfit> {
    let regions = needed(file, REGIONS_OFFSET, REGIONS_BYTES)?;
    if !regions.starts_with(b"regi") {
        return Err(Unfit::Damaged("its table of regions is missing"));
    }
    let entries = &regions[16..];
    let n_regions = le::<4>(&regions, 8).min(REGIONS_MAX) as usize;
    let region = |id: [u8; 8]| {
        let found = entries.chunks_exact(32).take(n_regions).find(|entry| entry.starts_with(&id));
        found.map(|entry| (le::<8>(entry, 16), le::<4>(entry, 24)))
    };
    let (Some((table_offset, table_bytes)), Some((metadata_offset, _))) =
        (region(BAT), region(METADATA))
    else {
        return Err(Unfit::Damaged("one of its regions is missing"));
    };
    let metadata = needed(file, metadata_offset, METADATA_BYTES)?;
    let n_items = le::<2>(&metadata, 10) as usize;
    let item = |id: [u8; 8]| -> Result<Vec<u8>, Unfit> {
        let items = metadata[32..].chunks_exact(32).take(n_items);
        let entry = items.clone().find(|entry| entry.starts_with(&id));
        let entry = entry.ok_or(Unfit::Damaged("it does not say what disk it is"))?;
        needed(file, metadata_offset.saturating_add(le::<4>(entry, 16)), 8)
    };
    let parameters = item(FILE_PARAMETERS)?;
    let block_bytes = le::<4>(&parameters, 0);
    if le::<4>(&parameters, 4) & 0b10 != 0 {
        return Err(Unfit::Refused(
            "it holds only the differences to another image; merge both in Hyper-V and import the result",
        ));
    }
    let size_bytes = le::<8>(&item(DISK_SIZE)?, 0);
    let sector_bytes = le::<4>(&item(SECTOR_SIZE)?, 0);
    if !(MIB..=256 * MIB).contains(&block_bytes) || !matches!(sector_bytes, 512 | 4096) {
        return Err(Unfit::Damaged("its blocks or sectors have a size that there is not"));
    }
    // After so many blocks the table has an entry that is of use only with a parent.
    let n_between = (sector_bytes << 23) / block_bytes;
    let n_blocks = size_bytes.div_ceil(block_bytes);
    if n_blocks.saturating_mul(8) > table_bytes {
        return Err(Unfit::Damaged("its table is shorter than its disk"));
    }
    let table = needed(file, table_offset, table_bytes)?;
    for block in 0..n_blocks {
        let entry = le::<8>(&table, ((block + block / n_between) * 8) as usize);
        if PRESENT.contains(&(entry & 7)) {
            let offset = (entry >> 20).saturating_mul(MIB);
            let length = (size_bytes - block * block_bytes).min(block_bytes);
            must_reach(file, offset.saturating_add(length))?;
        }
    }
    Ok(Container { size_bytes })
}
