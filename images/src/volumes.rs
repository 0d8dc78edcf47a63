//! What is on a disk: partitions and file systems, recognized by their magic bytes.

use crate::block::Block;
use crate::logical::{Logical, Physical, Useless, logical_volumes};
use crate::partitions::{LARGE_SECTOR_BYTES, SECTOR_BYTES, partitions, read_if_there};
use model::FileSystem;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A file system, or the place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Partition number from 1 as the kernel counts; `None` is the whole disk, or a logical volume.
    pub partition: Option<u8>,
    /// The logical volume that it is.
    pub logical: Option<Logical>,
    /// Where it begins: on the disk, or of what the logical volume consists.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// What it holds.
    pub content: Content,
}

impl Volume {
    /// Where to read it: what it lies on, and where it begins there.
    pub(crate) fn view(&self, disk: Arc<dyn Block>) -> (Arc<dyn Block>, u64) {
        match &self.logical {
            Some(logical) => (logical.view(disk), self.offset),
            None => (disk, self.offset),
        }
    }
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

/// Finds the file systems of a disk: one on the whole of it, and those in its partitions.
///
/// Both may be there: a disk that was one file system before it got a partition table, for whoever makes a file
/// system clears the place of the table. So the whole disk comes last, behind the logical volumes that lie on the disk.
/// Which partition has which number, and what is a partition table at all, is as in Linux. Never panics, whatever the
/// bytes.
///
/// # Errors
/// The disk can't be read.
pub fn find_volumes(disk: &Arc<dyn Block>) -> io::Result<Vec<Volume>> {
    Ok(look(disk)?.0)
}

/// As [`find_volumes`], with the logical volumes that are of no use, and why.
pub(crate) fn look(disk: &Arc<dyn Block>) -> io::Result<(Vec<Volume>, Vec<Useless>)> {
    let content = content_at(disk.as_ref(), 0, disk.size_bytes())?;
    let size_bytes = disk.size_bytes();
    let whole = Volume { partition: None, logical: None, offset: 0, size_bytes, content };
    let mut volumes = volumes_in_partitions(disk.as_ref(), SECTOR_BYTES)?;
    let physical = volumes.iter().chain([&whole]).filter(|it| it.content == Content::Other(LVM));
    let physical: Vec<Physical> = physical
        .map(|&Volume { partition, offset, size_bytes, .. }| Physical {
            partition,
            offset,
            size_bytes,
        })
        .collect();
    let (logical, useless) = logical_volumes(disk, &physical)?;
    for logical in logical {
        let size_bytes = logical.size_bytes();
        let content = content_at(logical.view(Arc::clone(disk)).as_ref(), 0, size_bytes)?;
        let logical = Some(logical);
        volumes.push(Volume { partition: None, logical, offset: 0, size_bytes, content });
    }
    let is_root = matches!(content, Content::Root(_));
    if is_root || (volumes.is_empty() && content != Content::Unknown) {
        volumes.push(whole);
    }
    Ok((volumes, useless))
}

/// The file systems in partitions, if the disk's sectors had 4096 bytes.
///
/// # Errors
/// The disk can't be read.
pub(crate) fn volumes_of_large_sectors(disk: &dyn Block) -> io::Result<Vec<Volume>> {
    volumes_in_partitions(disk, LARGE_SECTOR_BYTES)
}

fn volumes_in_partitions(disk: &dyn Block, sector_bytes: u64) -> io::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for partition in partitions(disk, sector_bytes)? {
        let content = content_at(disk, partition.offset, partition.size_bytes)?;
        volumes.push(Volume {
            partition: Some(partition.number),
            logical: None,
            offset: partition.offset,
            size_bytes: partition.size_bytes,
            content,
        });
    }
    Ok(volumes)
}

/// By what things are recognized that are no root: where the mark stands, the mark, and what it is.
const OTHERS: [(u64, &[u8], &str); 30] = [
    (0, b"LUKS\xba\xbe", LUKS),
    (3, b"-FVE-FS-", "an encrypted volume (BitLocker)"),
    // The label is in one of the first four sectors.
    (0, b"LABELONE", LVM),
    (512, b"LABELONE", LVM),
    (1024, b"LABELONE", LVM),
    (1536, b"LABELONE", LVM),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], RAID),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], RAID),
    // One for each page size.
    (4086, b"SWAPSPACE2", SWAP),
    (8182, b"SWAPSPACE2", SWAP),
    (16374, b"SWAPSPACE2", SWAP),
    (65526, b"SWAPSPACE2", SWAP),
    (4086, b"S1SUSPEND", "swap space with a hibernated system"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS"),
    ((64 << 10) + 52, b"ReIsEr", "ReiserFS"),
    (32 << 10, b"JFS1", "JFS"),
    (4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], "bcachefs"),
    (4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "bcache"),
    // The first uberblocks of a ZFS label, little-endian.
    (128 << 10, &[0x0c, 0xb1, 0xba, 0], "ZFS"),
    (132 << 10, &[0x0c, 0xb1, 0xba, 0], "ZFS"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"ReFS", "ReFS"),
    (32, b"NXSB", "APFS"),
    (1024, b"H+\0\x04", "HFS+"),
    (82, b"FAT32   ", FAT),
    (54, b"FAT16   ", FAT),
    (54, b"FAT12   ", FAT),
    (0x8001, b"CD001", ISO),
    // Two bytes only, so they come last.
    (1030, &[0x34, 0x34], "NILFS2"),
];
const SWAP: &str = "swap space";
pub(crate) const FAT: &str = "FAT";
pub(crate) const ISO: &str = "an ISO 9660 CD image";
pub(crate) const LUKS: &str = "an encrypted volume (LUKS)";
pub(crate) const LVM: &str = "an LVM physical volume";
pub(crate) const RAID: &str = "a part of a RAID (md)";

