//! Files of SquashFS 4.0, by the layout that the kernel has in `fs/squashfs/squashfs_fs.h`; unpacked by lamfold's codecs,
//! which bound what comes out.

use super::readers::{READ_ERROR, Window, buffer, check_size, damaged, named, unsupported};
use super::tree::{Reader, Tree, Trouble};
use super::{Files, RootfsError};
use crate::entry::{Entry, EntryKind};
use lamfold::{Codec, FoldError, decode};
use model::FileSystem;
use std::collections::HashMap;
use std::rc::Rc;

/// Bytes of an unpacked block of metadata.
const METADATA_BYTES: usize = 8192;
/// Such blocks that are kept.
const KEPT_BLOCKS_MAX: usize = 2048;
/// Bytes of a block of files, as in the kernel.
const BLOCK_BYTES_MAX: u32 = 1 << 20;
/// In the header of a block of metadata, and in the size of one of files: it is not packed.
const METADATA_PLAIN: u16 = 0x8000;
const DATA_PLAIN: u32 = 1 << 24;
const NO_FRAGMENT: u32 = u32::MAX;
const FRAGMENTS_PER_BLOCK: u32 = 512;
/// Longest target of a link, as in the kernel.
const LINK_BYTES_MAX: usize = 4096;
/// A listing that says that it is longer is none.
const FOLDER_BYTES_MAX: u32 = 256 << 20;

pub(super) fn open(window: Window) -> Result<Box<dyn Files>, RootfsError> {
    let failed = |Trouble(why)| RootfsError::FileSystem(why);
    Ok(Box::new(Tree::new(Squash::open(window).map_err(failed)?)))
}

struct Squash {
    window: Window,
    codec: Codec,
    block_bytes: u32,
    root: u64,
    inodes: u64,
    folders: u64,
    fragments: u64,
    /// Unpacked metadata, by their place; with where the next begins.
    metadata: HashMap<u64, (Rc<Vec<u8>>, u64)>,
    /// The last block of files, by its place: small files share one.
    last: Option<(u64, Rc<Vec<u8>>)>,
}

enum Inode {
    Folder { block: u64, offset: usize, size: u32 },
    File { start: u64, size: u64, fragment: u32, offset: u32, blocks: Vec<u32> },
    Link(Vec<u8>),
    Special,
}

/// A place in metadata that moves on by reading.
struct Cursor {
    block: u64,
    offset: usize,
}

