//! A new root file system (ext4), filled with files that come one after the other, as from a tar archive.
//!
//! Nothing is unpacked on this server and nothing is mounted: names, owners and modes go straight into the image, so that
//! this needs no rights, and a hostile archive has nowhere to reach. `mke2fs` makes the file system empty; data is written
//! as it comes, folders and inodes at the end. Layout: Linux, `Documentation/filesystems/ext4`.

mod allocate;
mod extents;
mod folders;
mod inode;
mod layout;
#[cfg(test)]
mod tests;
mod tree;
mod xattrs;

use crate::ext4::crc32c;
use allocate::{Allocated, Allocator};
use extents::Extents;
use inode::Inode;
use layout::{BLOCK_BYTES, Layout};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use tree::Tree;

pub(crate) use layout::make;
pub(crate) use tree::Misplaced;
pub(crate) use xattrs::Xattr;

/// Data is written in pieces of this size; one that is all zero becomes a hole.
const PIECE_BYTES: usize = 1 << 20;

/// A link's target that is shorter stands in its inode.
const FAST_LINK_BYTES: usize = 60;

/// A file could not be put into the file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// What was to be put there can't be read.
    #[error("can't read it")]
    Read(#[source] io::Error),
    /// The image can't be written.
    #[error("can't write the image")]
    Write(#[source] io::Error),
    /// All blocks are taken.
    #[error("the file system is full")]
    Full,
    /// All inodes are taken.
    #[error("the file system has no room for more files")]
    TooManyFiles,
    /// Its path can't be.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
}

/// What a file is beside its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    /// Permissions with set-user-id, set-group-id and sticky: 0 to 0o7777.
    pub(crate) permissions: u16,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    /// Seconds since 1970; what ext4 can't keep is bounded.
    pub(crate) modified_unix: i64,
    pub(crate) xattrs: Vec<Xattr>,
}

/// What is no file with content, no folder and no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Pipe,
    CharacterDevice { major: u32, minor: u32 },
}

/// A file system that is being filled. What was put there is complete only after [`finish`](Self::finish).
pub(crate) struct NewRoot<'a> {
    file: &'a File,
    layout: Layout,
    allocator: Allocator,
    tree: Tree,
    piece: Vec<u8>,
}

impl<'a> NewRoot<'a> {
    /// Opens what [`make`] has made in this file.
    ///
    /// # Errors
    /// The file can't be read, or holds something else.
    pub(crate) fn open(file: &'a File) -> io::Result<Self> {
        let layout = Layout::read(file)?;
        let allocator = Allocator::new(&layout);
        let tree = Tree::new(layout.root_inode());
        Ok(Self { file, layout, allocator, tree, piece: vec![0; PIECE_BYTES] })
    }

    /// A folder; one that is there already only gets another description.
    pub(crate) fn folder(&mut self, path: &[u8], meta: &Meta) -> Result<(), PutError> {
        let inode = self.described(inode::FOLDER, meta)?;
        let places = inode.places();
        let put = self.tree.put_folder(path, inode, self.layout.n_inodes);
        self.free_after(put, &places)
    }

    /// A file with what `content` gives until its end. Returns how many bytes those were.
    pub(crate) fn file(
        &mut self,
        path: &[u8],
        meta: &Meta,
        content: &mut dyn Read,
    ) -> Result<u64, PutError> {
        let mut inode = self.described(inode::FILE, meta)?;
        let mut extents = Extents::default();
        let mut piece = std::mem::take(&mut self.piece);
        let written = self.write_content(content, &mut piece, &mut extents);
        self.piece = piece;
        let size_bytes = written?;
        inode.size_bytes = size_bytes;
        self.settle(&mut inode, &extents)?;
        self.put(path, inode, None)?;
        Ok(size_bytes)
    }

