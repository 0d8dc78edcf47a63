//! Headers of a tar archive as GNU tar writes it: long names in entries of their own, so that they may be of any bytes; holes left
//! out; attributes in the records of POSIX. By this all that a Linux file has passes.

use std::io::{self, Write};

/// What an archive consists of.
pub(super) const BLOCK: usize = 512;

/// Parts with data that stand in the header of a file with holes, and in each block that follows it.
const PARTS_FIRST: usize = 4;
const PARTS_NEXT: usize = 21;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A file with so many bytes, which follow.
    File(u64),
    /// A file with holes: where there is data, as offset and length, in order; that follows. And its size.
    Sparse(&'a [(u64, u64)], u64),
    /// Another name of what was written under this one.
    HardLink(&'a [u8]),
    /// A symbolic link there.
    Link(&'a [u8]),
    /// A folder.
    Folder,
    /// A device with these numbers, that has characters.
    Characters(u32, u32),
    /// A device with these numbers, that has blocks.
    Blocks(u32, u32),
    /// A named pipe.
    Pipe,
}

/// A file but for its content.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Its name from the root, without a slash at the beginning.
    pub(super) path: &'a [u8],
    pub(super) permissions: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
    /// Extended attributes as getxattr(2) gives them.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
    pub(super) kind: Kind<'a>,
}

/// Writes all that stands before the content of a file.
pub(super) fn write_header(out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let records: Vec<u8> =
        entry.xattrs.iter().flat_map(|(name, value)| record(name, value)).collect();
    if !records.is_empty() {
        write_beside(out, b'x', b"././@PaxHeader", &records)?;
    }
    let mut path = entry.path.to_vec();
    if entry.kind == Kind::Folder {
        path.push(b'/');
    }
    let target: &[u8] = match entry.kind {
        Kind::HardLink(target) | Kind::Link(target) => target,
        _ => b"",
    };
    for (flag, name) in [(b'K', target), (b'L', &path[..])] {
        if name.len() > 100 {
            write_beside(out, flag, b"././@LongLink", &[name, b"\0"].concat())?;
        }
    }
    let (flag, size, device) = match entry.kind {
        Kind::File(size) => (b'0', size, None),
        Kind::Sparse(parts, _) => (b'S', parts.iter().map(|(_, length)| length).sum(), None),
        Kind::HardLink(_) => (b'1', 0, None),
        Kind::Link(_) => (b'2', 0, None),
        Kind::Characters(major, minor) => (b'3', 0, Some((major, minor))),
        Kind::Blocks(major, minor) => (b'4', 0, Some((major, minor))),
        Kind::Folder => (b'5', 0, None),
        Kind::Pipe => (b'6', 0, None),
    };
    let mut header = [0; BLOCK];
    text(&mut header[..100], &path);
    number(&mut header[100..108], i128::from(entry.permissions & 0o7777));
    number(&mut header[108..116], i128::from(entry.owner));
    number(&mut header[116..124], i128::from(entry.group));
    number(&mut header[124..136], i128::from(size));
    number(&mut header[136..148], i128::from(entry.modified));
    text(&mut header[157..257], target);
    if let Some((major, minor)) = device {
        number(&mut header[329..337], i128::from(major));
        number(&mut header[337..345], i128::from(minor));
    }
    let mut parts: Vec<(u64, u64)> = Vec::new();
    if let Kind::Sparse(data, size) = entry.kind {
        parts = data.to_vec();
        // A hole at the end has no data behind it, which would tell how long it is.
        parts.push((size, 0));
        put_parts(&mut header[386..], &parts, PARTS_FIRST);
        header[482] = u8::from(parts.len() > PARTS_FIRST);
        number(&mut header[483..495], i128::from(size));
    }
    out.write_all(&finished(header, flag))?;
    let mut left = parts.get(PARTS_FIRST..).unwrap_or_default();
    while !left.is_empty() {
        let mut block = [0; BLOCK];
        put_parts(&mut block, left, PARTS_NEXT);
        left = left.get(PARTS_NEXT..).unwrap_or_default();
        block[504] = u8::from(!left.is_empty());
        out.write_all(&block)?;
    }
    Ok(())
}

/// What follows content of this length, up to the next header.
pub(super) fn padding(length: u64) -> &'static [u8] {
    let over = (length % BLOCK as u64) as usize;
    &[0; BLOCK][..if over == 0 { 0 } else { BLOCK - over }]
}

/// The mark of an archive's end.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// An entry that says more about the next one.
fn write_beside(out: &mut impl Write, flag: u8, name: &[u8], content: &[u8]) -> io::Result<()> {
    let mut header = [0; BLOCK];
    text(&mut header[..100], name);
    for range in [100..108, 108..116, 116..124, 136..148] {
        number(&mut header[range], 0);
    }
    number(&mut header[124..136], content.len() as i128);
    out.write_all(&finished(header, flag))?;
    out.write_all(content)?;
    out.write_all(padding(content.len() as u64))
}

/// `LENGTH SCHILY.xattr.NAME=VALUE`, where the length counts its own digits, too.
fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [&b" SCHILY.xattr."[..], name, b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// As much of it as there is room for.
fn text(field: &mut [u8], text: &[u8]) {
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
}

/// Octal digits with a zero behind them; what does not fit, or is less than 0, in 8 bits a byte after a mark.
fn number(field: &mut [u8], number: i128) {
    let n_digits = field.len() - 1;
    let fits = u64::try_from(number).is_ok() && number < 1_i128 << (3 * n_digits);
    if fits {
        text(field, format!("{number:0n_digits$o}").as_bytes());
        return;
    }
    let bytes = number.to_be_bytes();
    let n = field.len();
    field.copy_from_slice(&bytes[bytes.len() - n..]);
    field[0] |= 0x80;
}

fn put_parts(field: &mut [u8], parts: &[(u64, u64)], n_max: usize) {
    for ((offset, length), place) in parts.iter().zip(field.chunks_mut(24)).take(n_max) {
        number(&mut place[..12], i128::from(*offset));
        number(&mut place[12..24], i128::from(*length));
    }
}

fn finished(mut header: [u8; BLOCK], flag: u8) -> [u8; BLOCK] {
    header[156] = flag;
    text(&mut header[257..265], b"ustar  ");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    text(&mut header[148..155], format!("{sum:06o}\0").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_tar_reads_them() {
        let as_field = |of: i128, n: usize| {
            let mut field = vec![0; n];
            number(&mut field, of);
            field
        };
        assert_eq!(as_field(0o755, 8), b"0000755\0");
        assert_eq!(as_field((1 << 21) - 1, 8), b"7777777\0");
        assert_eq!(as_field(1 << 21, 8), [0x80, 0, 0, 0, 0, 0x20, 0, 0]);
        assert_eq!(as_field(-1, 12), [0xff; 12]);
        assert_eq!(as_field(8 << 30, 12)[..4], [0x80, 0, 0, 0]);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"user.a", b"1"), b"25 SCHILY.xattr.user.a=1\n");
        for n in 60..130 {
            let record = record(b"user.a", &vec![b'x'; n]);
            let (digits, _) = std::str::from_utf8(&record).unwrap().split_once(' ').unwrap();
            assert_eq!(digits.parse(), Ok(record.len()));
        }
    }

    #[test]
    fn content_fills_whole_blocks() {
        assert_eq!([0, 1, 511, 512, 513].map(|n| padding(n).len()), [0, 511, 1, 0, 511]);
    }
}
