//! All that is in a file system, with owners, attributes and devices, which the reader of single files does not tell.

use super::inodes::{ENCRYPTED, Inode};
use super::map::Run;
use super::superblock::FileSystem;
use super::{
    NotMounted, Read, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, damaged, u16_of, u32_of, unfit,
};
use std::collections::HashSet;
use std::io;

const ROOT: u32 = 2;

/// In `s_feature_incompat`: what its journal holds is not in its place.
const RECOVER: u32 = 0x4;

/// A link that is shorter is in its inode.
const FAST_LINK_BYTES: u64 = 60;
/// No path is longer in Linux.
const LINK_BYTES_MAX: u64 = 4096;

/// Attributes begin so, in an inode and in a block (`EXT4_XATTR_MAGIC`).
const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
/// How their names begin, by number.
const PREFIXES: [(u8, &str); 4] = [(1, "user."), (4, "trusted."), (6, "security."), (7, "system.")];
/// Those whose names are that, and whose values are written otherwise.
const LISTS: [(u8, &str); 2] = [(2, "system.posix_acl_access"), (3, "system.posix_acl_default")];

/// What something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
    /// Where it leads.
    Link(Vec<u8>),
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Pipe,
    Socket,
}

/// Something in a file system.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// From the root on, without the first `/`; empty: the root itself.
    pub(crate) path: Vec<u8>,
    /// By which other names of the same are known.
    pub(crate) inode: u32,
    pub(crate) n_links: u16,
    /// As `chmod` takes it.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified_unix: i64,
    pub(crate) size_bytes: u64,
    pub(crate) kind: Kind,
    /// Names and values.
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

/// What is done with each; a file's content can be read meanwhile.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Node, &mut dyn io::Read) -> io::Result<()>;

/// Gives `visit` all that is in a file system, folders before what is in them.
///
/// # Errors
/// It is damaged, was not unmounted, or is encrypted; or `visit` fails.
pub(crate) fn walk(read: Read<'_>, visit: Visit<'_>) -> Result<(), NotMounted> {
    let mut superblock = [0; SUPERBLOCK_BYTES];
    read(&mut superblock, SUPERBLOCK_OFFSET)?;
    let file_system = FileSystem::parse(read, superblock)?;
    if file_system.has_incompatible(RECOVER) {
        return unfit(
            "it was not unmounted, and what its journal holds is not read: start its system and shut it down, or repair it with \
             `e2fsck -f`, and import that",
        );
    }
    let mut seen = HashSet::new();
    let mut folders = vec![(ROOT, Vec::new())];
    file_system.visit(ROOT, Vec::new(), visit)?;
    while let Some((number, path)) = folders.pop() {
        if !seen.insert(number) {
            return damaged("its folders run in circles");
        }
        for (name, number) in file_system.entries(number)? {
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            if file_system.visit(number, below.clone(), visit)? {
                folders.push((number, below));
            }
        }
    }
    Ok(())
}

