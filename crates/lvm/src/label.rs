//! The label of a physical volume: which one it is, and where its metadata are (`lib/format_text/layout.h` of LVM2).

use crate::Malformed;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes at the start of a physical volume within which its label is: the first four sectors.
pub const LABEL_BYTES: usize = 4 * SECTOR_BYTES;

const SECTOR_BYTES: usize = 512;
const MARK: &[u8] = b"LABELONE";
const KIND: &[u8] = b"LVM2 001";
/// What is behind this, up to the sector's end, is covered by the checksum.
const CHECKED_FROM: usize = 20;
/// Two are the most that LVM makes.
const AREAS_MAX: usize = 16;

/// A part of a physical volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

/// Which physical volume something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// 32 letters and digits.
    pub(crate) id: String,
    pub(crate) metadata: Vec<Area>,
}

impl Label {
    /// Reads the first [`LABEL_BYTES`] of a place; `None`: it is no physical volume.
    ///
    /// # Errors
    /// It has the mark of one, and is damaged.
    pub fn parse(start: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut damage = None;
        for (index, sector) in start.chunks_exact(SECTOR_BYTES).take(4).enumerate() {
            if !sector.starts_with(MARK) || sector.get(24..32) != Some(KIND) {
                continue;
            }
            // One that was copied elsewhere with what was around it is none.
            if u64_at(sector, 8) != Some(index as u64) {
                damage = Some(Malformed("its label is not where it says"));
                continue;
            }
            let checked = sector.get(CHECKED_FROM..).unwrap_or_default();
            if u32_at(sector, 16) != Some(checksum(checked)) {
                damage = Some(Malformed("the checksum of its label is wrong"));
                continue;
            }
            return Self::parse_sector(sector).map(Some);
        }
        damage.map_or(Ok(None), Err)
    }

    fn parse_sector(sector: &[u8]) -> Result<Self, Malformed> {
        let cut = Malformed("its label is cut off");
        let header = u32_at(sector, 20).and_then(|at| sector.get(usize::try_from(at).ok()?..));
        let header = header.ok_or_else(|| cut.clone())?;
        let id = header.get(..32).ok_or_else(|| cut.clone())?;
        let id = core::str::from_utf8(id).ok().filter(|id| is_id(id));
        let id = id.ok_or(Malformed("its label has no identity"))?;
        // Behind the size of the device.
        let mut rest = header.get(40..).ok_or_else(|| cut.clone())?;
        let mut next_areas = || -> Option<Vec<Area>> {
            let mut areas = Vec::new();
            loop {
                let area = Area { offset: u64_at(rest, 0)?, size_bytes: u64_at(rest, 8)? };
                rest = rest.get(16..)?;
                if area.offset == 0 {
                    return Some(areas);
                }
                if areas.len() < AREAS_MAX {
                    areas.push(area);
                }
            }
        };
        // Where data may be comes first; what counts of that is in the metadata.
        let areas = next_areas().and_then(|_data| next_areas());
        Ok(Self { id: id.into(), metadata: areas.ok_or(cut)? })
    }
}

/// An identity without the lines that LVM shows in it.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#".contains(&byte))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// CRC-32 with a start of LVM's own, and without the inversion at its end.
const CRC: crc::Algorithm<u32> = crc::Algorithm {
    width: 32,
    poly: 0x04c1_1db7,
    init: 0xf597_a6cf_u32.reverse_bits(),
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
};

pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: crc::Crc<u32> = crc::Crc::<u32>::new(&CRC);
    TABLE.checksum(bytes)
}
