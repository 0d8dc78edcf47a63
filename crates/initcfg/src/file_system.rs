//! File systems that a root may have, and how they are recognized.

use crate::ParseChoiceError;
use core::fmt;
use core::str::FromStr;

/// File system of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum FileSystem {
    /// ext2, ext3 or ext4: the driver of the last takes them all.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// SquashFS, which is never written to.
    Squashfs,
    /// EROFS, which is never written to.
    Erofs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Squashfs, Self::Erofs];

    /// By what they are recognized: where the mark stands, in bytes from the file system's start, and the mark.
    ///
    /// The first that is there counts. One file system may have been made over another whose mark is left: so
    /// those at the very start come first, then the two bytes of ext4, and last btrfs, whose mark at 64 KiB
    /// others may leave as it is.
    pub const MARKS: [(u64, &[u8], Self); 5] = [
        (0, b"XFSB", Self::Xfs),
        (0, b"hsqs", Self::Squashfs),
        (1024, &[0xe2, 0xe1, 0xf5, 0xe0], Self::Erofs),
        (1024 + 56, &[0x53, 0xef], Self::Ext4),
        ((64 << 10) + 64, b"_BHRfS_M", Self::Btrfs),
    ];

    /// Bytes at the start of a file system within which all marks lie.
    pub const PROBE_BYTES: usize = (64 << 10) + 64 + 8;

    /// Where distributions install on btrfs if not in the default subvolume: Fedora's name, that of Ubuntu and Arch, and
    /// that of Debian's installer. The first that has a `usr` is the root.
    pub const SUBVOLUMES: [&str; 3] = ["root", "@", "@rootfs"];

    /// The file system that starts with these bytes, of which there should be
    /// [`PROBE_BYTES`](Self::PROBE_BYTES); `None` if it is none of them.
    pub fn recognize(start: &[u8]) -> Option<Self> {
        let is_there = |at: u64, mark: &[u8]| {
            let rest = usize::try_from(at).ok().and_then(|at| start.get(at..));
            rest.is_some_and(|rest| rest.starts_with(mark))
        };
        Self::MARKS.into_iter().find(|&(at, mark, _)| is_there(at, mark)).map(|(.., kind)| kind)
    }

    /// Its name as mount(8) takes it; the kernel's module is called the same.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// Whether it can't be written to, on whatever disk it is.
    pub const fn is_read_only(self) -> bool {
        matches!(self, Self::Squashfs | Self::Erofs)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for FileSystem {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        let wanted = "a file system: use ext4, xfs, btrfs, squashfs or erofs";
        found.ok_or_else(|| ParseChoiceError::new(text, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// An empty disk with these marks.
    fn disk(marks: &[(usize, &[u8])]) -> Vec<u8> {
        let mut start = vec![0; FileSystem::PROBE_BYTES];
        for (at, mark) in marks {
            start[*at..at + mark.len()].copy_from_slice(mark);
        }
        start
    }

    const EXT4: (usize, &[u8]) = (1080, &[0x53, 0xef]);
    const BTRFS: (usize, &[u8]) = (65_600, b"_BHRfS_M");

    #[test]
    fn a_file_system_is_known_by_its_mark() {
        for (at, mark, expected) in [
            (EXT4.0, EXT4.1, Some(FileSystem::Ext4)),
            (0, b"XFSB", Some(FileSystem::Xfs)),
            (BTRFS.0, BTRFS.1, Some(FileSystem::Btrfs)),
            (0, b"hsqs", Some(FileSystem::Squashfs)),
            (1024, &[0xe2, 0xe1, 0xf5, 0xe0], Some(FileSystem::Erofs)),
            (510, &[0x55, 0xaa], None),
        ] {
            let start = disk(&[(at, mark)]);
            assert_eq!(FileSystem::recognize(&start), expected);
            let cut = FileSystem::recognize(&start[..at + mark.len() - 1]);
            assert_eq!(cut, None, "half a mark is none");
        }
        assert_eq!(FileSystem::recognize(&[]), None);
        assert_eq!(FileSystem::recognize(b"XFSB"), Some(FileSystem::Xfs));
    }

    #[test]
    fn what_was_made_over_another_counts() {
        assert_eq!(FileSystem::recognize(&disk(&[BTRFS, EXT4])), Some(FileSystem::Ext4));
        let squashfs = disk(&[BTRFS, EXT4, (0, b"hsqs")]);
        assert_eq!(FileSystem::recognize(&squashfs), Some(FileSystem::Squashfs));
    }

    #[test]
    fn each_has_a_mark_within_the_probe_and_a_word() {
        for kind in FileSystem::ALL {
            let (at, mark, _) =
                FileSystem::MARKS.into_iter().find(|&(.., marked)| marked == kind).unwrap();
            assert!(at as usize + mark.len() <= FileSystem::PROBE_BYTES);
            assert_eq!(kind.word().parse(), Ok(kind));
        }
        assert!("ntfs".parse::<FileSystem>().is_err());
    }
}
