//! VMDK in one sparse file (VMware, "Virtual Disk Format 5.0"): a directory of tables of grains.

use super::{Container, Unfit, le, must_reach, needed};
use crate::block::Block;

const SECTOR_BYTES: u64 = 512;
const HEADER_BYTES: u64 = 512;
/// In a stream the directory comes last, and a second header before the end says where.
const AT_END: u64 = u64::MAX;
/// Footer and end-of-stream marker.
const FOOTER_FROM_END: u64 = 1024;
const MARKER_BYTES: u64 = 12;
/// `flags`.
const COMPRESSED: u64 = 1 << 16;
const MARKERS: u64 = 1 << 17;
/// Grains that are not there, or known to be zero.
const NO_GRAIN_MAX: u64 = 1;

pub(super) fn inspect(file: &dyn Block) -> Result<Container, Unfit> {
    let mut header = needed(file, 0, HEADER_BYTES)?;
    // One file that is a whole disk has a text in it that says so.
    let text_offset = sectors(le::<8>(&header, 28));
    if text_offset == 0 || needed(file, text_offset, 1)? == [0] {
        return Err(Unfit::Refused(
            "it is one of several files of a disk; make one file of all of them with \
             `qemu-img convert -f vmdk -O qcow2 DESCRIPTOR.vmdk DISK.qcow2` and import that",
        ));
    }
    if le::<8>(&header, 56) == AT_END {
        let at = file.size_bytes().saturating_sub(FOOTER_FROM_END);
        header = needed(file, at, HEADER_BYTES)?;
        if !header.starts_with(b"KDMV") {
            let is_bytes = file.size_bytes();
            return Err(Unfit::Cut { needed_bytes: is_bytes + 1, is_bytes });
        }
    }
    let capacity = le::<8>(&header, 12);
    let grain_sectors = le::<8>(&header, 20);
    let n_entries = le::<4>(&header, 44);
    if grain_sectors == 0 || grain_sectors > 1 << 20 || n_entries == 0 || n_entries > 1 << 20 {
        return Err(Unfit::Damaged("its grains have a size that there is not"));
    }
    let Some(size_bytes) = capacity.checked_mul(SECTOR_BYTES) else {
        return Err(Unfit::Damaged("its size is impossible"));
    };
    let is_packed = le::<4>(&header, 8) & (COMPRESSED | MARKERS) != 0;
    let n_tables = capacity.div_ceil(grain_sectors * n_entries);
    let directory = needed(file, sectors(le::<8>(&header, 56)), n_tables.saturating_mul(4))?;
    // Each is there once.
    let mut n_left = file.size_bytes() / (n_entries * 4) + 1;
    let mut place: u64 = 0;
    for entry in directory.chunks_exact(4) {
        let offset = sectors(le::<4>(entry, 0));
        if offset == 0 {
            place = place.saturating_add(grain_sectors * n_entries);
            continue;
        }
        n_left = n_left
            .checked_sub(1)
            .ok_or(Unfit::Damaged("it has more tables than there is room for"))?;
        for entry in needed(file, offset, n_entries * 4)?.chunks_exact(4) {
            let grain = le::<4>(entry, 0);
            let length = capacity.saturating_sub(place).min(grain_sectors);
            place = place.saturating_add(grain_sectors);
            if grain <= NO_GRAIN_MAX || length == 0 {
                continue;
            }
            let offset = sectors(grain);
            let end = if is_packed {
                // Where it belongs, and how long it is.
                let marker = needed(file, offset, MARKER_BYTES)?;
                offset + MARKER_BYTES + le::<4>(&marker, 8)
            } else {
                offset + sectors(length)
            };
            must_reach(file, end)?;
        }
    }
    Ok(Container { size_bytes })
}

fn sectors(number: u64) -> u64 {
    number.saturating_mul(SECTOR_BYTES)
}
