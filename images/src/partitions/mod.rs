//! Partition tables, as Linux reads them: a root's number on the machine is the kernel's, so what counts as a
//! table, and which entry gets which number, is what `block/partitions/` of the kernel says, odd as it may be.
//!
//! A GPT is one if a protective entry is in the MBR; a GPT that an older system left under a fresh MBR is none.
//! Logical partitions count from 5 for each entry with data, whatever boot record it stands in.

mod gpt;
mod msdos;

use crate::block::Block;
use std::io;

/// Where the partitions of a disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The kernel's number, from 1.
    pub(crate) number: u8,
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// How long it is: not beyond the disk's end, whatever the table says.
    pub(crate) size_bytes: u64,
}

/// Bytes of a sector of the disks that machines get, over NBD and AoE alike.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Bytes of a sector of disks that are called 4Kn.
pub(crate) const LARGE_SECTOR_BYTES: u64 = 4096;

/// The highest number; the kernel's `DISK_MAX_PARTS` is one more.
const PARTITION_NUMBER_MAX: usize = 255;

/// The partitions of a disk whose sectors have so many bytes, without extended ones, which hold nothing
/// themselves. Empty if Linux sees no partition table. Never panics.
///
/// # Errors
/// The disk can't be read.
pub(crate) fn partitions(disk: &dyn Block, sector_bytes: u64) -> io::Result<Vec<Partition>> {
    let Some(record) = sector(disk, 0)? else { return Ok(Vec::new()) };
    let entries = match gpt::partitions(disk, &record, sector_bytes)? {
        Some(entries) => entries,
        None => msdos::partitions(disk, &record, sector_bytes)?,
    };
    let disk_bytes = disk.size_bytes();
    // Cut to whole sectors, as the kernel's capacity is.
    let disk_bytes = disk_bytes - disk_bytes % SECTOR_BYTES;
    let mut partitions: Vec<Partition> = Vec::new();
    for Partition { number, offset, size_bytes } in entries {
        if size_bytes == 0 || offset >= disk_bytes {
            continue;
        }
        let size_bytes = size_bytes.min(disk_bytes - offset);
        partitions.push(Partition { number, offset, size_bytes });
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(partitions)
}

/// By what fstab(5) knows a partition, whatever is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionName {
    /// Its `PARTUUID`.
    pub(crate) uuid: String,
    /// Its `PARTLABEL`; empty: it has none.
    pub(crate) label: String,
}

/// The names of the partitions of a disk with the sectors that machines get.
///
/// # Errors
/// The disk can't be read.
pub(crate) fn names(disk: &dyn Block) -> io::Result<Vec<PartitionName>> {
    let Some(record) = sector(disk, 0)? else { return Ok(Vec::new()) };
    if let Some(names) = gpt::names(disk, &record)? {
        return Ok(names);
    }
    let signature = u32_at(&record, 440);
    let partitions = msdos::partitions(disk, &record, SECTOR_BYTES)?;
    let name = |partition: Partition| PartitionName {
        uuid: format!("{signature:08x}-{:02x}", partition.number),
        label: String::new(),
    };
    Ok(partitions.into_iter().map(name).collect())
}

/// Why Linux sees no partitions on a disk on which there is something of a table, and what helps.
///
/// # Errors
/// The disk can't be read.
pub(crate) fn trouble(disk: &dyn Block) -> io::Result<Option<String>> {
    let Some(record) = sector(disk, 0)? else { return Ok(None) };
    if let Some(trouble) = gpt::trouble(disk, &record)? {
        return Ok(Some(trouble));
    }
    if gpt::partitions(disk, &record, LARGE_SECTOR_BYTES)?.is_some() {
        return Ok(Some(
            "its partition table is one for sectors of 4096 bytes (a 4Kn disk), and machines get disks with \
             sectors of 512: import the root partition alone, or copy it to a new disk"
                .to_owned(),
        ));
    }
    Ok(None)
}

/// 512 bytes, counted as the kernel counts sectors, whatever the disk's own sectors are; `None` beyond the end.
fn sector(disk: &dyn Block, offset: u64) -> io::Result<Option<[u8; 512]>> {
    let mut bytes = [0; 512];
    Ok(read_if_there(disk, offset, &mut bytes)?.then_some(bytes))
}

/// Fills the buffer if that lies inside of the disk.
pub(crate) fn read_if_there(disk: &dyn Block, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
    match offset.checked_add(buffer.len() as u64) {
        Some(end) if end <= disk.size_bytes() => disk.read_at(buffer, offset).map(|()| true),
        _ => Ok(false),
    }
}

/// An entry of a boot record.
struct Entry {
    boot_flag: u8,
    kind: u8,
    start: u64,
    n_sectors: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The four entries of a boot record, if it is signed as one.
fn entries(record: &[u8; 512]) -> Option<[Entry; 4]> {
    if record[510..] != [0x55, 0xaa] {
        return None;
    }
    Some(std::array::from_fn(|index| {
        let entry = &record[446 + index * 16..];
        Entry {
            boot_flag: entry[0],
            kind: entry[4],
            start: u64::from(u32_at(entry, 8)),
            n_sectors: u64::from(u32_at(entry, 12)),
        }
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}
