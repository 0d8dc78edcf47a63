//! GPT, as `block/partitions/efi.c` of the kernel reads it without the parameter `gpt`.

use super::{
    PARTITION_NUMBER_MAX, Partition, PartitionName, SECTOR_BYTES, entries, read_if_there, u32_at,
    u64_at,
};
use crate::block::Block;
use std::io;

/// Type of the entry of a boot record that says: this disk has a GPT.
pub(super) const PROTECTIVE: u8 = 0xee;
/// UEFI 2.10, 5.3.2: a header of revision 1.0.
const HEADER_BYTES_MIN: u32 = 92;
const ENTRY_BYTES: u32 = 128;
/// The kernel's `KMALLOC_MAX_SIZE`: a longer table is no table.
const TABLE_BYTES_MAX: u64 = 4 << 20;

/// The partitions of the GPT; `None` if Linux takes the disk for one without.
pub(super) fn partitions(
    disk: &dyn Block,
    record: &[u8; 512],
    sector_bytes: u64,
) -> io::Result<Option<Vec<Partition>>> {
    if !is_announced(record) {
        return Ok(None);
    }
    // The backup at the disk's end is not looked at if the first header is bad.
    let Header::Valid(table) = header(disk, 1, sector_bytes)? else { return Ok(None) };
    let last_sector = last_sector(disk, sector_bytes);
    let mut partitions = Vec::new();
    for (entry, number) in
        table.chunks_exact(ENTRY_BYTES as usize).take(PARTITION_NUMBER_MAX).zip(1u8..)
    {
        let is_used = entry[..16].iter().any(|&byte| byte != 0);
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if is_used && first <= last && last <= last_sector {
            // Inside of the disk, so that nothing overflows.
            let (offset, size_bytes) = (first * sector_bytes, (last - first + 1) * sector_bytes);
            partitions.push(Partition { number, offset, size_bytes });
        }
    }
    Ok(Some(partitions))
}

/// The names of its partitions; `None` if Linux takes the disk for one without a GPT.
pub(super) fn names(
    disk: &dyn Block,
    record: &[u8; 512],
) -> io::Result<Option<Vec<PartitionName>>> {
    if !is_announced(record) {
        return Ok(None);
    }
    let Header::Valid(table) = header(disk, 1, SECTOR_BYTES)? else { return Ok(None) };
    let used = table.chunks_exact(ENTRY_BYTES as usize).take(PARTITION_NUMBER_MAX);
    let used = used.filter(|entry| entry[..16].iter().any(|&byte| byte != 0));
    let name = |entry: &[u8]| {
        // The first three parts of a GUID are little-endian.
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut uuid = String::new();
        for (at, byte) in order.into_iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                uuid.push('-');
            }
            uuid.push_str(&format!("{:02x}", entry[16 + byte]));
        }
        let letters = entry[56..128].chunks_exact(2);
        let letters = letters.map(|pair| u16::from(pair[0]) | u16::from(pair[1]) << 8);
        let letters: Vec<u16> = letters.take_while(|letter| *letter != 0).collect();
        PartitionName { uuid, label: String::from_utf16_lossy(&letters) }
    };
    Ok(Some(used.map(name).collect()))
}

/// Why a GPT that is there is none for Linux.
pub(super) fn trouble(disk: &dyn Block, record: &[u8; 512]) -> io::Result<Option<String>> {
    let first = header(disk, 1, SECTOR_BYTES)?;
    if let Header::BeyondEnd { disk_bytes } = first {
        let is = disk.size_bytes();
        return Ok(Some(format!(
            "it is cut off: its partition table (GPT) is that of a disk of {disk_bytes} bytes, and it has {is}: copy \
             or download it again"
        )));
    }
    if !is_announced(record) {
        return Ok(matches!(first, Header::Valid(_)).then(|| {
            "it has a GPT, but its first sector doesn't say so (there is no protective MBR), and Linux ignores it: \
             open it with `gdisk` and write the table again"
                .to_owned()
        }));
    }
    if matches!(first, Header::Valid(_)) {
        return Ok(None);
    }
    let last = last_sector(disk, SECTOR_BYTES);
    let backup = header(disk, last, SECTOR_BYTES)?;
    Ok(matches!(backup, Header::Valid(_)).then(|| {
        "the partition table (GPT) at its start is damaged, and Linux doesn't use the backup at its end: repair it \
         with `sgdisk -e` and import again"
            .to_owned()
    }))
}

/// Whether an entry of the boot record stands for the GPT: 0xEE, from sector 1 on.
fn is_announced(record: &[u8; 512]) -> bool {
    entries(record).is_some_and(|entries| {
        entries.iter().any(|entry| entry.kind == PROTECTIVE && entry.start == 1)
    })
}

/// What stands in a sector that should hold a GPT's header.
enum Header {
    /// A header; its table of partitions.
    Valid(Vec<u8>),
    /// A header that belongs to a larger disk.
    BeyondEnd { disk_bytes: u64 },
    /// Nothing that counts.
    Invalid,
}

/// Checks a header and its table as `is_gpt_valid` does.
fn header(disk: &dyn Block, sector: u64, sector_bytes: u64) -> io::Result<Header> {
    let mut bytes = vec![0; sector_bytes as usize];
    let Some(offset) = sector.checked_mul(sector_bytes) else { return Ok(Header::Invalid) };
    if !read_if_there(disk, offset, &mut bytes)? || &bytes[..8] != b"EFI PART" {
        return Ok(Header::Invalid);
    }
    let header_bytes = u32_at(&bytes, 12);
    if !(HEADER_BYTES_MIN..=sector_bytes as u32).contains(&header_bytes) {
        return Ok(Header::Invalid);
    }
    let checksum = u32_at(&bytes, 16);
    bytes[16..20].fill(0);
    if crc32fast::hash(&bytes[..header_bytes as usize]) != checksum || u64_at(&bytes, 24) != sector
    {
        return Ok(Header::Invalid);
    }
    let last_sector = last_sector(disk, sector_bytes);
    let (first_usable, last_usable) = (u64_at(&bytes, 40), u64_at(&bytes, 48));
    if first_usable > last_sector || last_usable > last_sector {
        let n_sectors = u64_at(&bytes, 32).max(sector).max(last_usable).saturating_add(1);
        return Ok(Header::BeyondEnd { disk_bytes: n_sectors.saturating_mul(sector_bytes) });
    }
    let table_bytes = u64::from(u32_at(&bytes, 80)) * u64::from(ENTRY_BYTES);
    if last_usable < first_usable
        || u32_at(&bytes, 84) != ENTRY_BYTES
        || table_bytes == 0
        || table_bytes > TABLE_BYTES_MAX
    {
        return Ok(Header::Invalid);
    }
    let mut table = vec![0; table_bytes as usize];
    let Some(offset) = u64_at(&bytes, 72).checked_mul(sector_bytes) else {
        return Ok(Header::Invalid);
    };
    if !read_if_there(disk, offset, &mut table)? || crc32fast::hash(&table) != u32_at(&bytes, 88) {
        return Ok(Header::Invalid);
    }
    Ok(Header::Valid(table))
}

fn last_sector(disk: &dyn Block, sector_bytes: u64) -> u64 {
    (disk.size_bytes() / sector_bytes).saturating_sub(1)
}
