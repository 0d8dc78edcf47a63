//! The text of a group's metadata: in a ring, of which a header says where the newest begins.

use crate::label::{Area, checksum, u32_at, u64_at};
use crate::{Malformed, ScanError};
use alloc::vec;
use alloc::vec::Vec;

/// Longest text that is read. A group of a thousand logical volumes has half a MiB, and the usual ring has one.
pub const METADATA_BYTES_MAX: u64 = 8 << 20;

const HEADER_BYTES: usize = 512;
const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
const VERSION: u32 = 1;
/// This copy is not kept up to date.
const IGNORED: u32 = 1;

/// Reads the newest text in a metadata area of a physical volume that has so many bytes; `None`: there is none.
pub(crate) fn read<E>(
    area: Area,
    size_bytes: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Option<Vec<u8>>, ScanError<E>> {
    let end = area.offset.checked_add(area.size_bytes);
    if end.is_none_or(|end| end > size_bytes) || area.size_bytes < HEADER_BYTES as u64 {
        return Err(Malformed("its metadata lie beyond its end").into());
    }
    let mut header = [0; HEADER_BYTES];
    read(area.offset, &mut header).map_err(ScanError::Read)?;
    let Some(place) = Place::parse(&header, area)? else { return Ok(None) };
    let length =
        usize::try_from(place.size_bytes).map_err(|_| Malformed("its metadata are too long"))?;
    let mut text = vec![0; length];
    // The ring begins behind the header.
    let to_end = usize::try_from(area.size_bytes - place.offset).unwrap_or(usize::MAX);
    let (first, second) = text.split_at_mut(to_end.min(length));
    read(area.offset + place.offset, first).map_err(ScanError::Read)?;
    if !second.is_empty() {
        read(area.offset + HEADER_BYTES as u64, second).map_err(ScanError::Read)?;
    }
    if checksum(&text) != place.checksum {
        return Err(Malformed("the checksum of its metadata is wrong").into());
    }
    Ok(Some(text))
}

/// Where the newest text begins, counted from the area's start, and how long it is.
struct Place {
    offset: u64,
    size_bytes: u64,
    checksum: u32,
}

impl Place {
    fn parse(header: &[u8; HEADER_BYTES], area: Area) -> Result<Option<Self>, Malformed> {
        if header.get(4..20) != Some(MAGIC) {
            return Err(Malformed("the header of its metadata is missing"));
        }
        let checked = header.get(4..).unwrap_or_default();
        if u32_at(header, 0) != Some(checksum(checked)) {
            return Err(Malformed("the checksum of the header of its metadata is wrong"));
        }
        let is_here = u32_at(header, 20) == Some(VERSION)
            && u64_at(header, 24) == Some(area.offset)
            && u64_at(header, 32) == Some(area.size_bytes);
        if !is_here {
            return Err(Malformed("the header of its metadata is of another place"));
        }
        let place = u64_at(header, 40).zip(u64_at(header, 48)).zip(u32_at(header, 56));
        let Some(((offset, size_bytes), checksum)) = place else { return Ok(None) };
        let is_ignored = u32_at(header, 60).is_some_and(|flags| flags & IGNORED != 0);
        if offset == 0 || size_bytes == 0 || is_ignored {
            return Ok(None);
        }
        let header_bytes = HEADER_BYTES as u64;
        let ring_bytes = area.size_bytes - header_bytes;
        let is_inside = (header_bytes..area.size_bytes).contains(&offset);
        if !is_inside || size_bytes > ring_bytes || size_bytes > METADATA_BYTES_MAX {
            return Err(Malformed("its metadata are too long, or lie outside of their area"));
        }
        Ok(Some(Self { offset, size_bytes, checksum }))
    }
}
