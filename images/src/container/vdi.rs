//! VDI (VirtualBox): a table that says which block of the file is which of the disk.

use super::{Container, Unfit, le, must_reach, needed};
use crate::block::Block;

const HEADER_BYTES: u64 = 512;
/// `image_type` of a difference to another file.
const DIFFERENCE: u64 = 4;
/// From here on entries mean: nothing there, or zeroes.
const NO_BLOCK: u64 = 0xffff_fffe;

pub(super) fn inspect(file: &dyn Block) -> Result<Container, Unfit> {
    let header = needed(file, 0, HEADER_BYTES)?;
    if le::<4>(&header, 0x4c) == DIFFERENCE {
        return Err(Unfit::Refused(
            "it holds only the differences to another image; clone it in VirtualBox and import the clone",
        ));
    }
    let table_offset = le::<4>(&header, 0x154);
    let data_offset = le::<4>(&header, 0x158);
    let size_bytes = le::<8>(&header, 0x170);
    let block_bytes = le::<4>(&header, 0x178);
    let n_blocks = le::<4>(&header, 0x180);
    if block_bytes == 0 {
        return Err(Unfit::Damaged("its blocks have no size"));
    }
    let mut place: u64 = 0;
    for entry in needed(file, table_offset, n_blocks * 4)?.chunks_exact(4) {
        let block = le::<4>(entry, 0);
        let length = size_bytes.saturating_sub(place).min(block_bytes);
        place = place.saturating_add(block_bytes);
        if block < NO_BLOCK && length > 0 {
            must_reach(file, (block * block_bytes).saturating_add(data_offset + length))?;
        }
    }
    Ok(Container { size_bytes })
}