impl Squash {
    fn open(window: Window) -> Result<Self, Trouble> {
        let mut bytes = [0; 96];
        window.read(0, &mut bytes).map_err(|_| Trouble(READ_ERROR.to_owned()))?;
        let superblock = Bytes(&bytes);
        check_size(Some(superblock.u64(40)?), window.size_bytes()).map_err(
            |error| match error {
                RootfsError::FileSystem(why) => Trouble(why),
                other => Trouble(other.to_string()),
            },
        )?;
        let codec = match superblock.u16(20)? {
            1 => Codec::Zlib,
            3 => Codec::Lzo,
            4 => Codec::Xz,
            5 => Codec::Lz4,
            6 => Codec::Zstd,
            other => {
                return Err(Trouble(unsupported(FileSystem::Squashfs, &format!("packer {other}"))));
            }
        };
        let version = (superblock.u16(28)?, superblock.u16(30)?);
        if version != (4, 0) {
            let what = format!("version {}.{}", version.0, version.1);
            return Err(Trouble(unsupported(FileSystem::Squashfs, &what)));
        }
        let (block_bytes, log) = (superblock.u32(12)?, superblock.u16(22)?);
        let is_sound = (4096..=BLOCK_BYTES_MAX).contains(&block_bytes)
            && 1u32.checked_shl(u32::from(log)) == Some(block_bytes);
        if !is_sound {
            return Err(odd("the size of its blocks"));
        }
        // Linux mounts none whose tables are elsewhere.
        let (used, ids) = (superblock.u64(40)?, superblock.u64(48)?);
        let (inodes, folders) = (superblock.u64(64)?, superblock.u64(72)?);
        if inodes >= folders || folders >= ids || ids >= used {
            return Err(odd("the places of its tables"));
        }
        let mut opened = Self {
            codec,
            block_bytes,
            root: superblock.u64(32)?,
            inodes,
            folders,
            fragments: superblock.u64(80)?,
            metadata: HashMap::new(),
            last: None,
            window,
        };
        match opened.inode(opened.root)? {
            Inode::Folder { .. } => Ok(opened),
            _ => Err(odd("its root is no folder")),
        }
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Trouble> {
        let mut bytes = vec![0; length];
        self.window.read(at, &mut bytes).map_err(|_| Trouble(READ_ERROR.to_owned()))?;
        Ok(bytes)
    }

    /// An unpacked block of metadata, and where the next begins.
    fn metadata(&mut self, at: u64) -> Result<(Rc<Vec<u8>>, u64), Trouble> {
        if let Some(known) = self.metadata.get(&at) {
            return Ok(known.clone());
        }
        let header = Bytes(&self.read(at, 2)?).u16(0)?;
        let length = usize::from(header & !METADATA_PLAIN);
        if length == 0 || length > METADATA_BYTES {
            return Err(odd("the size of a block of metadata"));
        }
        let start = at.checked_add(2).ok_or_else(|| odd("a place of metadata"))?;
        let raw = self.read(start, length)?;
        let block = match header & METADATA_PLAIN {
            0 => decode(self.codec, &raw, METADATA_BYTES).map_err(|error| unpacked(&error))?,
            _ => raw,
        };
        let found = (Rc::new(block), start + length as u64);
        if self.metadata.len() >= KEPT_BLOCKS_MAX {
            self.metadata.clear();
        }
        self.metadata.insert(at, found.clone());
        Ok(found)
    }

    /// The next bytes of metadata, which may go on in the next block.
    fn take(&mut self, cursor: &mut Cursor, length: usize) -> Result<Vec<u8>, Trouble> {
        let mut taken = Vec::new();
        while taken.len() < length {
            let (block, next) = self.metadata(cursor.block)?;
            let rest = block.get(cursor.offset..).ok_or_else(|| odd("a place in metadata"))?;
            let part = rest.get(..rest.len().min(length - taken.len())).unwrap_or_default();
            taken.extend_from_slice(part);
            cursor.offset += part.len();
            // Only the last block of all may be shorter than others.
            if taken.len() < length {
                if block.len() < METADATA_BYTES {
                    return Err(odd("metadata that end early"));
                }
                *cursor = Cursor { block: next, offset: 0 };
            }
        }
        Ok(taken)
    }

    /// The inode at a place as folders name it: a block, and an offset in it when it is unpacked.
    fn inode(&mut self, place: u64) -> Result<Inode, Trouble> {
        let block =
            self.inodes.checked_add(place >> 16).ok_or_else(|| odd("a place of an inode"))?;
        let mut cursor = Cursor { block, offset: (place & 0xffff) as usize };
        let kind = Bytes(&self.take(&mut cursor, 16)?).u16(0)?;
        match kind {
            1 => {
                let it = self.take(&mut cursor, 16)?;
                let it = Bytes(&it);
                self.folder_of(it.u32(0)?, it.u16(10)?, u32::from(it.u16(8)?))
            }
            8 => {
                let it = self.take(&mut cursor, 24)?;
                let it = Bytes(&it);
                self.folder_of(it.u32(8)?, it.u16(18)?, it.u32(4)?)
            }
            2 => {
                let it = self.take(&mut cursor, 16)?;
                let it = Bytes(&it);
                let (start, size) = (u64::from(it.u32(0)?), u64::from(it.u32(12)?));
                self.file_of(&mut cursor, (start, size), it.u32(4)?, it.u32(8)?)
            }
            9 => {
                let it = self.take(&mut cursor, 40)?;
                let it = Bytes(&it);
                self.file_of(&mut cursor, (it.u64(0)?, it.u64(8)?), it.u32(28)?, it.u32(32)?)
            }
            3 | 10 => {
                let length = Bytes(&self.take(&mut cursor, 8)?).u32(4)? as usize;
                if length > LINK_BYTES_MAX {
                    return Err(odd("the length of a link"));
                }
                Ok(Inode::Link(self.take(&mut cursor, length)?))
            }
            4..=7 | 11..=14 => Ok(Inode::Special),
            _ => Err(odd("the kind of an inode")),
        }
    }

    fn folder_of(&self, block: u32, offset: u16, size: u32) -> Result<Inode, Trouble> {
        let block = self.folders.checked_add(u64::from(block));
        let block = block.ok_or_else(|| odd("a place of a folder"))?;
        Ok(Inode::Folder { block, offset: usize::from(offset), size })
    }

    fn file_of(
        &mut self,
        cursor: &mut Cursor,
        (start, size): (u64, u64),
        fragment: u32,
        offset: u32,
    ) -> Result<Inode, Trouble> {
        let block_bytes = u64::from(self.block_bytes);
        let n_blocks = match fragment {
            NO_FRAGMENT => size.div_ceil(block_bytes),
            _ => size / block_bytes,
        };
        // Each block has four bytes here, so that there can't be more than the window has.
        if n_blocks > self.window.size_bytes() {
            return Err(odd("the size of a file"));
        }
        let bytes = usize::try_from(n_blocks * 4).map_err(|_| odd("the size of a file"))?;
        let bytes = self.take(cursor, bytes)?;
        let blocks =
            bytes.as_chunks::<4>().0.iter().map(|size| u32::from_le_bytes(*size)).collect();
        Ok(Inode::File { start, size, fragment, offset, blocks })
    }

    /// What is in a folder: names with their kinds and places.
    fn names(&mut self, folder: &Inode) -> Result<Vec<(Vec<u8>, EntryKind, u64)>, Trouble> {
        let &Inode::Folder { block, offset, size } = folder else {
            return Err(odd("a folder that is none"));
        };
        if size > FOLDER_BYTES_MAX {
            return Err(odd("the size of a folder"));
        }
        // Three more than there are, for `.` and `..` that nobody wrote.
        let mut left = (size as usize).saturating_sub(3);
        let mut cursor = Cursor { block, offset };
        let mut names = Vec::new();
        while left > 0 {
            let header = self.take(&mut cursor, 12)?;
            let header = Bytes(&header);
            let (count, start) = (header.u32(0)?, header.u32(4)?);
            left = left.checked_sub(12).ok_or_else(|| odd("the size of a folder"))?;
            for _ in 0..=count {
                let entry = self.take(&mut cursor, 8)?;
                let entry = Bytes(&entry);
                let length = usize::from(entry.u16(6)?) + 1;
                left = left.checked_sub(8 + length).ok_or_else(|| odd("the size of a folder"))?;
                let kind = match entry.u16(4)? {
                    1 => EntryKind::Folder,
                    2 => EntryKind::File,
                    3 => EntryKind::Link,
                    _ => EntryKind::Special,
                };
                let place = (u64::from(start) << 16) | u64::from(entry.u16(0)?);
                names.push((self.take(&mut cursor, length)?, kind, place));
            }
        }
        Ok(names)
    }

    fn find(&mut self, path: &str) -> Result<Inode, Trouble> {
        self.window.refill();
        let mut inode = self.inode(self.root)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let names = self.names(&inode)?;
            let found = names.iter().find(|(name, ..)| name == part.as_bytes());
            let (.., place) = found.ok_or_else(|| odd("a folder that changes"))?;
            inode = self.inode(*place)?;
        }
        Ok(inode)
    }

