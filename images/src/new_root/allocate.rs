//! Which blocks are free.

use super::layout::{BLOCKS_PER_GROUP, Layout};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// Blocks that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allocated {
    pub(super) first: u64,
    pub(super) n: u32,
}

/// Gives blocks from the first to the last, so that files lie one after the other as they came.
pub(super) struct Allocator {
    /// Of the groups that were looked at.
    bitmaps: BTreeMap<u32, Vec<u8>>,
    group: u32,
    /// Within the group.
    next: u32,
}

impl Allocator {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { bitmaps: BTreeMap::from([(0, layout.bitmap(0))]), group: 0, next: 0 }
    }

    /// Takes up to `n_max` blocks, all of one group; `None`: there are none.
    pub(super) fn take(&mut self, layout: &Layout, n_max: u32) -> Option<Allocated> {
        while self.group < layout.n_groups {
            let bitmap =
                self.bitmaps.entry(self.group).or_insert_with(|| layout.bitmap(self.group));
            let is_free = |bit: u32| bitmap[bit as usize / 8] & 1 << (bit % 8) == 0;
            while self.next < BLOCKS_PER_GROUP && !is_free(self.next) {
                self.next += 1;
            }
            let start = self.next;
            let end = BLOCKS_PER_GROUP.min(start.saturating_add(n_max));
            while self.next < end && is_free(self.next) {
                self.next += 1;
            }
            if self.next > start {
                for bit in start..self.next {
                    bitmap[bit as usize / 8] |= 1 << (bit % 8);
                }
                let first = u64::from(self.group) * u64::from(BLOCKS_PER_GROUP) + u64::from(start);
                return Some(Allocated { first, n: self.next - start });
            }
            (self.group, self.next) = (self.group + 1, 0);
        }
        None
    }

    /// Gives blocks back. They are not taken again: what is replaced is little.
    pub(super) fn free(&mut self, layout: &Layout, first: u64, n: u32) {
        for block in first..first + u64::from(n) {
            let (group, bit) = split(block);
            let bitmap = self.bitmaps.entry(group).or_insert_with(|| layout.bitmap(group));
            bitmap[bit as usize / 8] &= !(1 << (bit % 8));
        }
    }

    /// Writes the bitmaps of all groups that were looked at.
    pub(super) fn write(&self, file: &File, layout: &mut Layout) -> io::Result<()> {
        for (&group, bitmap) in &self.bitmaps {
            layout.write_block_bitmap(file, group, bitmap)?;
        }
        Ok(())
    }
}

fn split(block: u64) -> (u32, u32) {
    let per_group = u64::from(BLOCKS_PER_GROUP);
    ((block / per_group) as u32, (block % per_group) as u32)
}
