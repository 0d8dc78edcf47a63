//! Reading a stream, whoever has sent it: memory and time that it costs are bounded by what its disk may have.

use super::error::StreamError;
use super::header::Header;
use super::{DIFF, HEADER_BYTES_MAX, MAGIC, WINDOW_LOG_MAX};
use std::io::{self, BufReader, Read};

/// Longest name of a snapshot.
const SNAPSHOT_BYTES_MAX: u32 = 256;

/// How Zstandard begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A stream of which the header is read.
pub(super) struct Parsed<R: Read> {
    pub(super) header: Header,
    input: Hashing<Decoder<R>>,
}

type Decoder<R> = zstd::Decoder<'static, BufReader<io::Chain<io::Cursor<[u8; 4]>, R>>>;

/// What is done with the records.
pub(super) trait Records {
    /// Up to here all is as it was.
    fn keep(&mut self, until: u64) -> Result<(), StreamError>;

    /// So much is empty now.
    fn zero(&mut self, length: u64) -> Result<(), StreamError>;

    /// This comes next.
    fn data(&mut self, bytes: &[u8]) -> Result<(), StreamError>;
}

impl<R: Read> Parsed<R> {
    pub(super) fn open(mut input: R) -> Result<Self, StreamError> {
        let mut start = [0; 4];
        input.read_exact(&mut start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StreamError::Malformed("it is empty".to_owned()),
            _ => StreamError::Read(error),
        })?;
        if start != ZSTD {
            return Err(malformed("it is not compressed with Zstandard"));
        }
        let input = io::Cursor::new(start).chain(input);
        let mut decoder = zstd::Decoder::new(input).map_err(StreamError::Read)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(StreamError::Read)?;
        let mut input = Hashing { input: decoder, hasher: blake3::Hasher::new() };
        let mut magic = [0; MAGIC.len()];
        input.exact(&mut magic)?;
        if magic != MAGIC {
            let (kind, number) = MAGIC.split_at(MAGIC.len() - 2);
            return match magic.strip_prefix(kind) {
                Some(other) if other != number => {
                    Err(StreamError::Newer(String::from_utf8_lossy(other).trim().to_owned()))
                }
                _ => Err(malformed("it begins otherwise")),
            };
        }
        let length = u32::from_le_bytes(input.array()?);
        if length > HEADER_BYTES_MAX {
            return Err(malformed(&format!("its header has {length} bytes")));
        }
        let mut header = vec![0; length as usize];
        input.exact(&mut header)?;
        let header = Header::parse(&header)?;
        Ok(Self { header, input })
    }

    /// The files beside the disk, each when it is read and has its digest; `before` reads one of the version from which this one differs.
    pub(super) fn files(
        &mut self,
        before: impl Fn(&str) -> Result<Option<Vec<u8>>, StreamError>,
        mut on_file: impl FnMut(&str, &[u8]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        for file in &self.header.files {
            // As much memory as there are bytes, whatever is claimed.
            let mut bytes = Vec::new();
            if file.is_as_before {
                // Nobody has one who only looks.
                let Some(found) = before(&file.name)? else { continue };
                bytes = found;
            } else {
                let read = (&mut self.input).take(file.size_bytes).read_to_end(&mut bytes);
                read.map_err(read_error)?;
            }
            if blake3::hash(&bytes).to_hex().as_str() != file.blake3 {
                return Err(malformed(&format!("{} has another digest", file.name)));
            }
            on_file(&file.name, &bytes)?;
        }
        Ok(())
    }

    /// The records, and the end of the stream.
    pub(super) fn records(&mut self, records: &mut impl Records) -> Result<(), StreamError> {
        let size_bytes = self.header.description.version.size_bytes;
        read_records(&mut self.input, (self.header.at_bytes, size_bytes), records)?;
        let expected = self.input.hasher.finalize();
        let found: [u8; 32] = self.input.array()?;
        // In the same time, whatever it is.
        if expected != blake3::Hash::from_bytes(found) {
            return Err(malformed("its digest is another one"));
        }
        match self.input.input.read(&mut [0]).map_err(read_error)? {
            0 => records.keep(size_bytes),
            _ => Err(malformed("something follows its end")),
        }
    }
}

/// The records of what is changed of a disk of this size, and nothing else.
pub(super) fn read_changes(
    input: impl Read,
    size_bytes: u64,
    records: &mut impl Records,
) -> Result<(), StreamError> {
    let mut input = Hashing { input, hasher: blake3::Hasher::new() };
    read_records(&mut input, (0, size_bytes), records)?;
    match input.read(&mut [0]).map_err(StreamError::Read)? {
        0 => records.keep(size_bytes),
        _ => Err(malformed("something follows its end")),
    }
}

/// The records from a place of a disk of this size on, up to the one that ends them.
fn read_records<R: Read>(
    input: &mut Hashing<R>,
    (at_bytes, size_bytes): (u64, u64),
    records: &mut impl Records,
) -> Result<(), StreamError> {
    let mut line = [0; DIFF.len()];
    input.exact(&mut line)?;
    if line != DIFF {
        return Err(malformed("its records are no rbd diff v1"));
    }
    let mut has_size = false;
    let mut position = at_bytes;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let [tag] = input.array()?;
        match tag {
            b'f' | b't' if !has_size => {
                let length = u32::from_le_bytes(input.array()?);
                if length > SNAPSHOT_BYTES_MAX {
                    return Err(malformed(&format!("a snapshot's name has {length} bytes")));
                }
                input.exact(&mut buffer[..length as usize])?;
            }
            b's' if !has_size => {
                let size = u64::from_le_bytes(input.array()?);
                if size != size_bytes {
                    return Err(malformed(&format!("its records are of {size} bytes")));
                }
                has_size = true;
            }
            b'w' | b'z' if has_size => {
                let offset = u64::from_le_bytes(input.array()?);
                let length = u64::from_le_bytes(input.array()?);
                let end = offset.checked_add(length).filter(|&end| end <= size_bytes);
                let (true, false, Some(end)) = (offset >= position, length == 0, end) else {
                    return Err(malformed(&format!(
                        "a record of {length} bytes at {offset} is not in its place"
                    )));
                };
                records.keep(offset)?;
                if tag == b'z' {
                    records.zero(length)?;
                } else {
                    let mut left = length;
                    while left > 0 {
                        let part = &mut buffer[..left.min(64 << 10) as usize];
                        input.exact(part)?;
                        records.data(part)?;
                        left -= part.len() as u64;
                    }
                }
                position = end;
            }
            b'e' if has_size => break,
            other => {
                let told = format!("a record begins with {:?}", char::from(other));
                return Err(malformed(&told));
            }
        }
    }
    Ok(())
}

fn malformed(why: &str) -> StreamError {
    StreamError::Malformed(why.to_owned())
}

/// What the reader below says, and what Zstandard says of its bytes, are told apart.
fn read_error(error: io::Error) -> StreamError {
    let is_zstd = error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none();
    match is_zstd && error.get_ref().is_some_and(|it| !it.is::<io::Error>()) {
        true => StreamError::Malformed(error.to_string()),
        false => StreamError::Read(error),
    }
}

struct Hashing<R> {
    input: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Hashing<R> {
    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.read_exact(bytes).map_err(read_error)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}