    /// A symbolic link.
    pub(crate) fn symlink(
        &mut self,
        path: &[u8],
        meta: &Meta,
        target: &[u8],
    ) -> Result<(), PutError> {
        let mut inode = self.described(inode::SYMLINK, meta)?;
        inode.permissions = 0o777;
        inode.size_bytes = target.len() as u64;
        if target.len() < FAST_LINK_BYTES {
            inode.block[..target.len()].copy_from_slice(target);
        } else {
            let mut block = vec![0; BLOCK_BYTES];
            // It ends with a zero in its block.
            let length = target.len().min(BLOCK_BYTES - 1);
            block[..length].copy_from_slice(&target[..length]);
            inode.size_bytes = length as u64;
            let mut extents = Extents::default();
            let place = self.block()?;
            self.write(&block, place)?;
            extents.push(0, place, 1);
            self.settle(&mut inode, &extents)?;
        }
        self.put(path, inode, Some(target))
    }

    /// A pipe or a device.
    pub(crate) fn special(
        &mut self,
        path: &[u8],
        meta: &Meta,
        special: Special,
    ) -> Result<(), PutError> {
        let (kind, numbers) = match special {
            Special::Pipe => (inode::PIPE, None),
            Special::CharacterDevice { major, minor } => {
                (inode::CHARACTER_DEVICE, Some((major, minor)))
            }
        };
        let mut inode = self.described(kind, meta)?;
        if let Some((major, minor)) = numbers {
            inode.set_device(major, minor);
        }
        self.put(path, inode, None)
    }

