//! Reading one segment: how it is stored, and which files it has.

use super::{Codec, Entry, Problem, Segment};
use crate::newc::{ArchiveError, Next, Reader};
use initcfg::{INDEX_PATH, ModuleIndex};
use liblzma::stream::Stream;
use std::io::{self, Read};

/// Largest module index that is read; that of Debian's whole kernel has 2 MB.
const INDEX_SIZE_MAX: u32 = 16 << 20;

/// Memory for decoding xz: the largest preset (-9) needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// What may still be decoded and listed.
pub(super) struct Budget {
    /// Bytes of all segments together.
    pub(super) bytes: u64,
    /// Files of all segments together.
    pub(super) entries: usize,
}

/// Reads what starts here; its offset is for the caller to set.
pub(super) fn read_segment(
    rest: &[u8],
    budget: &mut Budget,
    index: &mut Option<ModuleIndex>,
) -> Segment {
    let mut segment = Segment {
        offset: 0,
        codec: Codec::Raw,
        stored_bytes: rest.len() as u64,
        unpacked_bytes: None,
        entries: Vec::new(),
        problem: None,
    };
    let (codec, problem) = codec(rest);
    segment.codec = codec;
    let left = match problem {
        None => unpack(rest, &mut segment, budget, index),
        Some(problem) => Err(problem),
    };
    match left {
        Ok(left) => segment.stored_bytes = (rest.len() - left) as u64,
        Err(problem) => segment.problem = Some(problem),
    }
    segment
}

/// What starts here, and why the kernel can't decode it.
fn codec(rest: &[u8]) -> (Codec, Option<Problem>) {
    let known = match rest {
        [b'0', ..] => Codec::Raw,
        [0x1f, 0x8b | 0x9e, ..] => Codec::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
        // The last byte is the kind of its checksum: none or CRC32.
        [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0 | 1, ..] => Codec::Xz,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return (Codec::Xz, Some(Problem::XzChecksum)),
        [0x02, 0x21, 0x4c, 0x18, ..] => Codec::Lz4,
        [0x04, 0x22, 0x4d, 0x18, ..] => return (Codec::Lz4, Some(Problem::Lz4Frame)),
        [b'B', b'Z', b'h', ..] => Codec::Other("bzip2"),
        [0x5d, 0, 0, ..] => Codec::Other("lzma"),
        [0x89, b'L', b'Z', b'O', ..] => Codec::Other("lzo"),
        _ => return (Codec::Other("unknown"), Some(Problem::Unknown)),
    };
    (known, None)
}

/// Lists the segment's files; returns how much of the file is behind it.
fn unpack(
    mut rest: &[u8],
    segment: &mut Segment,
    budget: &mut Budget,
    index: &mut Option<ModuleIndex>,
) -> Result<usize, Problem> {
    let damaged = |error: io::Error| Problem::Damaged(format!("it can't be decoded ({error})"));
    match segment.codec {
        Codec::Raw => {
            let read = list(&mut rest, true, segment, budget, index);
            read.map(|()| rest.len())
        }
        Codec::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(rest);
            list(&mut decoder, false, segment, budget, index)?;
            Ok(decoder.into_inner().len())
        }
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(rest).map_err(damaged)?;
            let mut decoder = decoder.single_frame();
            list(&mut decoder, false, segment, budget, index)?;
            Ok(decoder.finish().len())
        }
        Codec::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)
                .map_err(|error| damaged(error.into()))?;
            let mut decoder = liblzma::bufread::XzDecoder::new_stream(rest, stream);
            list(&mut decoder, false, segment, budget, index)?;
            Ok(decoder.into_inner().len())
        }
        Codec::Lz4 => Ok(after_lz4(rest)),
        Codec::Other(_) => Ok(0),
    }
}

/// Lists one archive, or all of a compressed segment.
fn list(
    input: impl Read,
    is_one: bool,
    segment: &mut Segment,
    budget: &mut Budget,
    index: &mut Option<ModuleIndex>,
) -> Result<(), Problem> {
    let mut reader = Reader::new(input.take(budget.bytes));
    let result = list_entries(&mut reader, is_one, segment, budget, index);
    segment.unpacked_bytes = Some(reader.position());
    budget.bytes -= reader.position();
    match result {
        // The limit cuts the stream, wherever it happens to be.
        _ if budget.bytes == 0 => Err(Problem::TooLarge),
        other => other,
    }
}

fn list_entries(
    reader: &mut Reader<impl Read>,
    is_one: bool,
    segment: &mut Segment,
    budget: &mut Budget,
    index: &mut Option<ModuleIndex>,
) -> Result<(), Problem> {
    loop {
        let entry = match reader.next().map_err(problem)? {
            Next::Trailer if is_one => return Ok(()),
            Next::Trailer => continue,
            Next::End => return Ok(()),
            Next::Entry(entry) => entry,
        };
        budget.entries = budget.entries.checked_sub(1).ok_or(Problem::TooLarge)?;
        let path = entry.name.trim_start_matches("./").trim_start_matches('/');
        if path == &INDEX_PATH[1..] && entry.size_bytes <= INDEX_SIZE_MAX {
            let text = reader.content().map_err(problem)?;
            *index = core::str::from_utf8(&text).ok().and_then(|t| ModuleIndex::parse(t).ok());
        }
        segment.entries.push(Entry {
            path: path.to_owned(),
            mode: entry.mode,
            size_bytes: u64::from(entry.size_bytes),
        });
    }
}

fn problem(error: ArchiveError) -> Problem {
    match error {
        ArchiveError::NameWithoutNul(name) => Problem::NameWithoutNul(name),
        other => Problem::Damaged(other.to_string()),
    }
}

/// Walks over the blocks of an lz4 segment; returns how many bytes are behind it.
fn after_lz4(bytes: &[u8]) -> usize {
    let mut rest = &bytes[4..];
    while let Some((size, blocks)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size) as usize;
        // The largest block has 8 MiB; anything larger is the start of something else.
        match blocks.get(size..).filter(|_| size != 0 && size <= 9 << 20) {
            Some(next) => rest = next,
            None => break,
        }
    }
    rest.len()
}
