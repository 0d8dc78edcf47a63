//! Files of a FAT file system, as far as a kernel in `/boot` needs it: Arch and systemd-boot have the partition of the
//! firmware there (Microsoft, "FAT: General Overview of On-Disk Format", version 1.03).

use crate::block::Block;
use crate::entry::{Entry, EntryKind};
use crate::error::RootfsError;
use std::sync::Arc;

/// Bytes of a folder that are read: the format's own limit.
const FOLDER_BYTES_MAX: usize = 65_536 * ENTRY_BYTES;
/// Deepest nesting of folders that is followed.
const DEPTH_MAX: usize = 16;
const ENTRY_BYTES: usize = 32;
/// Longest name, in entries of 13 characters.
const NAME_PARTS_MAX: usize = 20;

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTES_OF_NAME: u8 = 0x0f;

/// How the numbers of clusters are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT file system, for reading.
pub(crate) struct Fat {
    disk: Arc<dyn Block>,
    /// Where it begins on the disk, and how long it may be.
    offset: u64,
    size_bytes: u64,
    width: Width,
    cluster_bytes: u64,
    n_clusters: u32,
    /// Relative to `offset`.
    table: u64,
    data: u64,
    root: Place,
}

/// Where a folder or file is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The root of FAT12 and FAT16 has a place and a length of its own.
    Fixed(u64, usize),
    /// The first of a chain of clusters.
    Cluster(u32),
}

/// What a folder says of a file in it.
struct Found {
    name: String,
    is_folder: bool,
    cluster: u32,
    size_bytes: u64,
}

impl Fat {
    /// Reads the first sector of what begins at `offset`.
    ///
    /// # Errors
    /// There is no such file system, or it is damaged.
    pub(crate) fn open(
        disk: Arc<dyn Block>,
        offset: u64,
        size_bytes: u64,
    ) -> Result<Self, RootfsError> {
        let mut sector = [0; 512];
        read_at(disk.as_ref(), offset, size_bytes, 0, &mut sector).map_err(damaged)?;
        let layout =
            Layout::parse(&sector).ok_or_else(|| damaged("its first sector is damaged"))?;
        let Layout { width, cluster_bytes, n_clusters, table, data, root } = layout;
        Ok(Self { disk, offset, size_bytes, width, cluster_bytes, n_clusters, table, data, root })
    }

