//! What is in an initrd, ours or another's, and what of it the kernel would drop without a word.

mod segment;

use initcfg::ModuleIndex;
use segment::{Budget, read_segment};
use std::fmt;

/// Most files that are listed; the largest initrds of distributions have some 5,000.
const ENTRIES_MAX: usize = 200_000;

/// Most archives in one file; initrds have one to four.
const SEGMENTS_MAX: usize = 1000;

/// Most bytes that all segments together may have when they are decoded. The kernel keeps them in
/// memory, and the initrd of a live system has 200 MB: more is an attack or a mistake.
const UNPACKED_SIZE_MAX: u64 = 1 << 30;

/// How a segment is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// A cpio archive as it is.
    Raw,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
    /// `xz`.
    Xz,
    /// The old format of `lz4 -l`, the only one that kernels know; its content is not listed.
    Lz4,
    /// Kernels know it, but nobody uses it any more; its content is not listed.
    Other(&'static str),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Other(name) => name,
        })
    }
}

/// A file of an initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path without a leading slash. Foreign bytes: escape them before a terminal sees them.
    pub path: String,
    /// Kind and permissions, as in `stat`.
    pub mode: u32,
    /// Length of the content.
    pub size_bytes: u64,
}

/// One of the archives that an initrd is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Byte of the file at which the segment starts.
    pub offset: u64,
    /// How the segment is stored.
    pub codec: Codec,
    /// Length of the segment in the file.
    pub stored_bytes: u64,
    /// Length of the segment when decoded; `None` if the codec is not read here.
    pub unpacked_bytes: Option<u64>,
    /// Files of the segment, in their order; up to the problem if there is one.
    pub entries: Vec<Entry>,
    /// Why the kernel unpacks it only in part or not at all.
    pub problem: Option<Problem>,
}

/// Why the kernel does not unpack a segment. It then boots on without it, and without all that follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An archive that is not compressed starts at a byte that is no multiple of 4.
    #[error(
        "an archive that is not compressed must start at a multiple of 4: pad what is before it with \
         zeros"
    )]
    Misaligned,
    /// An archive that is not compressed comes after an lz4 segment.
    #[error(
        "an archive that is not compressed can't follow one with lz4, which the kernel reads to the \
         end of the file: put it first"
    )]
    AfterLz4,
    /// A file name does not end as it must.
    #[error(
        "the file name {0:?} has no NUL byte at its end; GRUB's `initrd newc:` makes such archives: \
         make the archive on the server"
    )]
    NameWithoutNul(String),
    /// The xz decoder of the kernel can't do its checksum.
    #[error("its xz checksum is not CRC32, and the kernel knows no other: use xz --check=crc32")]
    XzChecksum,
    /// The lz4 format that kernels don't know.
    #[error("it is an lz4 frame, which the kernel does not know: use lz4 -l")]
    Lz4Frame,
    /// The bytes can't be anything of an initrd.
    #[error("it is neither a cpio archive nor compressed in a way that the kernel knows")]
    Unknown,
    /// The initrd is larger than what is looked at here.
    #[error(
        "the initrd has more than 1 GiB, 200,000 files or 1,000 archives; the rest is not listed"
    )]
    TooLarge,
    /// The segment is damaged; how, in words.
    #[error("{0}")]
    Damaged(String),
}

/// All of an initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// In the order of the file; a file of a later one replaces that of an earlier one.
    pub segments: Vec<Segment>,
    /// Of an initrd that we have built.
    pub index: Option<ModuleIndex>,
}