    /// A block of files, unpacked.
    fn block(&mut self, at: u64, size: u32) -> Result<Rc<Vec<u8>>, Trouble> {
        if let Some((place, block)) = &self.last
            && *place == at
        {
            return Ok(Rc::clone(block));
        }
        let length = size & !DATA_PLAIN;
        if length > self.block_bytes {
            return Err(odd("the size of a block"));
        }
        let raw = self.read(at, length as usize)?;
        let block = match size & DATA_PLAIN {
            0 => decode(self.codec, &raw, self.block_bytes as usize)
                .map_err(|error| unpacked(&error))?,
            _ => raw,
        };
        let block = Rc::new(block);
        self.last = Some((at, Rc::clone(&block)));
        Ok(block)
    }

    /// The block in which the ends of several files lie.
    fn fragment(&mut self, number: u32) -> Result<Rc<Vec<u8>>, Trouble> {
        let index = u64::from(number / FRAGMENTS_PER_BLOCK) * 8;
        let index = self.fragments.checked_add(index).ok_or_else(|| odd("a fragment"))?;
        let block = Bytes(&self.read(index, 8)?).u64(0)?;
        let offset = (number % FRAGMENTS_PER_BLOCK) as usize * 16;
        let entry = self.take(&mut Cursor { block, offset }, 16)?;
        let entry = Bytes(&entry);
        self.block(entry.u64(0)?, entry.u32(8)?)
    }
}

impl Reader for Squash {
    fn folder(&mut self, path: &str) -> Result<Vec<Entry>, Trouble> {
        let inode = self.find(path)?;
        let names = self.names(&inode)?;
        Ok(named(names.into_iter().map(|(name, kind, _)| (name, kind))))
    }

    fn file(&mut self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
        let Inode::File { start, size, fragment, offset, blocks } = self.find(path)? else {
            return Err(odd("a file that is none"));
        };
        let mut content = buffer(size, bytes_max)?;
        let mut at = start;
        let block_bytes = self.block_bytes as usize;
        let mut pieces = content.chunks_mut(block_bytes);
        for (size, piece) in blocks.iter().zip(pieces.by_ref()) {
            // A hole.
            if size & !DATA_PLAIN == 0 {
                continue;
            }
            let block = self.block(at, *size)?;
            let filled = block.get(..piece.len()).ok_or_else(|| odd("a block that is short"))?;
            piece.copy_from_slice(filled);
            at = at.saturating_add(u64::from(size & !DATA_PLAIN));
        }
        if let Some(end) = pieces.next() {
            let block = self.fragment(fragment)?;
            let from = offset as usize;
            let filled = from.checked_add(end.len()).and_then(|to| block.get(from..to));
            end.copy_from_slice(filled.ok_or_else(|| odd("a fragment that is short"))?);
        }
        Ok(content)
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        match self.find(path)? {
            Inode::Link(target) => Ok(target),
            _ => Err(odd("a link that is none")),
        }
    }
}

/// Numbers in bytes.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Trouble> {
        let field = self.0.get(at..at + N).and_then(|field| field.try_into().ok());
        field.ok_or_else(|| odd("metadata that end early"))
    }

    fn u16(&self, at: usize) -> Result<u16, Trouble> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Trouble> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Trouble> {
        self.array(at).map(u64::from_le_bytes)
    }
}

fn odd(what: &str) -> Trouble {
    Trouble(damaged(what, ""))
}

fn unpacked(error: &FoldError) -> Trouble {
    odd(&error.to_string())
}