    /// The entries of a folder, sorted by name.
    ///
    /// # Errors
    /// It is missing, no folder, or damaged.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        let place = match self.find(path)? {
            None => self.root,
            Some(found) if found.is_folder => self.place_of(&found),
            Some(_) => return Err(unreadable(path, "it is no folder")),
        };
        let kind = |found: &Found| match found.is_folder {
            true => EntryKind::Folder,
            false => EntryKind::File,
        };
        let entries = self.entries(place).map_err(|why| unreadable(path, why))?;
        let mut entries: Vec<Entry> = entries
            .into_iter()
            .map(|found| Entry { kind: kind(&found), name: found.name })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Whether there is something of this path.
    ///
    /// # Errors
    /// What is on the way to it can't be read.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        match self.find(path) {
            Ok(_) => Ok(true),
            Err(RootfsError::NotFound(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The content of a file of at most `bytes_max`.
    ///
    /// # Errors
    /// It is missing, no file, too long, or damaged.
    pub(crate) fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        let found = match self.find(path)? {
            Some(found) if !found.is_folder => found,
            _ => return Err(RootfsError::NoFile { path: path.to_owned(), why: "it is a folder" }),
        };
        if found.size_bytes > bytes_max {
            let why = format!("it has {} bytes, more than {bytes_max}", found.size_bytes);
            return Err(RootfsError::Read { path: path.to_owned(), why });
        }
        // No more than 512 MiB, so it fits.
        let size = found.size_bytes as usize;
        match size {
            0 => Ok(Vec::new()),
            _ => self.chain(found.cluster, size, false).map_err(|why| unreadable(path, why)),
        }
    }

    /// `None` is the root.
    fn find(&self, path: &str) -> Result<Option<Found>, RootfsError> {
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        let (mut place, mut last) = (self.root, None);
        for (depth, part) in parts.enumerate() {
            let is_folder = last.as_ref().is_none_or(|found: &Found| found.is_folder);
            let entries = match is_folder && depth < DEPTH_MAX {
                true => self.entries(place).map_err(|why| unreadable(path, why))?,
                false => Vec::new(),
            };
            // Names are the same in any case.
            let found = entries.into_iter().find(|found| found.name.eq_ignore_ascii_case(part));
            let found = found.ok_or_else(|| RootfsError::NotFound(path.to_owned()))?;
            place = self.place_of(&found);
            last = Some(found);
        }
        Ok(last)
    }

    fn place_of(&self, found: &Found) -> Place {
        match found.cluster {
            // A folder's `..` says so of the root.
            0 => self.root,
            cluster => Place::Cluster(cluster),
        }
    }

    fn entries(&self, place: Place) -> Result<Vec<Found>, &'static str> {
        let bytes = match place {
            Place::Fixed(at, length) => {
                let mut bytes = vec![0; length];
                self.read_at(at, &mut bytes)?;
                bytes
            }
            Place::Cluster(first) => self.chain(first, FOLDER_BYTES_MAX, true)?,
        };
        Ok(parse_folder(&bytes))
    }

    /// The bytes of a chain of clusters: exactly so many, or with `is_folder` at most.
    fn chain(&self, first: u32, length: usize, is_folder: bool) -> Result<Vec<u8>, &'static str> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        // A chain that runs in a circle has more clusters than there are.
        for _ in 0..=self.n_clusters {
            if !(2..self.n_clusters + 2).contains(&cluster) {
                return Err(
                    "the file system is damaged: a file leads to clusters that are not there",
                );
            }
            let left = length - bytes.len();
            let take = left.min(self.cluster_bytes as usize);
            let start = bytes.len();
            bytes.resize(start + take, 0);
            let at = self.data + u64::from(cluster - 2) * self.cluster_bytes;
            self.read_at(at, &mut bytes[start..])?;
            if bytes.len() == length {
                return Ok(bytes);
            }
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None if is_folder => return Ok(bytes),
                None => return Err("the file system is damaged: a file is shorter than it says"),
            }
        }
        Err("the file system is damaged: the clusters of a file run in a circle")
    }

    /// The cluster behind this one; `None` at the end.
    fn next(&self, cluster: u32) -> Result<Option<u32>, &'static str> {
        let number = u64::from(cluster);
        let read = |at: u64| -> Result<u16, &'static str> {
            let mut bytes = [0; 2];
            self.read_at(self.table + at, &mut bytes)?;
            Ok(u16::from_le_bytes(bytes))
        };
        let (next, end) = match self.width {
            Width::Fat12 => {
                let pair = u32::from(read(number + number / 2)?);
                (if number % 2 == 0 { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Width::Fat16 => (u32::from(read(number * 2)?), 0xfff8),
            Width::Fat32 => {
                let high = u32::from(read(number * 4 + 2)?);
                ((high << 16 | u32::from(read(number * 4)?)) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((next < end).then_some(next))
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), &'static str> {
        read_at(self.disk.as_ref(), self.offset, self.size_bytes, at, buffer)
    }
}

fn read_at(
    disk: &dyn Block,
    offset: u64,
    size_bytes: u64,
    at: u64,
    buffer: &mut [u8],
) -> Result<(), &'static str> {
    let end = at.checked_add(buffer.len() as u64);
    let start = offset.checked_add(at).filter(|_| end.is_some_and(|end| end <= size_bytes));
    let start = start.ok_or("the file system is damaged: it leads beyond its end")?;
    disk.read_at(buffer, start).map_err(|_| "the disk can't be read")
}

/// What the first sector says.
struct Layout {
    width: Width,
    cluster_bytes: u64,
    n_clusters: u32,
    table: u64,
    data: u64,
    root: Place,
}

impl Layout {
    fn parse(sector: &[u8; 512]) -> Option<Self> {
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let sector_bytes = u16_at(11);
        let cluster_sectors = u64::from(sector[13]);
        let is_sane = sector[510..] == [0x55, 0xaa]
            && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            && cluster_sectors.is_power_of_two();
        if !is_sane {
            return None;
        }
        let or = |short: u64, long: u64| if short == 0 { long } else { short };
        let (reserved, n_tables, root_entries) = (u16_at(14), u64::from(sector[16]), u16_at(17));
        let table_sectors = or(u16_at(22), u32_at(36));
        let total = or(u16_at(19), u32_at(32));
        let root_bytes = root_entries * ENTRY_BYTES as u64;
        let root = reserved + n_tables * table_sectors;
        let data = root + root_bytes.div_ceil(sector_bytes);
        let n_clusters = total.checked_sub(data)? / cluster_sectors;
        // So the format has it: by their number alone.
        let width = match n_clusters {
            0..4085 => Width::Fat12,
            4085..65_525 => Width::Fat16,
            65_525..0x0fff_fff5 => Width::Fat32,
            _ => return None,
        };
        let root = match width {
            Width::Fat32 => Place::Cluster(u32_at(44) as u32),
            _ => Place::Fixed(root * sector_bytes, root_bytes as usize),
        };
        Some(Self {
            width,
            cluster_bytes: cluster_sectors * sector_bytes,
            n_clusters: n_clusters as u32,
            table: reserved * sector_bytes,
            data: data * sector_bytes,
            root,
        })
    }
}

/// Files and folders, without `.` and `..`; what is damaged in itself is left out.
fn parse_folder(bytes: &[u8]) -> Vec<Found> {
    let mut entries = Vec::new();
    // Of a long name the parts come before its file, the last part first.
    let mut parts: Vec<[u16; 13]> = Vec::new();
    for entry in bytes.chunks_exact(ENTRY_BYTES) {
        let u16_at = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        let attributes = entry[11];
        match entry[0] {
            0 => break,
            0xe5 => parts.clear(),
            _ if attributes & 0x3f == ATTRIBUTES_OF_NAME => {
                if parts.len() == NAME_PARTS_MAX {
                    parts.clear();
                }
                let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
                let mut part = [0; 13];
                for (character, at) in part.iter_mut().zip(places) {
                    *character = u16_at(at);
                }
                parts.push(part);
            }
            _ if attributes & ATTRIBUTE_LABEL != 0 => parts.clear(),
            _ => {
                let name =
                    long_name(&std::mem::take(&mut parts)).unwrap_or_else(|| short_name(entry));
                if name != "." && name != ".." && !name.contains(['/', '\0']) {
                    entries.push(Found {
                        name,
                        is_folder: attributes & ATTRIBUTE_FOLDER != 0,
                        cluster: u32::from(u16_at(20)) << 16 | u32::from(u16_at(26)),
                        size_bytes: u64::from(u16_at(28)) | u64::from(u16_at(30)) << 16,
                    });
                }
            }
        }
    }
    entries
}

fn long_name(parts: &[[u16; 13]]) -> Option<String> {
    let characters = parts.iter().rev().flatten().copied().take_while(|&character| character != 0);
    let name = char::decode_utf16(characters).collect::<Result<String, _>>().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Eight characters and three; two bits say whether they are lower case, which is not Microsoft's.
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], is_lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if is_lower { text.to_ascii_lowercase() } else { text }
    };
    let stem = part(&entry[..8], entry[12] & 0x08 != 0);
    match part(&entry[8..11], entry[12] & 0x10 != 0).as_str() {
        "" => stem,
        extension => format!("{stem}.{extension}"),
    }
}

