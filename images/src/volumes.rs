//! What is on a disk: partitions and file systems, recognized by their magic bytes.

use crate::block::Block;
use model::FileSystem;
use std::fmt;
use std::io;

const SECTOR_BYTES: u64 = 512;
/// GPT tables have 128 entries; more is allowed, but nobody makes them.
const GPT_ENTRIES_MAX: u32 = 128;
/// Linux looks at no more logical partitions either (`block/partitions/msdos.c` takes 100).
const LOGICAL_PARTITIONS_MAX: usize = 60;

/// A file system, or the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Partition number from 1 as the kernel counts; `None` is the whole disk.
    pub partition: Option<u8>,
    /// Where it begins on the disk.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// What it holds.
    pub content: Content,
}

/// What begins at a place of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file system that can be a root.
    Root(FileSystem),
    /// Something known that is no root, named for people.
    Other(&'static str),
    /// Nothing known.
    Unknown,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(file_system) => file_system.fmt(f),
            Self::Other(name) => f.pad(name),
            Self::Unknown => f.pad("nothing known"),
        }
    }
}

/// Finds the file systems of a disk: the whole of it, or those in its partitions.
///
/// Never panics, whatever the bytes; what lies outside of the disk is left out.
///
/// # Errors
/// The disk can't be read.
pub fn find_volumes(disk: &dyn Block) -> io::Result<Vec<Volume>> {
    let size_bytes = disk.size_bytes();
    let content = content_at(disk, 0)?;
    if matches!(content, Content::Root(_)) {
        // A file system on the whole disk may carry a boot sector that looks like a partition table.
        return Ok(vec![Volume { partition: None, offset: 0, size_bytes, content }]);
    }
    let mut partitions = gpt(disk)?;
    if partitions.is_empty() {
        partitions = mbr(disk)?;
    }
    let mut volumes = Vec::new();
    for (number, offset, length) in partitions {
        if length == 0 || offset.checked_add(length).is_none_or(|end| end > size_bytes) {
            continue;
        }
        let content = content_at(disk, offset)?;
        volumes.push(Volume { partition: Some(number), offset, size_bytes: length, content });
    }
    if volumes.is_empty() && content != Content::Unknown {
        volumes.push(Volume { partition: None, offset: 0, size_bytes, content });
    }
    Ok(volumes)
}

/// (number, offset, length) of each partition.
type Partitions = Vec<(u8, u64, u64)>;

fn gpt(disk: &dyn Block) -> io::Result<Partitions> {
    let mut header = [0; SECTOR_BYTES as usize];
    if !read_if_there(disk, SECTOR_BYTES, &mut header)? || &header[..8] != b"EFI PART" {
        return Ok(Vec::new());
    }
    let table = u64_at(&header, 72).saturating_mul(SECTOR_BYTES);
    let n_entries = u32_at(&header, 80).min(GPT_ENTRIES_MAX);
    let entry_bytes = u32_at(&header, 84);
    if !(128..=4096).contains(&entry_bytes) {
        return Ok(Vec::new());
    }
    let mut partitions = Vec::new();
    for index in 0..n_entries {
        let mut entry = [0; 128];
        let offset = table.saturating_add(u64::from(index) * u64::from(entry_bytes));
        if !read_if_there(disk, offset, &mut entry)? {
            break;
        }
        let is_used = entry[..16].iter().any(|&byte| byte != 0);
        let first = u64_at(&entry, 32);
        let last = u64_at(&entry, 40);
        if is_used && last >= first {
            let length = (last - first).saturating_add(1).saturating_mul(SECTOR_BYTES);
            // At most 128 entries, so the number fits.
            partitions.push((index as u8 + 1, first.saturating_mul(SECTOR_BYTES), length));
        }
    }
    Ok(partitions)
}

