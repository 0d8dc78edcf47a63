//! Reading the cpio archives of others (`newc`, as the kernel unpacks it), whatever the bytes.

use std::io::{self, Read};

/// Longest name; the kernel's own limit (`PATH_MAX`).
const NAME_SIZE_MAX: u32 = 4096;

/// Length of an entry's header: a magic number and 13 numbers of eight hexadecimal digits.
const HEADER_SIZE: usize = 110;

/// What an archive says about one of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path as it is stored: with or without a leading `/` or `./`.
    pub(crate) name: String,
    /// Kind and permissions, as in `stat`.
    pub(crate) mode: u32,
    /// Length of the content.
    pub(crate) size_bytes: u32,
}

/// What comes next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Entry(Entry),
    /// The archive ends here; perhaps another one follows.
    Trailer,
    /// The stream ends where an archive could start.
    End,
}

/// The bytes are not an archive that the kernel unpacks completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("no cpio header (newc) at byte {0} of the archive")]
    Header(u64),
    #[error("an archive starts at byte {0} of the unpacked data, which is not a multiple of 4")]
    Misaligned(u64),
    #[error("a name of {0} bytes; the kernel takes 4096")]
    LongName(u32),
    #[error("the name {0:?} has no NUL byte at its end")]
    NameWithoutNul(String),
    #[error("it is cut off or damaged at byte {0} of the archive")]
    CutOff(u64),
    #[error("it can't be decoded ({0})")]
    Read(#[source] io::Error),
}

/// Reads entry by entry: [`next`](Self::next) until it says [`Next::End`] or fails. After [`Next::Entry`],
/// [`content`](Self::content) or [`content_reader`](Self::content_reader) may be called once; a content that
/// nobody asks for is skipped.
pub(crate) struct Reader<R> {
    input: R,
    /// Bytes read so far: everything is padded by it.
    position: u64,
    /// What is left of the current content.
    content_left: u64,
    is_between_archives: bool,
}

impl<R: Read> Reader<R> {
    /// A reader at the start of an archive.
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0, content_left: 0, is_between_archives: true }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry. After an error there is nothing more to read.
    pub(crate) fn next(&mut self) -> Result<Next, ArchiveError> {
        self.skip(self.content_left)?;
        self.content_left = 0;
        let mut header = [0; HEADER_SIZE];
        if self.is_between_archives {
            let Some(first) = self.skip_zeros()? else { return Ok(Next::End) };
            if !(self.position - 1).is_multiple_of(4) {
                return Err(ArchiveError::Misaligned(self.position - 1));
            }
            header[0] = first;
            self.fill(&mut header[1..])?;
            self.is_between_archives = false;
        } else {
            self.skip(self.padding())?;
            // Some write no trailer, which the kernel does not mind at the end of a file.
            if self.input.read(&mut header[..1]).map_err(ArchiveError::Read)? == 0 {
                return Ok(Next::End);
            }
            self.position += 1;
            self.fill(&mut header[1..])?;
        }
        let bad = ArchiveError::Header(self.position - HEADER_SIZE as u64);
        let Some((mode, size_bytes, name_size)) = parse_header(&header) else { return Err(bad) };
        let name = self.name(name_size)?;
        if name == "TRAILER!!!" {
            self.is_between_archives = true;
            return Ok(Next::Trailer);
        }
        self.skip(self.padding())?;
        self.content_left = u64::from(size_bytes);
        Ok(Next::Entry(Entry { name, mode, size_bytes }))
    }

    /// Reads the current content, as far as it is wanted.
    pub(crate) fn content_reader(&mut self) -> impl Read {
        Content(self)
    }

    /// Content of the current entry, which must not be read twice.
    pub(crate) fn content(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut content = Vec::new();
        let wanted = std::mem::take(&mut self.content_left);
        let read = (&mut self.input).take(wanted).read_to_end(&mut content);
        self.position += content.len() as u64;
        read.map_err(ArchiveError::Read)?;
        match content.len() as u64 == wanted {
            true => Ok(content),
            false => Err(ArchiveError::CutOff(self.position)),
        }
    }

    fn name(&mut self, size: u32) -> Result<String, ArchiveError> {
        if size > NAME_SIZE_MAX {
            return Err(ArchiveError::LongName(size));
        }
        let mut name = vec![0; size as usize];
        self.fill(&mut name)?;
        let end = name.iter().position(|&byte| byte == 0);
        let text = String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned();
        // The kernel looks at the last byte, and takes what is before the first NUL.
        match name.last() {
            Some(0) => Ok(text),
            _ => Err(ArchiveError::NameWithoutNul(text)),
        }
    }

    /// Bytes up to the next multiple of 4.
    fn padding(&self) -> u64 {
        self.position.next_multiple_of(4) - self.position
    }

    /// The first byte that is not zero; `None` at the end of the stream.
    fn skip_zeros(&mut self) -> Result<Option<u8>, ArchiveError> {
        let mut byte = [0];
        loop {
            if self.input.read(&mut byte).map_err(ArchiveError::Read)? == 0 {
                return Ok(None);
            }
            self.position += 1;
            if byte[0] != 0 {
                return Ok(Some(byte[0]));
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.input.read_exact(buffer).map_err(|error| self.read_error(error))?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), ArchiveError> {
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())
            .map_err(ArchiveError::Read)?;
        self.position += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(ArchiveError::CutOff(self.position)),
        }
    }

    fn read_error(&self, error: io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::CutOff(self.position),
            _ => ArchiveError::Read(error),
        }
    }
}