fn damaged(why: &str) -> RootfsError {
    RootfsError::FileSystem(why.to_owned())
}

fn unreadable(path: &str, why: &str) -> RootfsError {
    RootfsError::Read { path: path.to_owned(), why: why.to_owned() }
}

/// A FAT with a folder `EFI`, and in it and at its top one file each of this name and content; for tests.
#[cfg(test)]
pub(crate) fn example(n_clusters: u32, name: &str, content: &[u8]) -> Vec<u8> {
    let table_sectors = (n_clusters * 4 + 8).div_ceil(512);
    let is_32 = n_clusters >= 65_525;
    let root_entries: u16 = if is_32 { 0 } else { 32 };
    let data_sector = 1 + table_sectors + u32::from(root_entries) / 16;
    let mut bytes = vec![0; (data_sector + n_clusters) as usize * 512];
    bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
    (bytes[13], bytes[14], bytes[16]) = (1, 1, 1);
    bytes[17..19].copy_from_slice(&root_entries.to_le_bytes());
    bytes[32..36].copy_from_slice(&(data_sector + n_clusters).to_le_bytes());
    bytes[36..40].copy_from_slice(&table_sectors.to_le_bytes());
    bytes[44..48].copy_from_slice(&2u32.to_le_bytes());
    let (at, kind) = if is_32 { (82, b"FAT32   ") } else { (54, b"FAT16   ") };
    bytes[at..at + 8].copy_from_slice(kind);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut set = |cluster: u32, next: u32| {
        let (at, number) = (512, cluster as usize);
        if is_32 {
            bytes[at + number * 4..][..4].copy_from_slice(&next.to_le_bytes());
        } else if n_clusters >= 4085 {
            bytes[at + number * 2..][..2].copy_from_slice(&(next as u16).to_le_bytes());
        } else {
            let place = at + number + number / 2;
            let old = u16::from_le_bytes([bytes[place], bytes[place + 1]]);
            let next = (next & 0xfff) as u16;
            let new = if number % 2 == 0 { old & 0xf000 | next } else { old & 0x000f | next << 4 };
            bytes[place..place + 2].copy_from_slice(&new.to_le_bytes());
        }
    };
    // The root, the folder, and then the file in every second cluster.
    set(2, 0x0fff_ffff);
    set(3, 0x0fff_ffff);
    let n_parts = content.len().div_ceil(512) as u32;
    for part in 0..n_parts {
        let next = if part + 1 == n_parts { 0x0fff_ffff } else { 6 + part * 2 };
        set(4 + part * 2, next);
    }
    let at = |cluster: u32| (data_sector + cluster - 2) as usize * 512;
    for (part, piece) in content.chunks(512).enumerate() {
        bytes[at(4 + part as u32 * 2)..][..piece.len()].copy_from_slice(piece);
    }
    let entry = |short: &[u8; 11], attributes: u8, cluster: u32, size: u32| {
        let mut entry = [0; ENTRY_BYTES];
        entry[..11].copy_from_slice(short);
        entry[11] = attributes;
        entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
        entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
        entry[28..32].copy_from_slice(&size.to_le_bytes());
        entry
    };
    let mut file = Vec::new();
    let characters: Vec<u16> = name.encode_utf16().chain([0]).collect();
    for (index, part) in characters.chunks(13).enumerate().rev() {
        let mut entry = [0xff; ENTRY_BYTES];
        (entry[0], entry[11], entry[12], entry[13]) = (index as u8 + 1, ATTRIBUTES_OF_NAME, 0, 0);
        entry[26..28].fill(0);
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        for (character, at) in part.iter().zip(places) {
            entry[at..at + 2].copy_from_slice(&character.to_le_bytes());
        }
        file.extend(entry);
    }
    file.extend(entry(b"KERNEL~1   ", 0x20, 4, content.len() as u32));
    let mut top = entry(b"BOOT       ", ATTRIBUTE_LABEL, 0, 0).to_vec();
    top.extend(entry(b"\xe5LD     TXT", 0x20, 9, 9));
    top.extend(entry(b"EFI        ", ATTRIBUTE_FOLDER, 3, 0));
    top.extend(&file);
    let mut folder = entry(b".          ", ATTRIBUTE_FOLDER, 3, 0).to_vec();
    folder.extend(entry(b"..         ", ATTRIBUTE_FOLDER, 0, 0));
    folder.extend(&file);
    let root = if is_32 { at(2) } else { (1 + table_sectors) as usize * 512 };
    bytes[root..root + top.len()].copy_from_slice(&top);
    bytes[at(3)..at(3) + folder.len()].copy_from_slice(&folder);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use proptest::prelude::*;

    const NAME: &str = "vmlinuz-6.1.0-56-amd64";

    fn open(bytes: Vec<u8>) -> Result<Fat, RootfsError> {
        let size_bytes = bytes.len() as u64;
        Fat::open(Arc::new(Memory::new(bytes)), 0, size_bytes)
    }

    fn content() -> Vec<u8> {
        (0..3000u32).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn files_of_each_width_are_read() {
        for n_clusters in [100, 5000, 66_000] {
            let fat = open(example(n_clusters, NAME, &content())).unwrap();
            let names: Vec<_> =
                fat.list("/").unwrap().into_iter().map(|entry| entry.name).collect();
            assert_eq!(names, ["EFI", NAME], "{n_clusters}");
            for path in [format!("/{NAME}"), format!("/efi/{NAME}")] {
                assert!(fat.read(&path, 1 << 20).unwrap() == content(), "{n_clusters}");
            }
            assert_eq!(fat.list("/EFI").unwrap().len(), 1);
            assert!(fat.exists("/EFI").unwrap() && !fat.exists("/boot/vmlinuz").unwrap());
            assert!(!fat.exists(&format!("/{NAME}/x")).unwrap(), "a file is no folder");
            assert!(fat.read(&format!("/{NAME}"), 2999).is_err());
            assert!(fat.read("/EFI", 1 << 20).is_err() && fat.list(&format!("/{NAME}")).is_err());
        }
    }

    #[test]
    fn damage_is_told_and_no_circle_is_followed() {
        let good = example(5000, NAME, &content());
        // The table's entry of the file's first cluster: back to itself, then nowhere, then the end.
        for (next, expected) in [(4u16, "in a circle"), (0, "not there"), (0xffff, "shorter")] {
            let mut bytes = good.clone();
            bytes[512 + 8..512 + 10].copy_from_slice(&next.to_le_bytes());
            // Long enough to go round.
            let file = bytes.windows(8).position(|window| window == b"KERNEL~1").unwrap();
            bytes[file + 28..file + 32].copy_from_slice(&(4u32 << 20).to_le_bytes());
            let error = open(bytes).unwrap().read(&format!("/{NAME}"), 8 << 20).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(open(vec![0; 512]).is_err() && open(Vec::new()).is_err());
    }

    #[test]
    fn no_prefix_panics() {
        let good = example(100, NAME, &content());
        for end in (0..good.len()).step_by(7) {
            let Ok(fat) = open(good[..end].to_vec()) else { continue };
            let _ = (fat.list("/"), fat.read(&format!("/EFI/{NAME}"), 1 << 20));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..4096usize, wild: Vec<u8>) {
            let mut bytes = example(100, NAME, &content());
            let end = (at + wild.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&wild[..end - at]);
            if let Ok(fat) = open(bytes) {
                let _ = (fat.list("/"), fat.list("/EFI"), fat.read(&format!("/{NAME}"), 1 << 20));
            }
        }
    }
}