/// What begins at `offset`, in a place of this size.
fn content_at(disk: &dyn Block, offset: u64, size_bytes: u64) -> io::Result<Content> {
    let has = |at: u64, magic: &[u8]| -> io::Result<bool> {
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..magic.len()];
        // What lies behind the partition is another's.
        let is_inside = at + magic.len() as u64 <= size_bytes;
        Ok(is_inside && read_if_there(disk, offset.saturating_add(at), bytes)? && bytes == magic)
    };
    for (at, magic, kind) in FileSystem::MARKS {
        if has(at, magic)? {
            return Ok(Content::Root(kind));
        }
    }
    for (at, magic, name) in OTHERS {
        if has(at, magic)? {
            return Ok(Content::Other(name));
        }
    }
    Ok(Content::Unknown)
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

    fn memory(bytes: Vec<u8>) -> Arc<dyn Block> {
        Arc::new(Memory::new(bytes))
    }

    fn entry(bytes: &mut [u8], record: usize, index: usize, kind: u8, start: u32, length: u32) {
        let at = record + 446 + index * 16;
        bytes[at + 4] = kind;
        bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        bytes[record + 510..record + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn found(bytes: Vec<u8>) -> Vec<(Option<u8>, u64, Content)> {
        let volumes = find_volumes(&memory(bytes)).unwrap();
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
        assert!(found(bytes).len() <= 255);
    }

    /// Writes a header and a table of 128 entries, of which the second is used: sectors `first` to `last`.
    fn gpt(bytes: &mut [u8], sector: usize, header_at: usize, table_at: usize, used: [usize; 2]) {
        let n_sectors = bytes.len() / sector;
        let table = table_at * sector;
        bytes[table + 128..table + 144].fill(7);
        for (at, value) in [(160, used[0]), (168, used[1])] {
            bytes[table + at..table + at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        let table_sum = crc32fast::hash(&bytes[table..table + 128 * 128]);
        let header = header_at * sector;
        let other = if header_at == 1 { n_sectors - 1 } else { 1 };
        bytes[header..header + 8].copy_from_slice(b"EFI PART");
        let numbers =
            [(24, header_at), (32, other), (40, 64), (48, n_sectors - 34), (72, table_at)];
        for (at, value) in numbers {
            bytes[header + at..header + at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        for (at, value) in [(12, 92), (80, 128), (84, 128), (88, table_sum)] {
            bytes[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let header_sum = crc32fast::hash(&bytes[header..header + 92]);
        bytes[header + 16..header + 20].copy_from_slice(&header_sum.to_le_bytes());
    }

    fn gpt_disk() -> Vec<u8> {
        let mut bytes = disk(&[1 << 20]);
        entry(&mut bytes, 0, 0, 0xee, 1, 4095);
        gpt(&mut bytes, 512, 1, 2, [2048, 4000]);
        bytes
    }

    fn trouble_of(bytes: Vec<u8>) -> String {
        assert_eq!(found(bytes.clone()), []);
        crate::partitions::trouble(&Memory::new(bytes)).unwrap().unwrap()
    }

    #[test]
    fn gpt_partitions() {
        assert_eq!(found(gpt_disk()), [(Some(2), 1 << 20, EXT4)]);
    }

    #[test]
    fn a_gpt_that_linux_does_not_take_is_none_and_is_named() {
        // A fresh partition table over an old GPT: the old one doesn't count.
        let mut bytes = gpt_disk();
        entry(&mut bytes, 0, 0, 0x83, 2048, 2048);
        assert_eq!(found(bytes.clone()), [(Some(1), 1 << 20, EXT4)]);
        // A hybrid: the GPT counts.
        entry(&mut bytes, 0, 1, 0xee, 1, 2047);
        assert_eq!(found(bytes), [(Some(2), 1 << 20, EXT4)]);

        let mut without_mbr = gpt_disk();
        without_mbr[510] = 0;
        assert!(trouble_of(without_mbr).contains("no protective MBR"));
        let mut damaged = gpt_disk();
        damaged[1024 + 128] ^= 1;
        assert!(crate::partitions::trouble(&Memory::new(damaged.clone())).unwrap().is_none());
        assert_eq!(found(damaged), []);
        let mut backup_only = gpt_disk();
        gpt(&mut backup_only, 512, 4095, 4063, [2048, 4000]);
        backup_only[512..600].fill(0);
        assert!(trouble_of(backup_only).contains("backup at its end"));
        let mut cut = gpt_disk();
        cut.truncate(3 << 19);
        assert!(trouble_of(cut).contains("of a disk of 2097152 bytes, and it has 1572864"));
        let mut large_sectors = disk(&[1 << 20]);
        entry(&mut large_sectors, 0, 0, 0xee, 1, 511);
        gpt(&mut large_sectors, 4096, 1, 2, [256, 400]);
        let volumes = volumes_of_large_sectors(&Memory::new(large_sectors.clone())).unwrap();
        assert_eq!((volumes[0].offset, volumes[0].content), (1 << 20, EXT4));
        assert!(trouble_of(large_sectors).contains("4Kn"));
    }

    #[test]
    fn oddities_of_boot_records_are_as_in_linux() {
        // The first record of the chain is empty: its partition does not take a number.
        let mut bytes = disk(&[0x50000]);
        entry(&mut bytes, 0, 0, 0x05, 512, 1024);
        entry(&mut bytes, 512 * 512, 1, 0x05, 64, 256);
        entry(&mut bytes, 576 * 512, 0, 0x83, 64, 100);
        assert_eq!(found(bytes), [(Some(5), 0x50000, EXT4)]);
        // Type 0 with a length is a partition; one that ends behind the disk is cut to it.
        let mut bytes = disk(&[1 << 20]);
        entry(&mut bytes, 0, 2, 0, 2048, 9999);
        let volumes = find_volumes(&memory(bytes)).unwrap();
        assert_eq!((volumes[0].partition, volumes[0].size_bytes), (Some(3), 1 << 20));
        // All four entries of a logical record may hold data, and two extended partitions count on.
        let mut bytes = disk(&[0x50000, 0x90000]);
        entry(&mut bytes, 0, 0, 0x05, 512, 512);
        entry(&mut bytes, 0, 1, 0x0f, 1024, 512);
        entry(&mut bytes, 512 * 512, 0, 0x83, 32, 16);
        entry(&mut bytes, 512 * 512, 2, 0x83, 128, 100);
        entry(&mut bytes, 512 * 512, 3, 0x83, 128, 4000);
        entry(&mut bytes, 1024 * 512, 0, 0x83, 128, 100);
        let numbers: Vec<_> =
            found(bytes).into_iter().map(|(number, offset, _)| (number, offset)).collect();
        assert_eq!(numbers, [(Some(5), 544 * 512), (Some(6), 0x50000), (Some(7), 0x90000)]);
        // The boot code of a file system is no table.
        let mut bytes = disk(&[1 << 20]);
        entry(&mut bytes, 0, 0, 0x83, 2048, 2048);
        bytes[446] = 0x41;
        assert_eq!(found(bytes), []);
    }

    #[test]
    fn a_file_system_may_be_older_than_the_partition_table() {
        let mut bytes = disk(&[0, 1 << 20]);
        entry(&mut bytes, 0, 0, 0x83, 2048, 2048);
        assert_eq!(found(bytes), [(Some(1), 1 << 20, EXT4), (None, 0, EXT4)]);
    }

    #[test]
    fn no_prefix_of_a_disk_panics() {
        let bytes = gpt_disk();
        for length in (0..4096).chain([1 << 20, (1 << 20) + 0x439]) {
            let disk = memory(bytes[..length].to_vec());
            let _ = find_volumes(&disk).unwrap();
            let _ = volumes_of_large_sectors(disk.as_ref()).unwrap();
            let _ = crate::partitions::trouble(disk.as_ref()).unwrap();
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
            let _ = find_volumes(&memory(bytes.clone())).unwrap();
            bytes[512..2048].copy_from_slice(&header);
            bytes[512..520].copy_from_slice(b"EFI PART");
            let _ = find_volumes(&memory(bytes.clone())).unwrap();
        }

        #[test]
        fn no_gpt_panics(table in proptest::collection::vec(any::<u8>(), 2048), used in any::<[u64; 2]>()) {
            let mut bytes = disk(&[]);
            entry(&mut bytes, 0, 0, 0xee, 1, 4095);
            bytes[1024..3072].copy_from_slice(&table);
            gpt(&mut bytes, 512, 1, 2, used.map(|sector| sector as usize));
            for volume in find_volumes(&memory(bytes)).unwrap() {
                prop_assert!(volume.offset + volume.size_bytes <= 2 << 20);
            }
        }
    }
}
