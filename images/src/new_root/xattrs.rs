//! Extended attributes, as they stand in inodes and in blocks of their own.

use super::layout::BLOCK_BYTES;
use crate::ext4::crc32c;

const MAGIC: u32 = 0xea02_0000;
const ENTRY_BYTES: usize = 16;
/// What is before the entries in a block.
const HEADER_BYTES: usize = 32;

/// The names that begin so are kept without that, and with a number (`ext4_xattr_handler_map`).
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", ACCESS),
    (b"system.posix_acl_default", DEFAULT),
    (b"trusted.", 4),
    (b"security.", 6),
];
const ACCESS: u8 = 2;
const DEFAULT: u8 = 3;

/// One attribute of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Xattr {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Xattr {
    /// An attribute as getxattr(2) gives it; `None`: ext4 does not keep it.
    pub(crate) fn new(name: &[u8], value: &[u8]) -> Option<Self> {
        let (prefix, index) = PREFIXES.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let rest = &name[prefix.len()..];
        let is_list = matches!(index, ACCESS | DEFAULT);
        if is_list != rest.is_empty() || rest.len() > 255 {
            return None;
        }
        let value = if is_list { stored_list(value)? } else { value.to_vec() };
        Some(Self { index, name: rest.to_vec(), value })
    }

    pub(crate) fn is_same_name(&self, other: &Self) -> bool {
        (self.index, &self.name) == (other.index, &other.name)
    }

    /// Whether a file can have all of these.
    pub(crate) fn fit(xattrs: &[Self]) -> bool {
        needed(xattrs) + HEADER_BYTES <= BLOCK_BYTES
    }

    fn entry_bytes(&self) -> usize {
        ENTRY_BYTES + self.name.len().next_multiple_of(4)
    }

    /// `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        // The kernel has taken the bytes with a sign on some machines: names are ASCII nearly always.
        let name =
            self.name.iter().fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.padded_value().chunks(4).fold(name, |hash, word| {
            let word = word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            hash.rotate_left(16) ^ word
        })
    }

    fn padded_value(&self) -> Vec<u8> {
        let mut value = self.value.clone();
        value.resize(value.len().next_multiple_of(4), 0);
        value
    }
}

/// Access control lists are kept shorter than they are told (`ext4_acl_to_disk`).
fn stored_list(told: &[u8]) -> Option<Vec<u8>> {
    const NAMED: [u16; 2] = [0x02, 0x08];
    let (version, entries) = told.split_at_checked(4)?;
    if version != [2, 0, 0, 0] || entries.len() % 8 != 0 {
        return None;
    }
    let mut stored = vec![1, 0, 0, 0];
    for entry in entries.chunks(8) {
        stored.extend(&entry[..4]);
        if NAMED.contains(&u16::from_le_bytes([entry[0], entry[1]])) {
            stored.extend(&entry[4..]);
        }
    }
    Some(stored)
}

/// Bytes of entries, values, and the end of the entries.
fn needed(xattrs: &[Xattr]) -> usize {
    let of_one = |it: &Xattr| it.entry_bytes() + it.value.len().next_multiple_of(4);
    xattrs.iter().map(of_one).sum::<usize>() + 4
}

/// Attributes as they stand behind an inode, if they have room there.
pub(super) fn inline(xattrs: &[Xattr], room: usize) -> Option<Vec<u8>> {
    if needed(xattrs) + 4 > room {
        return None;
    }
    let mut bytes = vec![0; room];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    // Places of values count from the first entry, and values there have no hash.
    write(&mut bytes[4..], 0, xattrs, &|_| 0);
    Some(bytes)
}

/// Attributes as they stand in a block; `None`: they have no room there.
pub(super) fn block(xattrs: &[Xattr]) -> Option<Vec<u8>> {
    if !Xattr::fit(xattrs) {
        return None;
    }
    let mut block = vec![0; BLOCK_BYTES];
    let mut sorted = xattrs.to_vec();
    sorted.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
    write(&mut block, HEADER_BYTES, &sorted, &Xattr::hash);
    // `ext4_xattr_rehash`: none, if one entry has none.
    let hashes = || sorted.iter().map(Xattr::hash);
    let hash = match hashes().any(|hash| hash == 0) {
        true => 0,
        false => hashes().fold(0_u32, |all, hash| all.rotate_left(16) ^ hash),
    };
    for (at, value) in [(0, MAGIC), (4, 1), (8, 1), (12, hash)] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Some(block)
}

fn write(bytes: &mut [u8], begin: usize, xattrs: &[Xattr], hash: &dyn Fn(&Xattr) -> u32) {
    let (mut at, mut end) = (begin, bytes.len());
    for xattr in xattrs {
        let value = xattr.padded_value();
        end -= value.len();
        bytes[end..end + value.len()].copy_from_slice(&value);
        bytes[at] = xattr.name.len() as u8;
        bytes[at + 1] = xattr.index;
        bytes[at + 2..at + 4].copy_from_slice(&(end as u16).to_le_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&(xattr.value.len() as u32).to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&hash(xattr).to_le_bytes());
        bytes[at + ENTRY_BYTES..][..xattr.name.len()].copy_from_slice(&xattr.name);
        at += xattr.entry_bytes();
    }
}

/// A block of attributes at its place, with its sum (`ext4_xattr_block_csum`).
pub(super) fn with_sum(mut block: Vec<u8>, seed: u32, place: u64) -> Vec<u8> {
    let sum = crc32c(crc32c(seed, &place.to_le_bytes()), &block);
    block[16..20].copy_from_slice(&sum.to_le_bytes());
    block
}