fn mbr(disk: &dyn Block) -> io::Result<Partitions> {
    let Some(table) = boot_record(disk, 0)? else { return Ok(Vec::new()) };
    let mut partitions = Vec::new();
    let mut extended = None;
    for (entry, number) in table.iter().zip(1u8..) {
        match entry.kind {
            0 => {}
            0x05 | 0x0f | 0x85 => extended = extended.or(Some(entry.start)),
            _ => partitions.push((number, entry.start, entry.length)),
        }
    }
    // Logical partitions: a chain of boot records inside of the extended partition. Each holds one
    // partition, relative to itself, and the next record, relative to the extended partition.
    if let Some(base) = extended {
        let mut record = base;
        for number in 5..5 + LOGICAL_PARTITIONS_MAX as u8 {
            let Some(table) = boot_record(disk, record)? else { break };
            let logical = &table[0];
            if logical.kind != 0 {
                partitions.push((number, record.saturating_add(logical.start), logical.length));
            }
            let next = &table[1];
            if next.kind == 0 || next.start == 0 {
                break;
            }
            record = base.saturating_add(next.start);
        }
    }
    Ok(partitions)
}

struct BootRecordEntry {
    kind: u8,
    start: u64,
    length: u64,
}

/// The four entries of a boot record, in bytes; `None` if it is none.
fn boot_record(disk: &dyn Block, offset: u64) -> io::Result<Option<[BootRecordEntry; 4]>> {
    let mut sector = [0; SECTOR_BYTES as usize];
    if !read_if_there(disk, offset, &mut sector)? || sector[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    // A boot flag is 0 or 0x80; else this is the boot code of a file system, not a table.
    if (0..4).any(|index| sector[446 + index * 16] & 0x7f != 0) {
        return Ok(None);
    }
    Ok(Some(std::array::from_fn(|index| {
        let entry = &sector[446 + index * 16..];
        BootRecordEntry {
            kind: entry[4],
            start: u64::from(u32_at(entry, 8)) * SECTOR_BYTES,
            length: u64::from(u32_at(entry, 12)) * SECTOR_BYTES,
        }
    })))
}

/// What begins at `offset`.
fn content_at(disk: &dyn Block, offset: u64) -> io::Result<Content> {
    let has = |at: u64, magic: &[u8]| -> io::Result<bool> {
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..magic.len()];
        Ok(read_if_there(disk, offset.saturating_add(at), bytes)? && bytes == magic)
    };
    let roots = FileSystem::MARKS.map(|(at, magic, kind)| (at, magic, Content::Root(kind)));
    let others: [(u64, &[u8], Content); 9] = [
        (0, b"LUKS\xba\xbe", Content::Other("an encrypted volume (LUKS)")),
        (512, b"LABELONE", Content::Other("an LVM physical volume (use an image without LVM)")),
        (4086, b"SWAPSPACE2", Content::Other("swap space")),
        (3, b"NTFS    ", Content::Other("NTFS")),
        (3, b"EXFAT   ", Content::Other("exFAT")),
        (82, b"FAT32   ", Content::Other("FAT")),
        (54, b"FAT16   ", Content::Other("FAT")),
        (54, b"FAT12   ", Content::Other("FAT")),
        (0x8001, b"CD001", Content::Other("an ISO 9660 CD image")),
    ];
    for (at, magic, content) in roots.into_iter().chain(others) {
        if has(at, magic)? {
            return Ok(content);
        }
    }
    Ok(Content::Unknown)
}