impl FileSystem<'_> {
    /// Returns whether it is a folder.
    fn visit(&self, number: u32, path: Vec<u8>, visit: Visit<'_>) -> Result<bool, NotMounted> {
        let inode = self.inode(number, "a file")?;
        if inode.flags() & ENCRYPTED != 0 {
            return unfit(
                "it has encrypted files (fscrypt), of which nothing but its own system has the key",
            );
        }
        let node = self.node(number, path, &inode)?;
        let mut runs = Vec::new();
        if node.kind == Kind::File {
            let n_blocks = inode.size_bytes.div_ceil(self.block_bytes);
            self.runs(&inode, n_blocks, &mut |run| {
                runs.push(run);
                Ok(())
            })?;
        }
        let is_folder = node.kind == Kind::Folder;
        let size_bytes = if node.kind == Kind::File { inode.size_bytes } else { 0 };
        let mut content = Content { file_system: self, runs, next: 0, position: 0, size_bytes };
        visit(&node, &mut content)?;
        Ok(is_folder)
    }

    fn node(&self, number: u32, path: Vec<u8>, inode: &Inode) -> Result<Node, NotMounted> {
        let bytes = &inode.bytes;
        let high = |at: usize| u32::from(u16_of(bytes, at)) << 16;
        let mode = u16_of(bytes, 0);
        let kind = match mode & 0xf000 {
            0x1000 => Kind::Pipe,
            0x2000 => {
                let (major, minor) = device(inode.map());
                Kind::CharacterDevice(major, minor)
            }
            0x4000 => Kind::Folder,
            0x6000 => {
                let (major, minor) = device(inode.map());
                Kind::BlockDevice(major, minor)
            }
            0x8000 => Kind::File,
            0xa000 => Kind::Link(self.link(inode)?),
            0xc000 => Kind::Socket,
            other => return damaged(format!("an inode is of no kind that there is ({other:#x})")),
        };
        let extra = if bytes.len() > 128 { usize::from(u16_of(bytes, 0x80)) } else { 0 };
        // Seconds since 1970 with sign, and two bits more.
        let mut modified_unix = i64::from(u32_of(bytes, 0x10) as i32);
        if 128 + extra >= 0x8c {
            modified_unix += i64::from(u32_of(bytes, 0x88) & 3) << 32;
        }
        Ok(Node {
            path,
            inode: number,
            n_links: u16_of(bytes, 0x1a),
            mode: u32::from(mode & 0o7777),
            uid: high(0x78) | u32::from(u16_of(bytes, 0x2)),
            gid: high(0x7a) | u32::from(u16_of(bytes, 0x18)),
            modified_unix,
            size_bytes: inode.size_bytes,
            kind,
            attributes: self.attributes(inode, extra)?,
        })
    }

    fn link(&self, inode: &Inode) -> Result<Vec<u8>, NotMounted> {
        // Only of files the upper half is a size's.
        let n_bytes = inode.size_bytes;
        if n_bytes < FAST_LINK_BYTES {
            return Ok(inode.map()[..n_bytes as usize].to_vec());
        }
        if n_bytes > LINK_BYTES_MAX {
            return damaged(format!("a link has {n_bytes} bytes"));
        }
        let mut target = Vec::new();
        self.runs(inode, n_bytes.div_ceil(self.block_bytes), &mut |run| {
            for block in run.first..run.first + run.n {
                target.extend(self.block(block)?);
            }
            Ok(())
        })?;
        target.truncate(n_bytes as usize);
        Ok(target)
    }

    /// Names and inodes in a folder, without `.` and `..`.
    fn entries(&self, number: u32) -> Result<Vec<(Vec<u8>, u32)>, NotMounted> {
        let inode = self.inode(number, "a folder")?;
        let mut entries = Vec::new();
        self.runs(&inode, inode.size_bytes.div_ceil(self.block_bytes), &mut |run| {
            for block in run.first..run.first + run.n {
                entries_in(&self.block(block)?, &mut entries)?;
            }
            Ok(())
        })?;
        entries.sort();
        Ok(entries)
    }

    fn attributes(
        &self,
        inode: &Inode,
        extra: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, NotMounted> {
        let mut attributes = Vec::new();
        let start = 128 + extra;
        if inode.bytes.len() >= start + 4
            && extra > 0
            && u32_of(&inode.bytes, start) == ATTRIBUTES_MAGIC
        {
            let area = &inode.bytes[start + 4..];
            attributes_in(area, 0, &mut attributes)?;
        }
        let block = self.attributes_of(inode);
        if block != 0 {
            let block = self.block(block)?;
            if u32_of(&block, 0) != ATTRIBUTES_MAGIC {
                return damaged("a block of attributes does not begin as one");
            }
            attributes_in(&block, 32, &mut attributes)?;
        }
        Ok(attributes)
    }
}

/// Numbers of a device (`old_decode_dev`, `new_decode_dev`).
fn device(map: &[u8]) -> (u32, u32) {
    let (old, new) = (u32_of(map, 0), u32_of(map, 4));
    match old {
        0 => ((new & 0xf_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0xf_ff00)),
        old => ((old >> 8) & 0xff, old & 0xff),
    }
}

