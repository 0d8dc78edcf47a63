//! Blocks of folders: entries one after the other, and a sum at the end.

use super::layout::BLOCK_BYTES;
use crate::ext4::crc32c;

/// The sum is in an entry of its own, that says it is unused (`ext4_dir_entry_tail`).
const TAIL_BYTES: usize = 12;
const ENTRIES_END: usize = BLOCK_BYTES - TAIL_BYTES;
/// What is before a name.
const HEADER_BYTES: usize = 8;

/// Writes entries into blocks.
pub(super) struct Blocks {
    blocks: Vec<Vec<u8>>,
    /// Where the last entry begins in the last block, and where it ends.
    last: usize,
    end: usize,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { blocks: vec![vec![0; BLOCK_BYTES]], last: 0, end: 0 }
    }

    pub(super) fn push(&mut self, name: &[u8], number: u32, kind: u8) {
        let length = (HEADER_BYTES + name.len()).next_multiple_of(4);
        if self.end + length > ENTRIES_END {
            self.end_block();
            self.blocks.push(vec![0; BLOCK_BYTES]);
            (self.last, self.end) = (0, 0);
        }
        let Some(block) = self.blocks.last_mut() else { return };
        let entry = &mut block[self.end..self.end + length];
        entry[..4].copy_from_slice(&number.to_le_bytes());
        entry[4..6].copy_from_slice(&(length as u16).to_le_bytes());
        entry[6] = name.len() as u8;
        entry[7] = kind;
        entry[HEADER_BYTES..HEADER_BYTES + name.len()].copy_from_slice(name);
        (self.last, self.end) = (self.end, self.end + length);
    }

    /// All blocks; their sums are written by [`seal`].
    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.end_block();
        self.blocks
    }

    /// The last entry of a block goes to its end.
    fn end_block(&mut self) {
        let length = (ENTRIES_END - self.last) as u16;
        if let Some(block) = self.blocks.last_mut() {
            block[self.last + 4..self.last + 6].copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Writes the sum of a block, by the seed of the folder's inode.
pub(super) fn seal(block: &mut [u8], seed: u32) {
    let sum = crc32c(seed, &block[..ENTRIES_END]);
    let tail = &mut block[ENTRIES_END..];
    tail[4] = TAIL_BYTES as u8;
    tail[7] = 0xde;
    tail[8..].copy_from_slice(&sum.to_le_bytes());
}