/// Fills the buffer if that lies inside of the disk.
fn read_if_there(disk: &dyn Block, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
    match offset.checked_add(buffer.len() as u64) {
        Some(end) if end <= disk.size_bytes() => disk.read_at(buffer, offset).map(|()| true),
        _ => Ok(false),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use proptest::prelude::*;

    const EXT4: Content = Content::Root(FileSystem::Ext4);

    /// An empty disk of 2 MiB with ext4's magic at these offsets.
    fn disk(file_systems: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; 2 << 20];
        for offset in file_systems {
            bytes[offset + 0x438..offset + 0x43a].copy_from_slice(&[0x53, 0xef]);
        }
        bytes
    }

    fn entry(bytes: &mut [u8], record: usize, index: usize, kind: u8, start: u32, length: u32) {
        let at = record + 446 + index * 16;
        bytes[at + 4] = kind;
        bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        bytes[record + 510..record + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn found(bytes: Vec<u8>) -> Vec<(Option<u8>, u64, Content)> {
        let volumes = find_volumes(&Memory::new(bytes)).unwrap();
        volumes.iter().map(|volume| (volume.partition, volume.offset, volume.content)).collect()
    }

    #[test]
    fn a_file_system_on_the_whole_disk() {
        assert_eq!(found(disk(&[0])), [(None, 0, EXT4)]);
        assert_eq!(found(disk(&[])), []);
    }

    #[test]
    fn primary_and_logical_partitions() {
        let mut bytes = disk(&[1 << 20, 0x50000]);
        entry(&mut bytes, 0, 0, 0x83, 2048, 2048);
        entry(&mut bytes, 0, 1, 0x05, 512, 1024);
        // First logical partition at sector 512 + 128, the second record at 512 + 256.
        entry(&mut bytes, 512 * 512, 0, 0x83, 128, 100);
        entry(&mut bytes, 512 * 512, 1, 0x05, 256, 256);
        entry(&mut bytes, 768 * 512, 0, 0x82, 16, 64);
        assert_eq!(
            found(bytes),
            [
                (Some(1), 1 << 20, EXT4),
                (Some(5), 0x50000, EXT4),
                (Some(6), 784 * 512, Content::Unknown)
            ]
        );
    }

    #[test]
    fn a_chain_of_logical_partitions_that_runs_in_a_circle_ends() {
        let mut bytes = disk(&[]);
        entry(&mut bytes, 0, 0, 0x05, 512, 1024);
        entry(&mut bytes, 512 * 512, 1, 0x05, 256, 256);
        entry(&mut bytes, 768 * 512, 0, 0x83, 16, 64);
        entry(&mut bytes, 768 * 512, 1, 0x05, 256, 256);
        assert!(found(bytes).len() <= LOGICAL_PARTITIONS_MAX);
    }

    fn gpt_disk() -> Vec<u8> {
        let mut bytes = disk(&[1 << 20]);
        entry(&mut bytes, 0, 0, 0xee, 1, 4095);
        bytes[512..520].copy_from_slice(b"EFI PART");
        bytes[584..592].copy_from_slice(&2u64.to_le_bytes());
        bytes[592..596].copy_from_slice(&128u32.to_le_bytes());
        bytes[596..600].copy_from_slice(&128u32.to_le_bytes());
        let second = 1024 + 128;
        bytes[second..second + 16].fill(7);
        bytes[second + 32..second + 40].copy_from_slice(&2048u64.to_le_bytes());
        bytes[second + 40..second + 48].copy_from_slice(&4000u64.to_le_bytes());
        bytes
    }

    #[test]
    fn gpt_partitions() {
        assert_eq!(found(gpt_disk()), [(Some(2), 1 << 20, EXT4)]);
    }

    #[test]
    fn no_prefix_of_a_disk_panics() {
        let bytes = gpt_disk();
        for length in (0..4096).chain([1 << 20, (1 << 20) + 0x439]) {
            let _ = find_volumes(&Memory::new(bytes[..length].to_vec())).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_partition_table_panics(
            table in proptest::collection::vec(any::<u8>(), 64),
            header in proptest::collection::vec(any::<u8>(), 512 + 1024),
        ) {
            let mut bytes = vec![0; 8192];
            bytes[446..510].copy_from_slice(&table);
            for flag in [446, 462, 478, 494] {
                bytes[flag] = 0;
            }
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            let _ = find_volumes(&Memory::new(bytes.clone())).unwrap();
            bytes[512..2048].copy_from_slice(&header);
            bytes[512..520].copy_from_slice(b"EFI PART");
            let _ = find_volumes(&Memory::new(bytes.clone())).unwrap();
            bytes[584..592].copy_from_slice(&2u64.to_le_bytes());
            bytes[596..600].copy_from_slice(&128u32.to_le_bytes());
            let _ = find_volumes(&Memory::new(bytes)).unwrap();
        }
    }
}
