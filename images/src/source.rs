//! What kind of file somebody wants to import, by its first bytes.
//!
//! `qemu-img` is always told the format: if it were to guess, a raw disk whose first sector pretends to be
//! a qcow2 could name any file of this server as its backing file.

/// Bytes from the start of a file that are enough to tell.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// No file of ext4 is larger; a header that claims more is a mistake or an attack.
pub(crate) const SIZE_BYTES_MAX: u64 = 16 << 40;

/// A disk image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU.
    Qcow2,
    /// VMware, one sparse file.
    Vmdk,
    /// Hyper-V.
    Vhdx,
    /// Virtual PC, dynamic.
    Vpc,
    /// VirtualBox.
    Vdi,
}

impl Format {
    /// The name that `qemu-img -f` knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Vdi => "vdi",
        }
    }
}

/// A file that is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotImported {
    /// The file is something else than a disk.
    NoDisk {
        /// What it is.
        found: &'static str,
        /// What to do, with the separator before it; may be empty.
        advice: &'static str,
    },
    /// A disk image that can't be taken alone; why, and what to do.
    Refused(&'static str),
}

/// Tells the format from the first bytes of a file (up to [`HEAD_BYTES_MAX`]). Never panics.
///
/// # Errors
/// The file is surely not a disk, or one that needs other files or a password.
pub fn detect(head: &[u8]) -> Result<Format, NotImported> {
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if has(0, b"QFI\xfb") {
        return check_qcow2(head).map(|()| Format::Qcow2);
    }
    if has(0, b"KDMV") {
        return check_vmdk(head).map(|()| Format::Vmdk);
    }
    if has(0, b"# Disk DescriptorFile") {
        return Err(NotImported::Refused(
            "this VMDK file only names other files; make one file of it with \
             `qemu-img convert -f vmdk -O qcow2 FILE.vmdk DISK.qcow2` and import that",
        ));
    }
    if has(0, b"vhdxfile") {
        return Ok(Format::Vhdx);
    }
    if has(0, b"conectix") {
        // Disk type, big-endian at 60: 4 is a difference to a parent.
        return if has(60, &[0, 0, 0, 4]) {
            Err(NotImported::Refused(HAS_PARENT))
        } else {
            Ok(Format::Vpc)
        };
    }
    if has(0x40, &[0x7f, 0x10, 0xda, 0xbe]) {
        return Ok(Format::Vdi);
    }
    for (at, magic, why) in FOREIGN {
        if has(at, magic) {
            return Err(NotImported::Refused(why));
        }
    }
    let archive = ": unpack it and import the disk that is in it";
    let other: [(usize, &[u8], &str, &str); 15] = [
        (0, &[0x1f, 0x8b], "a gzip file", archive),
        (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "an xz file", archive),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "a zstd file", archive),
        (0, b"BZh", "a bzip2 file", archive),
        (0, b"PK\x03\x04", "a ZIP file", archive),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7z file", archive),
        (0, b"Rar!\x1a\x07", "a RAR file", archive),
        (0, &[0x04, 0x22, 0x4d, 0x18], "an lz4 file", archive),
        (0, b"MSWIM\0\0\0", "a Windows image (WIM)", ""),
        (0, b"EVF\x09\x0d\x0a\xff\0", "a forensic image (EWF)", archive),
        (
            257,
            b"ustar",
            "a tar archive, perhaps an OVA",
            ": unpack it and import the disk that is in it",
        ),
        (0, b"\x7fELF", "a program (ELF)", ""),
        (0, b"%PDF-", "a PDF document", ""),
        (0, b"!<arch>\n", "a Debian package or ar archive", ""),
        (0, b"070701", "a cpio archive", ""),
    ];
    for (at, magic, found, advice) in other {
        if has(at, magic) {
            return Err(NotImported::NoDisk { found, advice });
        }
    }
    if head.is_empty() {
        return Err(NotImported::NoDisk { found: "empty", advice: "" });
    }
    Ok(Format::Raw)
}

const HAS_PARENT: &str = "it holds only the differences to another image; make one file of both with \
                          `qemu-img convert FILE DISK.raw` and import that";

