//! The part of the Basic Encoding Rules that LDAP uses (RFC 4511, 5.1): definite lengths, tags of one byte.

use alloc::vec::Vec;
use wire::{Reader, Truncated};

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Bytes that are no message of LDAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field is cut off.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Another kind of field is there.
    #[error("{field} has the tag {found:#04x}, and not {wanted:#04x}")]
    Tag {
        /// Which field.
        field: &'static str,
        /// Its tag.
        found: u8,
        /// What it must be.
        wanted: u8,
    },
    /// A length that LDAP does not allow, or one beyond all messages.
    #[error("{0} has a length that LDAP does not allow")]
    Length(&'static str),
    /// A number that does not fit.
    #[error("{0} is a number that LDAP does not allow")]
    Number(&'static str),
    /// More bytes than the message says that it has.
    #[error("{0} bytes stand behind the message")]
    Trailing(usize),
}

/// Puts an element whose content `fill` writes.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    fill(&mut content);
    out.push(tag);
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let n_zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let bytes = &bytes[n_zeros..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.append(&mut content);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put(out, tag, |out| out.extend_from_slice(bytes));
}

pub(crate) fn put_number(out: &mut Vec<u8>, tag: u8, number: u32) {
    let bytes = number.to_be_bytes();
    let n_zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(3);
    put(out, tag, |out| {
        // The first bit is the sign.
        if bytes[n_zeros] >= 0x80 {
            out.push(0);
        }
        out.extend_from_slice(&bytes[n_zeros..]);
    });
}

/// Takes the next element, whatever it is: its tag and its content.
pub(crate) fn any<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
) -> Result<(u8, &'a [u8]), Malformed> {
    let tag = reader.u8(field)?;
    let length = match reader.u8(field)? {
        short @ ..=0x7f => usize::from(short),
        // Up to 4 bytes say how long it is; 0x80 is the indefinite form, which RFC 4511 forbids.
        long @ 0x81..=0x84 => {
            let bytes = reader.bytes(field, usize::from(long & 0x7f))?;
            bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return Err(Malformed::Length(field)),
    };
    Ok((tag, reader.bytes(field, length)?))
}

/// Takes the next element, which must have this tag.
pub(crate) fn take<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
    wanted: u8,
) -> Result<&'a [u8], Malformed> {
    match any(reader, field)? {
        (found, content) if found == wanted => Ok(content),
        (found, _) => Err(Malformed::Tag { field, found, wanted }),
    }
}

pub(crate) fn take_number(
    reader: &mut Reader<'_>,
    field: &'static str,
    tag: u8,
) -> Result<u32, Malformed> {
    let bytes = take(reader, field, tag)?;
    // Negative ones are nowhere in LDAP.
    let is_negative = bytes.first().is_none_or(|first| *first >= 0x80);
    match bytes {
        [0, rest @ ..] | rest if rest.len() <= 4 && !is_negative => {
            Ok(rest.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
        }
        _ => Err(Malformed::Number(field)),
    }
}
