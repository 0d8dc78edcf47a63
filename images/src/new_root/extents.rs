//! Where a file's blocks are: runs of them, in a tree whose root is in the inode.

use super::PutError;
use super::layout::{BLOCK_BYTES, BLOCKS_PER_GROUP};
use crate::ext4::crc32c;

const MAGIC: u16 = 0xf30a;
const ENTRY_BYTES: usize = 12;
/// Entries in the inode, and in a block of the tree.
const IN_INODE: usize = 4;
const IN_BLOCK: usize = (BLOCK_BYTES - ENTRY_BYTES) / ENTRY_BYTES;
/// The sum behind the entries of a block.
const SUM_AT: usize = ENTRY_BYTES * (IN_BLOCK + 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    logical: u32,
    first: u64,
    n: u32,
}

/// The runs of blocks of one file, in their order.
#[derive(Debug, Default)]
pub(super) struct Extents(Vec<Extent>);

/// What becomes of them: what is in the inode, and blocks with their places.
pub(super) struct Tree {
    pub(super) root: [u8; 60],
    pub(super) blocks: Vec<(u64, Vec<u8>)>,
}

impl Extents {
    /// `n` blocks from `first` on hold what is at `logical`, in blocks from the file's beginning.
    pub(super) fn push(&mut self, logical: u32, first: u64, n: u32) {
        let per_group = u64::from(BLOCKS_PER_GROUP);
        if let Some(last) = self.0.last_mut()
            && last.logical + last.n == logical
            && last.first + u64::from(last.n) == first
            // So that none crosses from one group to the next, nor becomes longer than one may.
            && last.first / per_group == first / per_group
        {
            last.n += n;
        } else {
            self.0.push(Extent { logical, first, n });
        }
    }

    /// Makes the tree, of blocks that `take` gives. Also returns how many blocks all of it takes.
    pub(super) fn tree(
        &self,
        take: &mut dyn FnMut() -> Result<u64, PutError>,
    ) -> Result<(Tree, u64), PutError> {
        let mut n_blocks: u64 = self.0.iter().map(|extent| u64::from(extent.n)).sum();
        let mut entries: Vec<(u32, [u8; ENTRY_BYTES])> = self.0.iter().map(leaf).collect();
        let (mut blocks, mut depth) = (Vec::new(), 0);
        while entries.len() > IN_INODE {
            let mut above = Vec::new();
            for chunk in entries.chunks(IN_BLOCK) {
                let mut block = vec![0; BLOCK_BYTES];
                write_node(&mut block, chunk, IN_BLOCK, depth);
                let place = take()?;
                above.push((chunk[0].0, index(chunk[0].0, place)));
                blocks.push((place, block));
                n_blocks += 1;
            }
            (entries, depth) = (above, depth + 1);
        }
        let mut root = [0; 60];
        write_node(&mut root, &entries, IN_INODE, depth);
        Ok((Tree { root, blocks }, n_blocks))
    }
}

fn leaf(extent: &Extent) -> (u32, [u8; ENTRY_BYTES]) {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&extent.logical.to_le_bytes());
    entry[4..6].copy_from_slice(&(extent.n as u16).to_le_bytes());
    entry[6..8].copy_from_slice(&((extent.first >> 32) as u16).to_le_bytes());
    entry[8..].copy_from_slice(&(extent.first as u32).to_le_bytes());
    (extent.logical, entry)
}

fn index(logical: u32, place: u64) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..8].copy_from_slice(&(place as u32).to_le_bytes());
    entry[8..10].copy_from_slice(&((place >> 32) as u16).to_le_bytes());
    entry
}

fn write_node(node: &mut [u8], entries: &[(u32, [u8; ENTRY_BYTES])], n_max: usize, depth: u16) {
    for (at, value) in [(0, MAGIC), (2, entries.len() as u16), (4, n_max as u16), (6, depth)] {
        node[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (place, (_, entry)) in node[ENTRY_BYTES..].chunks_mut(ENTRY_BYTES).zip(entries) {
        place.copy_from_slice(entry);
    }
}

/// A block of the tree with its sum, by the seed of the inode.
pub(super) fn with_sum(mut block: Vec<u8>, seed: u32) -> Vec<u8> {
    let sum = crc32c(seed, &block[..SUM_AT]);
    block[SUM_AT..SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_lie_side_by_side_are_one_but_not_across_groups() {
        let mut extents = Extents::default();
        extents.push(0, 32000, 700);
        extents.push(700, 32700, 68);
        extents.push(768, 32768, 5);
        extents.push(1000, 32773, 1);
        let runs: Vec<_> = extents.0.iter().map(|it| (it.logical, it.first, it.n)).collect();
        assert_eq!(runs, [(0, 32000, 768), (768, 32768, 5), (1000, 32773, 1)]);
    }

    #[test]
    fn many_runs_make_a_tree() {
        let mut next = 1 << 20;
        let mut take = || {
            next += 1;
            Ok(next)
        };
        for (n, depth, n_blocks) in [(0, 0, 0), (4, 0, 0), (5, 1, 1), (1360, 1, 4), (1361, 2, 6)] {
            let mut extents = Extents::default();
            for run in 0..n {
                extents.push(2 * run, u64::from(100 * run), 1);
            }
            let (tree, all) = extents.tree(&mut take).unwrap();
            assert_eq!((tree.root[6], tree.blocks.len()), (depth, n_blocks), "{n}");
            assert_eq!(all, u64::from(n) + n_blocks as u64);
        }
    }
}