/// Ends where the content ends, which must not be taken for the end of the archive.
struct Content<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.0.content_left) as usize;
        let n_read = self.0.input.read(&mut buffer[..wanted])?;
        if n_read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.position += n_read as u64;
        self.0.content_left -= n_read as u64;
        Ok(n_read)
    }
}

/// Mode, length of the content, and length of the name.
fn parse_header(header: &[u8; HEADER_SIZE]) -> Option<(u32, u32, u32)> {
    let (magic, numbers) = header.split_at(6);
    if magic != b"070701" && magic != b"070702" {
        return None;
    }
    let number = |index: usize| {
        let digits = numbers.get(index * 8..index * 8 + 8)?;
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let text = core::str::from_utf8(digits).ok().filter(|_| is_hex)?;
        u32::from_str_radix(text, 16).ok()
    };
    Some((number(1)?, number(6)?, number(11)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::newc::Archive;
    use proptest::prelude::*;

    fn example() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"#!x".to_vec());
        archive.link("sbin/modprobe", "/init");
        archive.to_bytes().unwrap()
    }

    /// Names until the end or an error.
    fn names(bytes: &[u8]) -> (Vec<String>, Option<ArchiveError>) {
        let mut reader = Reader::new(bytes);
        let mut names = Vec::new();
        loop {
            match reader.next() {
                Ok(Next::Entry(entry)) => names.push(entry.name),
                Ok(Next::Trailer) => names.push("(end)".to_owned()),
                Ok(Next::End) => return (names, None),
                Err(error) => return (names, Some(error)),
            }
        }
    }

    #[test]
    fn what_the_builder_writes_is_read_back() {
        let mut reader = Reader::new(&*example().leak());
        let entry = Entry { name: "init".to_owned(), mode: 0o100_755, size_bytes: 3 };
        assert_eq!(reader.next().unwrap(), Next::Entry(entry));
        assert_eq!(reader.content().unwrap(), b"#!x");
        let two = [example(), vec![0; 8], example()].concat();
        let one = ["init", "sbin", "sbin/modprobe", "(end)"];
        let (seen, error) = names(&two);
        assert_eq!(seen, [one, one].concat());
        assert!(error.is_none());
    }

    #[test]
    fn every_prefix_is_an_error_or_a_shorter_list() {
        let whole = example();
        let (all, _) = names(&whole);
        for end in 1..whole.len() {
            let (seen, error) = names(&whole[..end]);
            assert!(seen == all || seen.len() < all.len(), "{end}");
            assert!(seen == all || error.is_some() || end % 4 == 0, "{end}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        let check = |at: usize, bytes: &[u8], expected: &str| {
            let mut wrong = example();
            wrong[at..at + bytes.len()].copy_from_slice(bytes);
            let error = names(&wrong).1.unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(0, b"070707", "no cpio header");
        check(14, b"+00000ff", "no cpio header");
        check(94, b"00000004", "has no NUL");
        check(94, b"00000000", "has no NUL");
        check(94, b"00010000", "65536 bytes");
        check(54, b"ffffffff", "cut off");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..400usize, wild: Vec<u8>, bytes: Vec<u8>) {
            names(&bytes);
            let mut archive = example();
            let at = at.min(archive.len());
            let end = (at + wild.len()).min(archive.len());
            archive[at..end].copy_from_slice(&wild[..end - at]);
            names(&archive);
        }
    }
}
