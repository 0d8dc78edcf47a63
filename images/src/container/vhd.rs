//! VHD (Virtual PC; "Virtual Hard Disk Image Format Specification", 1.0): with a table of blocks, or of fixed size.

use super::{Container, Unfit, be, must_reach, needed};
use crate::block::Block;

const SECTOR_BYTES: u64 = 512;
const DYNAMIC_HEADER_BYTES: u64 = 1024;
const NO_BLOCK: u64 = 0xffff_ffff;
/// `Disk Type`.
const FIXED: u64 = 2;

/// A raw disk, or one of fixed size: that is a raw disk with a sector behind it.
pub(super) fn inspect_fixed(file: &dyn Block) -> Result<Container, Unfit> {
    let disk_bytes = file.size_bytes().saturating_sub(SECTOR_BYTES);
    let footer = needed(file, disk_bytes, SECTOR_BYTES.min(file.size_bytes()))?;
    let is_footer = footer.starts_with(b"conectix")
        && be::<4>(&footer, 60) == FIXED
        && be::<8>(&footer, 48) == disk_bytes;
    Ok(Container { size_bytes: if is_footer { disk_bytes } else { file.size_bytes() } })
}

/// One with a table.
pub(super) fn inspect(file: &dyn Block) -> Result<Container, Unfit> {
    let footer = needed(file, 0, SECTOR_BYTES)?;
    let is_bytes = file.size_bytes();
    let cut = Unfit::Cut { needed_bytes: is_bytes + 1, is_bytes };
    // What stands at its start is a copy of what closes it.
    if is_bytes < 2 * SECTOR_BYTES
        || !needed(file, is_bytes - SECTOR_BYTES, SECTOR_BYTES)?.starts_with(b"conectix")
    {
        return Err(cut);
    }
    let size_bytes = be::<8>(&footer, 48);
    let header = needed(file, be::<8>(&footer, 16), DYNAMIC_HEADER_BYTES)?;
    let block_bytes = be::<4>(&header, 32);
    if !header.starts_with(b"cxsparse") || block_bytes == 0 {
        return Err(Unfit::Damaged("its second header is missing"));
    }
    // A block begins with a bit for each of its sectors.
    let bits_bytes = block_bytes.div_ceil(SECTOR_BYTES * 8).next_multiple_of(SECTOR_BYTES);
    let table = needed(file, be::<8>(&header, 16), be::<4>(&header, 28) * 4)?;
    let mut place: u64 = 0;
    for entry in table.chunks_exact(4) {
        let block = be::<4>(entry, 0);
        let length = size_bytes.saturating_sub(place).min(block_bytes);
        place = place.saturating_add(block_bytes);
        if block != NO_BLOCK && length > 0 {
            must_reach(file, block * SECTOR_BYTES + bits_bytes + length)?;
        }
    }
    Ok(Container { size_bytes })
}