/// Disk images that are not taken, but that QEMU can make another of.
const FOREIGN: [(usize, &[u8], &str); 5] = [
    (
        0,
        b"QED\0",
        "it is a QED image; convert it with `qemu-img convert -f qed -O qcow2` and import that",
    ),
    (
        0,
        b"WithoutFreeSpace",
        "it is a Parallels image; convert it with `qemu-img convert -f parallels -O qcow2` and import that",
    ),
    (
        0,
        b"WithouFreSpacExt",
        "it is a Parallels image; convert it with `qemu-img convert -f parallels -O qcow2` and import that",
    ),
    (
        0,
        b"COWD",
        "it is a VMDK of an old ESX; convert it with `qemu-img convert -f vmdk -O qcow2` and import that",
    ),
    (
        0,
        &[0x3a, 0xff, 0x26, 0xed],
        "it is a sparse image of Android; make a raw disk of it with `simg2img` and import that",
    ),
];

fn check_qcow2(head: &[u8]) -> Result<(), NotImported> {
    let version = be(head, 4, 4);
    if version == 1 {
        return Err(NotImported::Refused(
            "it is a qcow of version 1; convert it with `qemu-img convert -f qcow -O qcow2` and import that",
        ));
    }
    if be(head, 8, 8) != 0 {
        return Err(NotImported::Refused(HAS_PARENT));
    }
    if be(head, 32, 4) != 0 {
        return Err(NotImported::Refused("it is encrypted; import a decrypted copy"));
    }
    // Incompatible features, version 3 and later; bit 2 is "external data file".
    if version >= 3 && be(head, 72, 8) & 0b100 != 0 {
        return Err(NotImported::Refused(
            "it keeps its data in another file; make one file of both with \
             `qemu-img convert FILE DISK.raw` and import that",
        ));
    }
    Ok(())
}

/// A sparse VMDK has a text in it that may name a parent or other files.
///
/// Where the text is depends on the reader (QEMU looks at 0x200 whatever the header says), so all of
/// the head is searched.
fn check_vmdk(head: &[u8]) -> Result<(), NotImported> {
    // A capacity of 0 means that the text lists the files that hold the data.
    if le64(head, 12) == 0 {
        return Err(NotImported::Refused(HAS_PARENT));
    }
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let has_parent = text.contains("parentfilenamehint")
        || text.lines().any(|line| {
            let line = line.trim();
            line.starts_with("parentcid") && !line.ends_with("ffffffff")
        });
    if has_parent { Err(NotImported::Refused(HAS_PARENT)) } else { Ok(()) }
}

/// A big-endian number; 0 where the bytes end.
fn be(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes
        .get(at..at + length)
        .map_or(0, |bytes| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// A little-endian number; 0 where the bytes end.
fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| {
        bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qcow2(change: impl FnOnce(&mut Vec<u8>)) -> Result<Format, NotImported> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        change(&mut head);
        detect(&head)
    }

    #[test]
    fn a_qcow2_that_needs_other_files_is_refused() {
        assert_eq!(qcow2(|_| {}), Ok(Format::Qcow2));
        assert!(matches!(qcow2(|head| head[15] = 1), Err(NotImported::Refused(_))));
        assert!(matches!(qcow2(|head| head[79] = 4), Err(NotImported::Refused(_))));
        assert!(matches!(qcow2(|head| head[35] = 2), Err(NotImported::Refused(_))));
        assert!(
            matches!(qcow2(|head| head[7] = 1), Err(NotImported::Refused(why)) if why.contains("version 1"))
        );
        // A dirty bit is none of our business.
        assert_eq!(qcow2(|head| head[79] = 1), Ok(Format::Qcow2));
    }

    #[test]
    fn a_vmdk_with_a_parent_is_refused() {
        let vmdk = |text: &str| {
            let mut head = vec![0; 2048];
            head[..4].copy_from_slice(b"KDMV");
            head[12] = 8;
            head[512..512 + text.len()].copy_from_slice(text.as_bytes());
            detect(&head)
        };
        assert_eq!(vmdk("# Disk DescriptorFile\nparentCID=ffffffff\n"), Ok(Format::Vmdk));
        assert!(vmdk("CID=1\nparentCID=12345678\n").is_err());
        assert!(vmdk("parentFileNameHint=\"/etc/shadow\"\n").is_err());
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let check = |head: &[u8], expected: &str| match detect(head) {
            Err(NotImported::NoDisk { found, .. }) => assert_eq!(found, expected),
            other => panic!("{other:?}"),
        };
        check(b"", "empty");
        check(b"\x1f\x8b\x08", "a gzip file");
        check(b"%PDF-1.7", "a PDF document");
        assert!(matches!(detect(b"QED\0"), Err(NotImported::Refused(why)) if why.contains("qed")));
        assert_eq!(detect(&[0; 100]), Ok(Format::Raw));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for magic in [&b""[..], b"QFI\xfb", b"KDMV", b"vhdxfile", b"conectix"] {
                let _ = detect(&[magic, &bytes].concat());
            }
        }
    }
}