    /// Another name for a file that is there.
    pub(crate) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), PutError> {
        let put = self.tree.put_link(path, target, self.layout.n_inodes);
        self.free_after(put, &[])
    }

    /// Writes folders, inodes, bitmaps and sums. The file system is clean then.
    pub(crate) fn finish(mut self) -> Result<(), PutError> {
        self.write_folders()?;
        self.write_inodes()?;
        self.allocator.write(self.file, &mut self.layout).map_err(PutError::Write)?;
        self.layout.write(self.file).map_err(PutError::Write)
    }

    fn put(&mut self, path: &[u8], inode: Inode, symlink: Option<&[u8]>) -> Result<(), PutError> {
        let places = inode.places();
        let put = self.tree.put(path, inode, symlink, self.layout.n_inodes);
        self.free_after(put, &places)
    }

    fn described(&mut self, kind: u16, meta: &Meta) -> Result<Inode, PutError> {
        let mut inode = Inode::new(kind, meta);
        if let Some(block) = inode.set_xattrs(&meta.xattrs) {
            let place = self.block()?;
            self.write(&xattrs::with_sum(block, self.layout.seed, place), place)?;
            inode.xattr_block = place;
            inode.n_blocks += 1;
        }
        Ok(inode)
    }

    fn write_content(
        &mut self,
        content: &mut dyn Read,
        piece: &mut [u8],
        extents: &mut Extents,
    ) -> Result<u64, PutError> {
        let mut size_bytes = 0;
        loop {
            let n = fill(content, piece).map_err(PutError::Read)?;
            let n_blocks = n.div_ceil(BLOCK_BYTES);
            piece[n..n_blocks * BLOCK_BYTES].fill(0);
            let blocks = &piece[..n_blocks * BLOCK_BYTES];
            // A hole is cheaper than zeroes in a file that is all holes, and dearer in a small one.
            let is_hole = n == piece.len() && is_zero(blocks);
            let mut done = if is_hole { n_blocks } else { 0 };
            while done < n_blocks {
                let run = self.run((n_blocks - done) as u32)?;
                let bytes = &blocks[done * BLOCK_BYTES..][..run.n as usize * BLOCK_BYTES];
                self.write_sparse(bytes, run.first)?;
                let logical = size_bytes / BLOCK_BYTES as u64 + done as u64;
                extents.push(logical as u32, run.first, run.n);
                done += run.n as usize;
            }
            size_bytes += n as u64;
            if n < piece.len() {
                return Ok(size_bytes);
            }
        }
    }

    /// Puts the places of its data into an inode.
    fn settle(&mut self, inode: &mut Inode, extents: &Extents) -> Result<(), PutError> {
        let (tree, n_blocks) = extents.tree(&mut || self.block())?;
        inode.n_blocks += n_blocks;
        inode.block = tree.root;
        inode.flags |= inode::HAS_EXTENTS;
        // Their sums depend on the number of the inode, which is known only when it has its place.
        inode.extent_blocks = tree.blocks;
        Ok(())
    }

    fn block(&mut self) -> Result<u64, PutError> {
        Ok(self.run(1)?.first)
    }

    fn run(&mut self, n_max: u32) -> Result<Allocated, PutError> {
        self.allocator.take(&self.layout, n_max).ok_or(PutError::Full)
    }

    /// Gives the blocks back of what was replaced, or of what was not put there.
    fn free_after(
        &mut self,
        put: Result<Option<Inode>, PutError>,
        places: &[(u64, u32)],
    ) -> Result<(), PutError> {
        let (free, put) = match put {
            Ok(replaced) => (replaced.map(|inode| inode.places()).unwrap_or_default(), Ok(())),
            Err(error) => (places.to_vec(), Err(error)),
        };
        for (first, n) in free {
            self.allocator.free(&self.layout, first, n);
        }
        put
    }

    fn write(&self, bytes: &[u8], block: u64) -> Result<(), PutError> {
        self.file.write_all_at(bytes, block * BLOCK_BYTES as u64).map_err(PutError::Write)
    }

    /// Blocks that are zero are so in a new file.
    fn write_sparse(&self, bytes: &[u8], first: u64) -> Result<(), PutError> {
        let mut at = 0;
        while at < bytes.len() {
            let zero = |at: usize| is_zero(&bytes[at..at + BLOCK_BYTES]);
            let (start, is_hole) = (at, zero(at));
            while at < bytes.len() && zero(at) == is_hole {
                at += BLOCK_BYTES;
            }
            if !is_hole {
                self.write(&bytes[start..at], first + (start / BLOCK_BYTES) as u64)?;
            }
        }
        Ok(())
    }

    fn write_folders(&mut self) -> Result<(), PutError> {
        for number in self.tree.folders() {
            let seed = self.seed_of(number);
            let mut blocks = self.tree.folder_blocks(number);
            let mut extents = Extents::default();
            for (index, block) in blocks.iter_mut().enumerate() {
                folders::seal(block, seed);
                // The root has one already.
                let place = match index {
                    0 if number == layout::ROOT => self.layout.root_block,
                    _ => self.block()?,
                };
                self.write(block, place)?;
                extents.push(index as u32, place, 1);
            }
            let (tree, n_blocks) = extents.tree(&mut || self.block())?;
            let inode = self.tree.inode_mut(number);
            inode.size_bytes = (blocks.len() * BLOCK_BYTES) as u64;
            inode.n_blocks += n_blocks;
            inode.block = tree.root;
            inode.flags |= inode::HAS_EXTENTS;
            inode.extent_blocks = tree.blocks;
        }
        Ok(())
    }

    fn write_inodes(&mut self) -> Result<(), PutError> {
        let per_group = self.layout.inodes_per_group;
        for group in 0..self.tree.last_number().div_ceil(per_group) {
            let first = group * per_group + 1;
            let mut table = self.layout.inode_table(self.file, group).map_err(PutError::Write)?;
            // Those that mke2fs has made: the journal, and lost+found.
            let mut used: Vec<u32> = (0..(table.len() / layout::INODE_BYTES) as u32).collect();
            let mut n_folders = u32::from(group == 0);
            for number in first..first + per_group {
                let Some(inode) = self.tree.inode(number) else { continue };
                let seed = self.seed_of(number);
                for (place, block) in &inode.extent_blocks {
                    self.write(&extents::with_sum(block.clone(), seed), *place)?;
                }
                let at = (number - first) as usize * layout::INODE_BYTES;
                table.resize(table.len().max(at + layout::INODE_BYTES), 0);
                table[at..at + layout::INODE_BYTES].copy_from_slice(&inode.bytes(seed));
                n_folders += u32::from(inode.is_folder());
                if number > layout::LOST_AND_FOUND {
                    used.push(number - first);
                }
            }
            self.layout
                .write_inode_table(self.file, group, &table, &used, n_folders)
                .map_err(PutError::Write)?;
        }
        Ok(())
    }

    /// What all sums of an inode begin with; its generation is 0.
    fn seed_of(&self, number: u32) -> u32 {
        crc32c(crc32c(self.layout.seed, &number.to_le_bytes()), &[0; 4])
    }
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
