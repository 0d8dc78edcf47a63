//! Compressed files, told apart by their first bytes.

use liblzma::stream::MtStreamBuilder;
use std::io::{self, Read};

/// Largest module or firmware file that is decoded. The largest module of Debian's kernel (amdgpu)
/// has 10 MB; with debug data some reach 100 MB.
pub(crate) const FILE_SIZE_MAX: u64 = 256 << 20;

/// Memory that decoding on several threads may take; one block of Debian's packages has 24 MiB, and
/// each thread holds an input and an output block.
const THREADS_MEMORY_MAX: u64 = 512 << 20;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For the hundreds of modules of an initrd for all machines.
    Quick,
    /// For little data: saves another 8 %, and takes 20 times as long.
    Thorough,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Self::Quick => 9,
            Self::Thorough => 19,
        }
    }
}

/// Decodes gzip, xz or zstd; anything else is returned as it is.
pub(crate) fn decode(data: Vec<u8>) -> io::Result<Vec<u8>> {
    match data.as_slice() {
        [0x1f, 0x8b, ..] => read_bounded(flate2::read::MultiGzDecoder::new(data.as_slice())),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            read_bounded(liblzma::read::XzDecoder::new_multi_decoder(data.as_slice()))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            read_bounded(zstd::stream::read::Decoder::with_buffer(data.as_slice())?)
        }
        _ => Ok(data),
    }
}

/// Decodes on all processors: Debian's kernel packages are made of 24 MiB blocks.
pub(crate) fn xz_decoder(data: impl Read) -> io::Result<impl Read> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let stream = MtStreamBuilder::new()
        .threads(threads as u32)
        .memlimit_threading(THREADS_MEMORY_MAX)
        .memlimit_stop(u64::MAX)
        .decoder()?;
    Ok(liblzma::read::XzDecoder::new_stream(data, stream))
}

fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(FILE_SIZE_MAX + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > FILE_SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than 256 MiB when decoded"));
    }
    Ok(plain)
}

/// Names the compressor: the same name gives the same bytes.
pub(crate) fn compressor(effort: Effort) -> String {
    format!("zstd{}-{}", zstd::zstd_safe::version_number(), effort.level())
}

/// Compresses with zstd; the same input gives the same bytes, on any machine.
pub(crate) fn compress(plain: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(plain, effort.level())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn every_kernel_s_compression_is_decoded() {
        let plain = b"\x7fELF module".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        for stored in [
            plain.clone(),
            gzip.finish().unwrap(),
            xz.finish().unwrap(),
            compress(&plain, Effort::Quick).unwrap(),
        ] {
            assert_eq!(decode(stored).unwrap(), plain);
        }
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let stored = compress(&[7; 1000], Effort::Quick).unwrap();
        for end in 4..stored.len() {
            assert!(decode(stored[..end].to_vec()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0..4usize, tail: Vec<u8>) {
            let magics: [&[u8]; 4] =
                [b"", &[0x1f, 0x8b], &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
            let _ = decode([magics[kind], &tail].concat());
        }
    }
}
