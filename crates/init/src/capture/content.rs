//! What is on a partition, by its first bytes.

use initcfg::FileSystem;

/// Bytes at the start of a partition that tell.
pub(super) const PROBE_BYTES: usize = 128 << 10;

/// What a partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file system that Linux may be on.
    Files(Files),
    /// A physical volume of LVM, which says itself what is on it.
    Lvm,
    /// Memory that was swapped out.
    Swap,
    /// The memory of a system that sleeps, and goes on from there.
    Hibernated,
    /// Of no use here, and why, in words that follow "it is".
    Unfit(&'static str),
    /// FAT: what firmware starts from.
    Fat,
    /// Nothing that is known.
    Other,
}

/// A file system, and by what fstab may name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) kind: FileSystem,
    pub(super) uuid: String,
    pub(super) label: String,
}

impl Content {
    /// Of these first bytes, of which there should be [`PROBE_BYTES`]. Never panics.
    pub(super) fn of(start: &[u8]) -> Self {
        let has = |at: usize, mark: &[u8]| start.get(at..).is_some_and(|it| it.starts_with(mark));
        let refused: [(usize, &[u8], &str); 7] = [
            (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
            (3, b"-FVE-FS-", "encrypted by Windows (BitLocker)"),
            (3, b"NTFS    ", "of Windows (NTFS)"),
            (3, b"EXFAT   ", "exFAT, which no Linux system is on"),
            (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a part of a RAID (md)"),
            (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a part of a RAID (md)"),
            (32, b"NXSB", "of macOS (APFS)"),
        ];
        if let Some((.., why)) = refused.into_iter().find(|(at, mark, _)| has(*at, mark)) {
            return Self::Unfit(why);
        }
        if (0..4).any(|sector| has(sector * 512, b"LABELONE")) {
            return Self::Lvm;
        }
        for mark in [&b"SWAPSPACE2"[..], b"SWAP-SPACE"] {
            if has(4086, mark) {
                return Self::Swap;
            }
        }
        // Of the kernel, of older ones, of uswsusp and of TuxOnIce.
        for mark in [&b"S1SUSPEND"[..], b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"] {
            if has(4086, mark) {
                return Self::Hibernated;
            }
        }
        match FileSystem::recognize(start) {
            Some(kind) if !kind.is_read_only() => Self::Files(Files::of(kind, start)),
            Some(_) => Self::Unfit("read-only, as of a live system"),
            None if has(54, b"FAT") || has(82, b"FAT32") => Self::Fat,
            None => Self::Other,
        }
    }
}

impl Files {
    fn of(kind: FileSystem, start: &[u8]) -> Self {
        let (uuid, label, label_bytes) = match kind {
            FileSystem::Xfs => (32, 108, 12),
            FileSystem::Btrfs => ((64 << 10) + 32, (64 << 10) + 299, 256),
            FileSystem::Ext4 | FileSystem::Squashfs | FileSystem::Erofs => (1128, 1144, 16),
        };
        let label = start.get(label..label + label_bytes).unwrap_or_default();
        let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
        let uuid = start.get(uuid..uuid + 16).unwrap_or_default();
        Self { kind, uuid: uuid_text(uuid), label: String::from_utf8_lossy(label).into_owned() }
    }
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(marks: &[(usize, &[u8])]) -> Vec<u8> {
        let mut start = vec![0; PROBE_BYTES];
        for (at, mark) in marks {
            start[*at..at + mark.len()].copy_from_slice(mark);
        }
        start
    }

    #[test]
    fn what_is_there_is_told_by_its_marks() {
        let of = |at, mark: &[u8]| Content::of(&with(&[(at, mark)]));
        assert_eq!(of(0, b"LUKS\xba\xbe"), Content::Unfit("encrypted (LUKS)"));
        assert_eq!(of(3, b"NTFS    "), Content::Unfit("of Windows (NTFS)"));
        assert_eq!(of(3, b"-FVE-FS-"), Content::Unfit("encrypted by Windows (BitLocker)"));
        assert_eq!(of(4096, &[0xfc, 0x4e, 0x2b, 0xa9]), Content::Unfit("a part of a RAID (md)"));
        assert_eq!(of(0, b"hsqs"), Content::Unfit("read-only, as of a live system"));
        assert_eq!(of(512, b"LABELONE"), Content::Lvm);
        assert_eq!(of(4086, b"SWAPSPACE2"), Content::Swap);
        assert_eq!(of(4086, b"S1SUSPEND"), Content::Hibernated);
        assert_eq!(of(82, b"FAT32   "), Content::Fat);
        assert_eq!(of(0, b""), Content::Other);
        let marks: [(usize, &[u8]); 3] =
            [(1080, &[0x53, 0xef]), (1128, &[0x11; 16]), (1144, b"root\0rest")];
        let Content::Files(files) = Content::of(&with(&marks)) else { panic!() };
        assert_eq!(files.uuid, "11111111-1111-1111-1111-111111111111");
        assert_eq!((files.kind, files.label.as_str()), (FileSystem::Ext4, "root"));
        let whole = with(&[(0, b"XFSB"), (65_600, b"_BHRfS_M"), (4086, b"S1SUSPEND")]);
        for end in (0..4200).chain(65_530..65_900) {
            let _ = Content::of(&whole[..end]);
        }
    }
}
