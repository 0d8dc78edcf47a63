//! Where the blocks of a file are: by extents, or by blocks that name blocks.

use super::checksums::crc32c;
use super::inodes::{Inode, N_DIRECT};
use super::superblock::FileSystem;
use super::{NotMounted, damaged, u16_of, u32_of};

/// Inodes lead to their blocks over as many steps at most (`EXT4_MAX_EXTENT_DEPTH`).
const DEPTH_MAX: u16 = 5;
/// Longer extents are unwritten, and as much shorter (`EXT_INIT_MAX_LEN`).
const WRITTEN_MAX: u16 = 0x8000;

/// Blocks of a file that lie side by side.
pub(super) struct Run {
    /// Of the file.
    pub(super) logical: u64,
    /// Of the file system.
    pub(super) first: u64,
    pub(super) n: u64,
    pub(super) is_written: bool,
}

/// What a node of extents has.
pub(super) enum Node {
    Leaf(Vec<Run>),
    /// First block of the file, and the node that has it.
    Index(Vec<(u32, u64)>),
}

/// Takes runs, in the order of the file.
type Each<'a> = &'a mut dyn FnMut(Run) -> Result<(), NotMounted>;

impl FileSystem<'_> {
    /// Gives `each` all blocks of a file, of its first `n_blocks`.
    ///
    /// It ends, whatever the bytes: runs come in order, and each node has at least one.
    pub(super) fn runs(
        &self,
        inode: &Inode,
        n_blocks: u64,
        each: Each<'_>,
    ) -> Result<(), NotMounted> {
        if inode.is_by_extents() {
            let depth = u16_of(inode.map(), 6);
            let root = self.check_extents(inode, inode.map(), depth, None)?;
            let mut walk = Walk { next: 0, end: n_blocks, each };
            return self.walk_extents(inode, root, depth, &mut walk);
        }
        let mut walk = Walk { next: 0, end: n_blocks, each };
        for n in 0..N_DIRECT {
            walk.name(u32_of(inode.map(), n * 4), self, inode)?;
        }
        (1..=3).try_for_each(|depth: u32| {
            let named = u32_of(inode.map(), (N_DIRECT - 1 + depth as usize) * 4);
            self.walk_names(inode, named, depth, &mut walk)
        })
    }

    fn walk_extents(
        &self,
        inode: &Inode,
        node: Node,
        depth: u16,
        walk: &mut Walk<'_>,
    ) -> Result<(), NotMounted> {
        match node {
            Node::Leaf(runs) => runs.into_iter().try_for_each(|run| walk.run(run, inode)),
            Node::Index(below) => below.into_iter().try_for_each(|(first, block)| {
                if u64::from(first) >= walk.end {
                    return Ok(());
                }
                let node = self.block(block)?;
                let node = self.check_extents(inode, &node, depth - 1, Some(first))?;
                self.walk_extents(inode, node, depth - 1, walk)
            }),
        }
    }

    /// The blocks that a block names, over `depth` steps; 0 is a hole.
    fn walk_names(
        &self,
        inode: &Inode,
        block: u32,
        depth: u32,
        walk: &mut Walk<'_>,
    ) -> Result<(), NotMounted> {
        if depth == 0 || walk.next >= walk.end {
            return walk.name(block, self, inode);
        }
        if block == 0 {
            walk.next = walk.next.saturating_add((self.block_bytes / 4).pow(depth));
            return Ok(());
        }
        if !self.has_blocks(block.into(), 1) {
            return damaged(format!("a block of {} lies outside", inode.what));
        }
        let names = self.block(block.into())?;
        names.chunks(4).try_for_each(|name| {
            if walk.next >= walk.end {
                return Ok(());
            }
            self.walk_names(inode, u32_of(name, 0), depth - 1, walk)
        })
    }

    /// Reads a node of extents (`__ext4_ext_check`); `first` is the block of the file with which it begins, if
    /// another node says so.
    pub(super) fn check_extents(
        &self,
        inode: &Inode,
        node: &[u8],
        depth: u16,
        first: Option<u32>,
    ) -> Result<Node, NotMounted> {
        let what = inode.what;
        let no_map = |why: &str| damaged(format!("where {what} is can't be told: {why}"));
        let (n, n_max) = (usize::from(u16_of(node, 2)), usize::from(u16_of(node, 4)));
        if u16_of(node, 0) != 0xf30a || u16_of(node, 6) != depth || depth > DEPTH_MAX {
            return no_map("its map does not begin as one");
        }
        if n_max == 0 || n_max > (node.len() - 12) / 12 || n > n_max || (n == 0 && depth > 0) {
            return no_map("its map has an impossible length");
        }
        if first.is_some()
            && let Some(seed) = inode.seed
        {
            let tail = 12 + n_max * 12;
            let stored = node.get(tail..tail + 4).map(|stored| u32_of(stored, 0));
            if stored != Some(crc32c(seed, &node[..tail])) {
                return no_map("the checksum of its map is wrong");
            }
        }
        if first.is_some_and(|first| n == 0 || u32_of(node, 12) != first) {
            return no_map("its map contradicts itself");
        }
        let entries = node[12..].chunks_exact(12).take(n);
        let mut next = 0;
        let mut is_next = |logical: u32, n: u16| {
            let end = u64::from(logical) + u64::from(n);
            let is_next = u64::from(logical) >= next && n > 0 && end <= u64::from(u32::MAX);
            next = end;
            is_next
        };
        if depth > 0 {
            let below = entries.map(|entry| {
                let high = u64::from(u16_of(entry, 8));
                let block = high << 32 | u64::from(u32_of(entry, 4));
                let logical = u32_of(entry, 0);
                (is_next(logical, 1) && self.has_blocks(block, 1)).then_some((logical, block))
            });
            return match below.collect() {
                Some(below) => Ok(Node::Index(below)),
                None => no_map("its map leads outside, or in circles"),
            };
        }
        let runs = entries.map(|entry| {
            let (logical, length) = (u32_of(entry, 0), u16_of(entry, 4));
            let is_written = length <= WRITTEN_MAX;
            let length = if is_written { length } else { length - WRITTEN_MAX };
            let first = u64::from(u16_of(entry, 6)) << 32 | u64::from(u32_of(entry, 8));
            let run = Run { logical: logical.into(), first, n: length.into(), is_written };
            (is_next(logical, length) && self.has_blocks(first, run.n)).then_some(run)
        });
        match runs.collect() {
            Some(runs) => Ok(Node::Leaf(runs)),
            None => no_map("its map leads outside, or in circles"),
        }
    }
}

/// How far a walk has come, in blocks of the file.
struct Walk<'a> {
    next: u64,
    end: u64,
    each: Each<'a>,
}

impl Walk<'_> {
    fn run(&mut self, mut run: Run, inode: &Inode) -> Result<(), NotMounted> {
        if run.logical >= self.end {
            return Ok(());
        }
        if run.logical < self.next {
            return damaged(format!("{} has two blocks in one place", inode.what));
        }
        run.n = run.n.min(self.end - run.logical);
        self.next = run.logical + run.n;
        (self.each)(run)
    }

    fn name(
        &mut self,
        block: u32,
        file_system: &FileSystem<'_>,
        inode: &Inode,
    ) -> Result<(), NotMounted> {
        let logical = self.next;
        self.next += 1;
        if block == 0 || logical >= self.end {
            return Ok(());
        }
        if !file_system.has_blocks(block.into(), 1) {
            return damaged(format!("a block of {} lies outside", inode.what));
        }
        (self.each)(Run { logical, first: block.into(), n: 1, is_written: true })
    }
}
