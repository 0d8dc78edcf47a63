//! By which names file systems of a disk are known to fstab(5): those that are in the image.

use crate::block::Block;
use crate::partitions::{PartitionName, names, read_if_there};
use crate::volumes::{Content, FAT, Volume};
use model::FileSystem;
use std::collections::BTreeSet;
use std::io;

/// Names as `TAG=VALUE`, the values of hexadecimal ones in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskNames(BTreeSet<String>);

impl DiskNames {
    /// Reads the names of all that is on a disk.
    pub(super) fn read(disk: &dyn Block, volumes: &[Volume]) -> io::Result<Self> {
        let mut found = Self::default();
        for volume in volumes {
            found.add_of(disk, volume)?;
        }
        for PartitionName { uuid, label } in names(disk)? {
            found.add("PARTUUID", &uuid.to_lowercase());
            found.add("PARTLABEL", &label);
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// Whether the disk has it: `UUID=…`, or a path below `/dev/disk`. Another device is none of the disk's, as that has another
    /// name on machines.
    pub(super) fn have(&self, source: &str) -> bool {
        let Some((tag, value)) = tag_of(source) else { return false };
        let is_hex = matches!(tag.as_str(), "UUID" | "PARTUUID");
        let value = if is_hex { value.to_lowercase() } else { value };
        self.0.contains(&format!("{tag}={value}"))
    }

    fn add(&mut self, tag: &str, value: &str) {
        if !value.is_empty() {
            self.0.insert(format!("{tag}={value}"));
        }
    }

    fn add_of(&mut self, disk: &dyn Block, volume: &Volume) -> io::Result<()> {
        let read = |at: u64, length: usize| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            let offset = volume.offset.saturating_add(at);
            Ok(match read_if_there(disk, offset, &mut bytes)? {
                true => bytes,
                false => vec![0; length],
            })
        };
        // Where the UUID is, and where and how long the label.
        let places = match volume.content {
            Content::Root(FileSystem::Ext4) => Some((0x468, (0x478, 16))),
            Content::Root(FileSystem::Xfs) => Some((32, (108, 12))),
            Content::Root(FileSystem::Btrfs) => Some((0x1_0020, (0x1_012b, 256))),
            Content::Other("swap space") => Some((1036, (1052, 16))),
            Content::Other("an encrypted volume (LUKS)") => None,
            Content::Other(FAT) => {
                let is_fat32 = read(82, 5)? == b"FAT32";
                let serial = read(if is_fat32 { 67 } else { 39 }, 4)?;
                let label = read(if is_fat32 { 71 } else { 43 }, 11)?;
                let [a, b, c, d] = serial[..] else { return Ok(()) };
                self.add("UUID", &format!("{d:02x}{c:02x}-{b:02x}{a:02x}"));
                self.add("LABEL", text(&label).trim_end());
                return Ok(());
            }
            _ => return Ok(()),
        };
        match places {
            Some((uuid, (label, length))) => {
                let uuid = read(uuid, 16)?;
                if uuid.iter().any(|byte| *byte != 0) {
                    self.add("UUID", &uuid_text(&uuid));
                }
                self.add("LABEL", &text(&read(label, length)?));
            }
            // LUKS: a text.
            None => self.add("UUID", &text(&read(168, 40)?)),
        }
        Ok(())
    }
}

/// `UUID=x`, `/dev/disk/by-uuid/x` and the like.
fn tag_of(source: &str) -> Option<(String, String)> {
    let source = source.trim_matches('"');
    let (tag, value) = match source.strip_prefix("/dev/disk/by-") {
        Some(rest) => rest.split_once('/')?,
        None => source.split_once('=')?,
    };
    let tag = tag.to_uppercase();
    let is_tag = matches!(tag.as_str(), "UUID" | "LABEL" | "PARTUUID" | "PARTLABEL");
    is_tag.then(|| (tag, unescaped(value.trim_matches('"'))))
}

/// fstab(5) writes spaces as `\040`, udev as `\x20`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\x20", " ")
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_all_its_names() {
        let names = DiskNames::of(&["UUID=1b2c-00aa", "LABEL=my root", "PARTUUID=abcd-01"]);
        for source in [
            "UUID=1B2C-00AA",
            "UUID=\"1b2c-00aa\"",
            "LABEL=my\\040root",
            "/dev/disk/by-label/my\\x20root",
            "/dev/disk/by-uuid/1B2C-00AA",
            "PARTUUID=ABCD-01",
        ] {
            assert!(names.have(source), "{source}");
        }
        for source in
            ["UUID=1b2c", "/dev/sda1", "LABEL=MY ROOT", "ID=1b2c-00aa", "", "/dev/disk/by-"]
        {
            assert!(!names.have(source), "{source}");
        }
        assert_eq!(uuid_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}