/// Looks into an initrd. Never fails: what is wrong is said in the segment, which then is the last one.
///
/// Takes at most 1 GiB of decoding, whatever the bytes.
pub fn inspect(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut budget = Budget { bytes: UNPACKED_SIZE_MAX, entries: ENTRIES_MAX };
    let mut offset = 0;
    loop {
        // The kernel skips zeros between archives.
        offset += bytes[offset..].iter().take_while(|&&byte| byte == 0).count();
        if offset == bytes.len() {
            return contents;
        }
        if contents.segments.len() == SEGMENTS_MAX {
            let last = contents.segments.last_mut();
            last.expect("there are many").problem = Some(Problem::TooLarge);
            return contents;
        }
        let has_lz4 = contents.segments.iter().any(|segment| segment.codec == Codec::Lz4);
        let mut segment = read_segment(&bytes[offset..], &mut budget, &mut contents.index);
        let is_readable = segment.problem.is_none() && segment.stored_bytes > 0;
        segment.offset = offset as u64;
        if segment.codec == Codec::Raw && segment.problem.is_none() {
            segment.problem = match offset {
                _ if has_lz4 => Some(Problem::AfterLz4),
                offset if !offset.is_multiple_of(4) => Some(Problem::Misaligned),
                _ => None,
            };
        }
        offset += segment.stored_bytes as usize;
        contents.segments.push(segment);
        if !is_readable {
            return contents;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newc::Archive;
    use liblzma::stream::Stream;
    use proptest::prelude::*;
    use std::io::Write;

    fn raw(file: &str) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file(file, 0o644, b"content".to_vec());
        archive.to_bytes().unwrap()
    }

    fn zstd(file: &str) -> Vec<u8> {
        zstd::bulk::compress(&raw(file), 1).unwrap()
    }

    fn gzip(file: &str) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&raw(file)).unwrap();
        gzip.finish().unwrap()
    }

    fn xz(file: &str, check: liblzma::stream::Check) -> Vec<u8> {
        let stream = Stream::new_easy_encoder(1, check).unwrap();
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(&raw(file)).unwrap();
        xz.finish().unwrap()
    }

    /// Not the real content: it is not looked at.
    fn lz4() -> Vec<u8> {
        [&[0x02, 0x21, 0x4c, 0x18, 5, 0, 0, 0][..], b"block"].concat()
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `codec:files` of each segment, and the problem.
    fn check(parts: &[Vec<u8>], expected: &str) {
        let segments = inspect(&parts.concat()).segments;
        let words: Vec<String> = segments
            .iter()
            .map(|segment| {
                let files: Vec<&str> = segment.entries.iter().map(|e| e.path.as_str()).collect();
                let problem = segment.problem.as_ref().map(|problem| format!(" ({problem})"));
                format!("{}:{}{}", segment.codec, files.join(","), problem.unwrap_or_default())
            })
            .collect();
        assert!(words.join(" ").starts_with(expected), "{words:?}\n{expected}");
        assert_eq!(words.join(" ").contains('('), expected.contains('('), "{words:?}");
    }

    #[test]
    fn all_segments_of_all_codecs_are_listed() {
        let crc32 = || xz("x", liblzma::stream::Check::Crc32);
        check(&[raw("a")], "raw:a");
        check(&[raw("a"), raw("b")], "raw:a raw:b");
        check(&[raw("a"), zstd("b")], "raw:a zstd:b");
        check(&[zstd("a"), gzip("b"), crc32()], "zstd:a gzip:b xz:x");
        check(&[padded(gzip("a")), vec![0; 8], raw("b")], "gzip:a raw:b");
        check(&[padded(crc32()), raw("b")], "xz:x raw:b");
        check(&[raw("a"), lz4()], "raw:a lz4:");
        check(&[], "");
        check(&[vec![0; 9]], "");
        let many = inspect(&gzip("a").repeat(SEGMENTS_MAX + 1)).segments;
        assert_eq!(many.len(), SEGMENTS_MAX);
        assert_eq!(many[SEGMENTS_MAX - 1].problem, Some(Problem::TooLarge));
        let no_trailer = raw("a")[..120].to_vec();
        check(&[no_trailer], "raw:a");
        let segments = inspect(&[padded(zstd("a")), raw("b")].concat()).segments;
        assert_eq!(segments[1].offset, padded(zstd("a")).len() as u64);
        assert_eq!(segments[0].stored_bytes, zstd("a").len() as u64);
        assert_eq!(segments[0].unpacked_bytes, Some(raw("a").len() as u64));
        let file = Entry { path: "a".to_owned(), mode: 0o100_644, size_bytes: 7 };
        assert_eq!(segments[0].entries, [file]);
    }

    #[test]
    fn what_the_kernel_drops_is_pointed_out() {
        let odd = || {
            let mut bytes = padded(zstd("a"));
            bytes.push(0);
            bytes
        };
        check(&[odd(), raw("b")], "zstd:a raw:b (an archive that is not compressed must start at");
        check(&[padded(lz4()), raw("b")], "lz4: raw:b (an archive that is not compressed can't");
        let crc64 = xz("x", liblzma::stream::Check::Crc64);
        check(&[raw("a"), crc64], "raw:a xz: (its xz checksum is not CRC32");
        check(&[vec![4, 0x22, 0x4d, 0x18]], "lz4: (it is an lz4 frame");
        check(&[raw("a"), b"what".to_vec()], "raw:a unknown: (it is neither a cpio archive");
        let mut nameless = raw("abcd");
        // Six bytes are five letters and no NUL.
        nameless[94..102].copy_from_slice(b"00000004");
        check(&[nameless], "raw: (the file name \"abcd\" has no NUL");
        check(&[zstd("a")[..40].to_vec()], "zstd: (it can't be decoded");
        check(&[raw("a")[..113].to_vec()], "raw:a (it is cut off or damaged at byte");
    }

    #[test]
    fn every_prefix_is_a_problem_or_a_shorter_list() {
        for whole in [raw("a"), zstd("a"), gzip("a"), xz("a", liblzma::stream::Check::Crc32)] {
            let all = inspect(&whole).segments[0].entries.clone();
            for end in 1..whole.len() {
                let first = &inspect(&whole[..end]).segments[0];
                let is_shorter = first.entries.len() < all.len();
                assert!(first.problem.is_some() || is_shorter || first.entries == all, "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..300usize, wild: Vec<u8>, bytes: Vec<u8>, kind in 0..4usize) {
            inspect(&bytes);
            let mut archive =
                [raw("a"), zstd("a"), gzip("a"), xz("a", liblzma::stream::Check::Crc32)]
                    [kind].clone();
            let at = at.min(archive.len());
            let end = (at + wild.len()).min(archive.len());
            archive[at..end].copy_from_slice(&wild[..end - at]);
            inspect(&archive);
        }
    }
}
