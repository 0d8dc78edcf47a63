//! What is known of a file but its name.

use super::xattrs::{self, Xattr};
use super::{Meta, layout::INODE_BYTES};
use crate::ext4::crc32c;

/// Kinds, as in `st_mode`.
pub(super) const PIPE: u16 = 0x1000;
pub(super) const CHARACTER_DEVICE: u16 = 0x2000;
pub(super) const FOLDER: u16 = 0x4000;
pub(super) const FILE: u16 = 0x8000;
pub(super) const SYMLINK: u16 = 0xa000;

pub(super) const HAS_EXTENTS: u32 = 0x8_0000;

/// What is behind the first 128 bytes and belongs to the inode; attributes follow.
const EXTRA_BYTES: u16 = 32;
const INLINE_AT: usize = 128 + EXTRA_BYTES as usize;
/// Times have 34 bits, and begin with those of 32 bits with a sign.
const TIME_MIN: i64 = i32::MIN as i64;
const TIME_MAX: i64 = TIME_MIN + (1 << 34) - 1;

#[derive(Clone, Debug)]
pub(super) struct Inode {
    kind: u16,
    pub(super) permissions: u16,
    owner: u32,
    group: u32,
    modified_unix: i64,
    pub(super) n_links: u32,
    pub(super) size_bytes: u64,
    /// Blocks of its content, its tree of extents, and its attributes.
    pub(super) n_blocks: u64,
    pub(super) flags: u32,
    /// `i_block`: the root of its tree of extents, a short link's target, or a device's numbers.
    pub(super) block: [u8; 60],
    pub(super) extent_blocks: Vec<(u64, Vec<u8>)>,
    inline_xattrs: Vec<u8>,
    /// 0: there is none.
    pub(super) xattr_block: u64,
}

impl Inode {
    pub(super) fn new(kind: u16, meta: &Meta) -> Self {
        Self {
            kind,
            permissions: meta.permissions & 0o7777,
            owner: meta.owner,
            group: meta.group,
            modified_unix: meta.modified_unix.clamp(TIME_MIN, TIME_MAX),
            n_links: 1,
            size_bytes: 0,
            n_blocks: 0,
            flags: 0,
            block: [0; 60],
            extent_blocks: Vec::new(),
            inline_xattrs: Vec::new(),
            xattr_block: 0,
        }
    }

    pub(super) fn is_folder(&self) -> bool {
        self.kind == FOLDER
    }

    /// As folders have it.
    pub(super) fn folder_kind(&self) -> u8 {
        match self.kind {
            FILE => 1,
            FOLDER => 2,
            CHARACTER_DEVICE => 3,
            PIPE => 5,
            _ => 7,
        }
    }

    pub(super) fn set_device(&mut self, major: u32, minor: u32) {
        // Small numbers as ever, others as since Linux 2.6 (`old_encode_dev`, `new_encode_dev`).
        let (at, value) = match (major, minor) {
            (0..=0xff, 0..=0xff) => (0, major << 8 | minor),
            _ => (4, (minor & 0xff) | major << 8 | (minor & !0xff) << 12),
        };
        self.block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Gives it attributes; `Some`: the block for them, which has no place yet.
    pub(super) fn set_xattrs(&mut self, xattrs: &[Xattr]) -> Option<Vec<u8>> {
        if xattrs.is_empty() {
            return None;
        }
        match xattrs::inline(xattrs, INODE_BYTES - INLINE_AT) {
            Some(bytes) => {
                self.inline_xattrs = bytes;
                None
            }
            None => xattrs::block(xattrs),
        }
    }

    /// Blocks that are its own: first, and how many.
    pub(super) fn places(&self) -> Vec<(u64, u32)> {
        let mut places: Vec<(u64, u32)> =
            self.extent_blocks.iter().map(|(place, _)| (*place, 1)).collect();
        if self.xattr_block != 0 {
            places.push((self.xattr_block, 1));
        }
        if self.flags & HAS_EXTENTS != 0 {
            let leaves = self.extent_blocks.iter().map(|(_, block)| &block[..]);
            places.extend(leaves.chain([&self.block[..]]).flat_map(runs_in));
        }
        places
    }

    pub(super) fn bytes(&self, seed: u32) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        let seconds = self.modified_unix;
        let epoch = ((seconds - i64::from(seconds as i32)) >> 32) as u32 & 3;
        let n_sectors = self.n_blocks * 8;
        // A folder with more has 1: nobody counts then.
        let n_links = if self.n_links > super::tree::LINKS_MAX { 1 } else { self.n_links };
        let mut put16 = |at: usize, value: u32| {
            bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        };
        put16(0, u32::from(self.kind | self.permissions));
        put16(0x2, self.owner);
        put16(0x78, self.owner >> 16);
        put16(0x18, self.group);
        put16(0x7a, self.group >> 16);
        put16(0x1a, n_links);
        put16(0x74, (n_sectors >> 32) as u32);
        put16(0x76, (self.xattr_block >> 32) as u32);
        put16(0x80, u32::from(EXTRA_BYTES));
        let mut put32 = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put32(0x4, self.size_bytes as u32);
        put32(0x6c, (self.size_bytes >> 32) as u32);
        put32(0x1c, n_sectors as u32);
        put32(0x20, self.flags);
        put32(0x68, self.xattr_block as u32);
        for (at, extra_at) in [(0x8, 0x8c), (0xc, 0x84), (0x10, 0x88), (0x90, 0x94)] {
            put32(at, seconds as u32);
            put32(extra_at, epoch);
        }
        bytes[0x28..0x28 + 60].copy_from_slice(&self.block);
        bytes[INLINE_AT..INLINE_AT + self.inline_xattrs.len()].copy_from_slice(&self.inline_xattrs);
        let sum = crc32c(seed, &bytes);
        bytes[0x7c..0x7e].copy_from_slice(&(sum as u16).to_le_bytes());
        bytes[0x82..0x84].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
        bytes
    }
}

/// The runs in a node of a tree of extents, if it is one that has runs.
fn runs_in(node: &[u8]) -> Vec<(u64, u32)> {
    let u16_at = |at: usize| u16::from_le_bytes([node[at], node[at + 1]]);
    if u16_at(6) != 0 {
        return Vec::new();
    }
    let run = |entry: usize| {
        let at = 12 * (entry + 1);
        let low = u32::from_le_bytes([node[at + 8], node[at + 9], node[at + 10], node[at + 11]]);
        (u64::from(u16_at(at + 6)) << 32 | u64::from(low), u32::from(u16_at(at + 4)))
    };
    (0..usize::from(u16_at(2))).map(run).collect()
}