fn entries_in(block: &[u8], entries: &mut Vec<(Vec<u8>, u32)>) -> Result<(), NotMounted> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let (number, length) = (u32_of(block, at), usize::from(u16_of(block, at + 4)));
        let n_name = usize::from(block[at + 6]);
        if length < 8 + n_name || !length.is_multiple_of(4) || at + length > block.len() {
            return damaged("an entry of a folder leads outside");
        }
        let name = &block[at + 8..at + 8 + n_name];
        // An inode of 0 is no entry: a removed one, a node of hashes, or a checksum.
        if number != 0 && name != b"." && name != b".." {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return damaged("an entry of a folder has no name that there can be");
            }
            entries.push((name.to_vec(), number));
        }
        at += length;
    }
    Ok(())
}

/// Attributes of an area whose entries begin at `at`, and whose values are told from its start on.
fn attributes_in(
    area: &[u8],
    mut at: usize,
    attributes: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), NotMounted> {
    while at + 16 <= area.len() && u32_of(area, at) != 0 {
        let (n_name, index) = (usize::from(area[at]), area[at + 1]);
        let offset = usize::from(u16_of(area, at + 2));
        let (elsewhere, n_value) = (u32_of(area, at + 4), u32_of(area, at + 8) as usize);
        let name = area.get(at + 16..at + 16 + n_name);
        let value = area.get(offset..offset.saturating_add(n_value));
        let (Some(name), Some(value), 0) = (name, value, elsewhere) else {
            return damaged("an attribute leads outside");
        };
        let name = String::from_utf8_lossy(name);
        let is_list = LISTS.iter().find(|(number, _)| *number == index);
        let prefix = PREFIXES.iter().find(|(number, _)| *number == index);
        if let Some((_, name)) = is_list {
            attributes.push(((*name).to_owned(), access_list(value)?));
        } else if let Some((_, prefix)) = prefix {
            attributes.push((format!("{prefix}{name}"), value.to_vec()));
        }
        at += 16 + n_name.next_multiple_of(4);
    }
    Ok(())
}

/// An access list as programs know it, of one as ext4 has it (`ext4_acl_from_disk`).
fn access_list(disk: &[u8]) -> Result<Vec<u8>, NotMounted> {
    const USER: u16 = 0x2;
    const GROUP: u16 = 0x8;
    let mut list = 2u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at + 4 <= disk.len() {
        let tag = u16_of(disk, at);
        let has_id = tag == USER || tag == GROUP;
        let end = if has_id { at + 8 } else { at + 4 };
        if end > disk.len() {
            return damaged("an access list ends too early");
        }
        list.extend(&disk[at..at + 4]);
        list.extend(if has_id { u32_of(disk, at + 4) } else { u32::MAX }.to_le_bytes());
        at = end;
    }
    Ok(list)
}

/// A file's content, from its start to its end.
struct Content<'a> {
    file_system: &'a FileSystem<'a>,
    runs: Vec<Run>,
    /// Which of the runs is the next, or the one at `position`.
    next: usize,
    position: u64,
    size_bytes: u64,
}

impl io::Read for Content<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let block_bytes = self.file_system.block_bytes;
        let left = (self.size_bytes - self.position).min(into.len() as u64);
        if left == 0 {
            return Ok(0);
        }
        let end = |run: &Run| (run.logical + run.n) * block_bytes;
        while self.runs.get(self.next).is_some_and(|run| end(run) <= self.position) {
            self.next += 1;
        }
        let run = self.runs.get(self.next);
        let start = run.map_or(u64::MAX, |run| run.logical * block_bytes);
        let n_bytes;
        match run {
            Some(run) if start <= self.position => {
                n_bytes = left.min(end(run) - self.position);
                let into = &mut into[..n_bytes as usize];
                match run.is_written {
                    true => {
                        let at = run.first * block_bytes + (self.position - start);
                        (self.file_system.read)(into, at)?;
                    }
                    false => into.fill(0),
                }
            }
            // A hole.
            _ => {
                n_bytes = left.min(start - self.position);
                into[..n_bytes as usize].fill(0);
            }
        }
        self.position += n_bytes;
        Ok(n_bytes as usize)
    }
}
