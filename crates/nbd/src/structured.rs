//! Structured replies: chunks, of which the last says that the request is done.

use crate::ErrorCode;
use crate::constants::STRUCTURED_REPLY_MAGIC;
use alloc::vec::Vec;

/// Length of a chunk's header in bytes.
pub const CHUNK_BYTES: usize = 20;

/// Number of the context `base:allocation` in replies to BLOCK_STATUS.
pub const ALLOCATION_ID: u32 = 1;

const FLAG_DONE: u16 = 1;

const TYPE_NONE: u16 = 0;
const TYPE_OFFSET_DATA: u16 = 1;
const TYPE_OFFSET_HOLE: u16 = 2;
const TYPE_BLOCK_STATUS: u16 = 5;
const TYPE_ERROR: u16 = (1 << 15) | 1;

const STATE_HOLE: u32 = 1;
const STATE_ZERO: u32 = 2;

/// The request `cookie` is done, and there is no more to say.
pub fn done(cookie: u64) -> [u8; CHUNK_BYTES] {
    header(cookie, true, TYPE_NONE, 0)
}

/// Header of the chunk that brings `length` bytes of the disk from `offset`; they follow it.
pub fn data(cookie: u64, is_last: bool, offset: u64, length: u32) -> [u8; CHUNK_BYTES + 8] {
    let mut bytes = [0; CHUNK_BYTES + 8];
    let header = header(cookie, is_last, TYPE_OFFSET_DATA, length.saturating_add(8));
    bytes[..CHUNK_BYTES].copy_from_slice(&header);
    bytes[CHUNK_BYTES..].copy_from_slice(&offset.to_be_bytes());
    bytes
}

/// The chunk that says that `length` bytes from `offset` are zeroes.
pub fn hole(cookie: u64, is_last: bool, offset: u64, length: u32) -> [u8; CHUNK_BYTES + 12] {
    let mut bytes = [0; CHUNK_BYTES + 12];
    bytes[..CHUNK_BYTES].copy_from_slice(&header(cookie, is_last, TYPE_OFFSET_HOLE, 12));
    bytes[CHUNK_BYTES..CHUNK_BYTES + 8].copy_from_slice(&offset.to_be_bytes());
    bytes[CHUNK_BYTES + 8..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The chunk that answers BLOCK_STATUS for `base:allocation`: lengths, and whether each is a hole.
pub fn block_status(cookie: u64, extents: &[(u32, bool)]) -> Vec<u8> {
    let length = 4 + 8 * extents.len() as u32;
    let mut bytes = header(cookie, true, TYPE_BLOCK_STATUS, length).to_vec();
    bytes.extend_from_slice(&ALLOCATION_ID.to_be_bytes());
    for (length, is_hole) in extents {
        let state = if *is_hole { STATE_HOLE | STATE_ZERO } else { 0 };
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes
}

/// The chunk that says that the request failed, with a word for people.
pub fn error(cookie: u64, code: ErrorCode, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(256)];
    let mut bytes = header(cookie, true, TYPE_ERROR, 6 + text.len() as u32).to_vec();
    bytes.extend_from_slice(&(code as u32).to_be_bytes());
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}

fn header(cookie: u64, is_last: bool, kind: u16, length: u32) -> [u8; CHUNK_BYTES] {
    let mut bytes = [0; CHUNK_BYTES];
    bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&(if is_last { FLAG_DONE } else { 0 }).to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_their_form() {
        let cookie = 7;
        assert_eq!(done(cookie)[..], *b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x07\0\0\0\0");
        let data = data(cookie, false, 4096, 512);
        assert_eq!(data[4..8], [0, 0, 0, 1]);
        assert_eq!(data[16..], *b"\0\0\x02\x08\0\0\0\0\0\0\x10\0");
        let hole = hole(cookie, true, 1, 2);
        assert_eq!(hole[4..8], [0, 1, 0, 2]);
        assert_eq!(hole[16..], *b"\0\0\0\x0c\0\0\0\0\0\0\0\x01\0\0\0\x02");
        let status = block_status(cookie, &[(4096, true), (512, false)]);
        assert_eq!(status[4..8], [0, 1, 0, 5]);
        assert_eq!(status[16..], *b"\0\0\0\x14\0\0\0\x01\0\0\x10\0\0\0\0\x03\0\0\x02\0\0\0\0\0");
        let error = error(cookie, ErrorCode::Invalid, "no");
        assert_eq!(error[4..8], [0, 1, 0x80, 1]);
        assert_eq!(error[16..], *b"\0\0\0\x08\0\0\0\x16\0\x02no");
    }
}
