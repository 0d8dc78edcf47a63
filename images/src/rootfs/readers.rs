//! Readers of the file systems that other crates know: XFS, btrfs, SquashFS, EROFS.

use super::Files;
use super::tree::{Reader, Tree, Trouble};
use crate::block::Block;
use crate::entry::{Entry, EntryKind};
use crate::error::RootfsError;
use crate::partitions::read_if_there;
use lamfold::{
    BlockCache, BlockSource, FileKind, FoldError, FoldFrontend, NoVerifier, NodeId, SubstrateCtx,
};
use lamfold_erofs::Erofs;
use model::FileSystem;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Unpacked blocks that are kept.
const CACHE_BYTES: usize = 8 << 20;
/// What may be read to answer one question, in bytes and in pieces: much more than the largest file and folder need, and an
/// end for structures that run in circles.
const READ_BYTES_MAX: u64 = 4 << 30;
const READS_MAX: u32 = 4 << 20;
/// What a reader that keeps all that it unpacked may keep.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

pub(super) const READ_ERROR: &str =
    "the disk can't be read there, or it leads beyond the end of the file system";

/// The part of a disk in which a file system lies.
#[derive(Clone)]
pub(super) struct Window {
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
    /// What is left of the bounds.
    left: Rc<Cell<(u64, u32)>>,
}

impl Window {
    fn new(disk: Arc<dyn Block>, offset: u64, size_bytes: u64) -> Self {
        let left = Rc::new(Cell::new((READ_BYTES_MAX, READS_MAX)));
        Self { disk, offset, size_bytes, left }
    }

    /// For the next question.
    pub(super) fn refill(&self) {
        self.left.set((READ_BYTES_MAX, READS_MAX));
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn read(&self, start: u64, buffer: &mut [u8]) -> Result<(), NotRead> {
        let length = buffer.len() as u64;
        let (bytes, reads) = self.left.get();
        let left = bytes.checked_sub(length).zip(reads.checked_sub(1)).ok_or(NotRead)?;
        self.left.set(left);
        let is_inside = start.checked_add(length).is_some_and(|end| end <= self.size_bytes);
        let offset = self.offset.checked_add(start).filter(|_| is_inside).ok_or(NotRead)?;
        match read_if_there(self.disk.as_ref(), offset, buffer) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(NotRead),
        }
    }
}

/// The readers ask for no more than this.
#[derive(Debug)]
pub(super) struct NotRead;

impl lamxfs::BlockRead for Window {
    type Error = NotRead;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), NotRead> {
        self.read(offset, buffer)
    }
}

impl lambutter::BlockRead for Window {
    type Error = NotRead;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), NotRead> {
        self.read(offset, buffer)
    }
}

impl BlockSource for Window {
    fn len(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), FoldError> {
        self.read(offset, buffer).map_err(|NotRead| FoldError::Io(READ_ERROR))
    }
}

pub(super) fn xfs(
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
) -> Result<Box<dyn Files>, RootfsError> {
    let window = Window::new(disk, offset, size_bytes);
    // Of an XFS that is cut off only the inodes and files behind the end would fail.
    check_size(xfs_bytes(&window), size_bytes)?;
    let file_system = lamxfs::Xfs::open(window.clone(), size_bytes)
        .map_err(|error| RootfsError::FileSystem(xfs_trouble(&error)))?;
    Ok(Box::new(Tree::new(XfsReader { file_system, window })))
}

/// What an XFS has by its superblock: blocks of so many bytes.
fn xfs_bytes(window: &Window) -> Option<u64> {
    let mut start = [0; 16];
    window.read(0, &mut start).ok()?;
    let block_bytes = u32::from_be_bytes(start[4..8].try_into().ok()?);
    let n_blocks = u64::from_be_bytes(start[8..16].try_into().ok()?);
    n_blocks.checked_mul(u64::from(block_bytes))
}

pub(super) fn check_size(needed: Option<u64>, size_bytes: u64) -> Result<(), RootfsError> {
    match needed {
        Some(needed) if needed > size_bytes => Err(RootfsError::FileSystem(format!(
            "it has {needed} bytes, and there are only {size_bytes} for it: the disk is probably cut off; copy or \
             download it again"
        ))),
        _ => Ok(()),
    }
}

struct XfsReader {
    file_system: lamxfs::Xfs<Window>,
    window: Window,
}

impl Reader for XfsReader {
    fn folder(&mut self, path: &str) -> Result<Vec<Entry>, Trouble> {
        self.window.refill();
        let found = self.file_system.read_dir(lamxfs::Path::new(path.as_bytes()));
        let found = found.map_err(|error| Trouble(xfs_trouble(&error)))?;
        let entries = found.into_iter().map(|entry| {
            let kind = match entry.kind {
                lamxfs::EntryKind::Regular => EntryKind::File,
                lamxfs::EntryKind::Directory => EntryKind::Folder,
                lamxfs::EntryKind::Symlink => EntryKind::Link,
                lamxfs::EntryKind::Other => EntryKind::Special,
            };
            (entry.name, kind)
        });
        Ok(named(entries))
    }

    fn file(&mut self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
        self.window.refill();
        let trouble = |error: lamxfs::Error| Trouble(xfs_trouble(&error));
        let inode =
            self.file_system.resolve(lamxfs::Path::new(path.as_bytes())).map_err(trouble)?;
        let size = self.file_system.metadata(&inode).map_err(trouble)?.size();
        let mut content = buffer(size, bytes_max)?;
        let read = self.file_system.read_file_at(&inode, 0, &mut content).map_err(trouble)?;
        content.truncate(read);
        Ok(content)
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        self.window.refill();
        let target = self.file_system.read_link(lamxfs::Path::new(path.as_bytes()));
        target.map_err(|error| Trouble(xfs_trouble(&error)))
    }
}

fn xfs_trouble(error: &lamxfs::Error) -> String {
    use lamxfs::{Error, SuperblockReason};
    match error {
        Error::Io { .. } => READ_ERROR.to_owned(),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => {
            "it was not unmounted, and its log is of a kind that Bootlace can't read: start its system and shut it \
             down, or mount and unmount it once, and import again"
                .to_owned()
        }
        Error::BadSuperblock(
            reason @ (SuperblockReason::ExternalLog
            | SuperblockReason::RealtimeDevice
            | SuperblockReason::UnsupportedVersion),
        ) => unsupported(FileSystem::Xfs, &format!("{reason:?}")),
        Error::UnsupportedFeature(feature) => unsupported(FileSystem::Xfs, feature),
        other => damaged(other.token(), "`xfs_repair`"),
    }
}

/// Opens what a machine takes for its root: the default subvolume if it has a `usr`, otherwise one of the usual names that
/// has.
pub(super) fn btrfs(
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
) -> Result<Box<dyn Files>, RootfsError> {
    let window = Window::new(disk, offset, size_bytes);
    let failed = |error: lambutter::Error| RootfsError::FileSystem(btrfs_trouble(&error));
    check_size(btrfs_bytes(&window), size_bytes)?;
    if !has_sound_superblock(&window) {
        let what = "the checksum of its first superblock is wrong";
        return Err(RootfsError::FileSystem(damaged(what, "`btrfs rescue super-recover`")));
    }
    let mut file_system = lambutter::Btrfs::open(window.clone(), size_bytes).map_err(failed)?;
    if !has_usr(&mut file_system, "/usr").map_err(failed)? {
        for name in FileSystem::SUBVOLUMES {
            if has_usr(&mut file_system, &format!("/{name}/usr")).map_err(failed)? {
                let path = format!("/{name}");
                let path = lambutter::Path::from(path.as_str());
                file_system = lambutter::Btrfs::open_subvol_path(window.clone(), size_bytes, path)
                    .map_err(failed)?;
                break;
            }
        }
    }
    Ok(Box::new(Tree::new(BtrfsReader { file_system, window })))
}

/// What this one disk of a btrfs has, as its superblock says.
fn btrfs_bytes(window: &Window) -> Option<u64> {
    let mut bytes = [0; 8];
    window.read((64 << 10) + 0xd1, &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Linux mounts by the first superblock, and the reader takes whichever is sound.
fn has_sound_superblock(window: &Window) -> bool {
    const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    let mut superblock = [0; 4096];
    if window.read(64 << 10, &mut superblock).is_err() {
        return false;
    }
    // Those of other kinds the reader refuses by name.
    let is_crc32c = superblock[0xc4..0xc6] == [0, 0];
    !is_crc32c || superblock[..4] == CRC32C.checksum(&superblock[0x20..]).to_le_bytes()
}

fn has_usr(
    file_system: &mut lambutter::Btrfs<Window>,
    path: &str,
) -> Result<bool, lambutter::Error> {
    match file_system.resolve(lambutter::Path::from(path)) {
        Ok(inode) => Ok(file_system.metadata(&inode)?.is_dir()),
        Err(lambutter::Error::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

struct BtrfsReader {
    file_system: lambutter::Btrfs<Window>,
    window: Window,
}

/// Of `btrfs_dir_item.type`.
const FOLDER_BYTE: u8 = 2;
const FILE_BYTE: u8 = 1;
const LINK_BYTE: u8 = 7;

impl Reader for BtrfsReader {
    fn folder(&mut self, path: &str) -> Result<Vec<Entry>, Trouble> {
        self.window.refill();
        let found = self.file_system.read_dir(lambutter::Path::from(path));
        let found = found.map_err(|error| Trouble(btrfs_trouble(&error)))?;
        let entries = found.into_iter().map(|entry| {
            let kind = match entry.kind_byte {
                FILE_BYTE => EntryKind::File,
                FOLDER_BYTE => EntryKind::Folder,
                LINK_BYTE => EntryKind::Link,
                _ => EntryKind::Special,
            };
            (entry.name, kind)
        });
        Ok(named(entries))
    }

    fn file(&mut self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
        self.window.refill();
        let trouble = |error: lambutter::Error| Trouble(btrfs_trouble(&error));
        let inode = self.file_system.resolve(lambutter::Path::from(path)).map_err(trouble)?;
        let size = self.file_system.metadata(&inode).map_err(trouble)?.size;
        let mut content = buffer(size, bytes_max)?;
        let read = self.file_system.read_file_at(&inode, 0, &mut content).map_err(trouble)?;
        content.truncate(read);
        Ok(content)
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        self.window.refill();
        let target = self.file_system.read_link(lambutter::Path::from(path));
        target.map_err(|error| Trouble(btrfs_trouble(&error)))
    }
}

fn btrfs_trouble(error: &lambutter::Error) -> String {
    use lambutter::{Error, SuperblockReason};
    match error {
        Error::Io { .. } => READ_ERROR.to_owned(),
        Error::UnsupportedFeature(what)
        | Error::UnsupportedProfile(what)
        | Error::UnsupportedChecksum(what) => unsupported(FileSystem::Btrfs, what),
        Error::BadSuperblock(
            reason
            @ (SuperblockReason::UnsupportedCsumType | SuperblockReason::UnsupportedIncompat),
        ) => unsupported(FileSystem::Btrfs, &format!("{reason:?}")),
        other => damaged(&other.to_string(), "`btrfs check`"),
    }
}

pub(super) fn squashfs(
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
) -> Result<Box<dyn Files>, RootfsError> {
    super::squashfs::open(Window::new(disk, offset, size_bytes))
}

pub(super) fn erofs(
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
) -> Result<Box<dyn Files>, RootfsError> {
    let window = Window::new(disk, offset, size_bytes);
    let mut start = [0; 1024 + 40];
    if window.read(0, &mut start).is_ok() {
        let number = |at: usize| start.get(1024 + at..1024 + at + 4)?.try_into().ok();
        let n_blocks = number(36).map(u32::from_le_bytes);
        let needed = n_blocks.and_then(|it| u64::from(it).checked_shl(u32::from(start[1024 + 12])));
        check_size(needed, size_bytes)?;
    }
    let mut cache = BlockCache::new(CACHE_BYTES);
    let mut context = SubstrateCtx { cache: &mut cache, verifier: &NoVerifier };
    let file_system = Erofs::open(window.clone(), &mut context)
        .map_err(|error| RootfsError::FileSystem(erofs_trouble(&error)))?;
    Ok(Box::new(Tree::new(ErofsReader { file_system, cache, window, n_unpacked: 0 })))
}

struct ErofsReader {
    file_system: Erofs<Window>,
    cache: BlockCache,
    window: Window,
    /// Since it was opened.
    n_unpacked: u64,
}

impl ErofsReader {
    /// Walks to a path, and does something there.
    fn at<T>(
        &mut self,
        path: &str,
        act: impl FnOnce(&mut Erofs<Window>, NodeId, &mut SubstrateCtx<'_>) -> Result<T, FoldError>,
    ) -> Result<T, Trouble> {
        self.window.refill();
        let mut context = SubstrateCtx { cache: &mut self.cache, verifier: &NoVerifier };
        let context = &mut context;
        let mut node = self.file_system.root();
        let trouble = |error| Trouble(erofs_trouble(&error));
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let found = self.file_system.lookup(node, part, context).map_err(trouble)?;
            node = found.ok_or(FoldError::NotFound).map_err(trouble)?;
        }
        act(&mut self.file_system, node, context).map_err(trouble)
    }
}

impl Reader for ErofsReader {
    fn folder(&mut self, path: &str) -> Result<Vec<Entry>, Trouble> {
        let found = self.at(path, |files, node, context| files.read_dir(node, context))?;
        let entries = found.into_iter().map(|entry| {
            let kind = match entry.kind {
                FileKind::Regular => EntryKind::File,
                FileKind::Directory => EntryKind::Folder,
                FileKind::Symlink => EntryKind::Link,
                FileKind::Other => EntryKind::Special,
            };
            (entry.name.into_bytes(), kind)
        });
        Ok(named(entries))
    }

    fn file(&mut self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
        let size = self.at(path, |files, node, context| files.metadata(node, context))?.size;
        // It keeps the whole of each file that it unpacks, for good.
        self.n_unpacked = self.n_unpacked.saturating_add(size);
        if self.n_unpacked > UNPACKED_BYTES_MAX {
            let mut context = SubstrateCtx { cache: &mut self.cache, verifier: &NoVerifier };
            self.file_system = Erofs::open(self.window.clone(), &mut context)
                .map_err(|error| Trouble(erofs_trouble(&error)))?;
            self.n_unpacked = size;
        }
        let mut content = buffer(size, bytes_max)?;
        let read = self.at(path, |files, node, context| {
            let mut read = 0;
            while let Some(rest) = content.get_mut(read..).filter(|rest| !rest.is_empty()) {
                match files.read_at(node, read as u64, rest, context)? {
                    0 => break,
                    count => read += count,
                }
            }
            Ok(read)
        })?;
        content.truncate(read);
        Ok(content)
    }

    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble> {
        let target = self.at(path, |files, node, context| files.read_link(node, context))?;
        target.ok_or_else(|| Trouble(damaged("a link that leads nowhere", COPY)))
    }
}

fn erofs_trouble(error: &FoldError) -> String {
    match error {
        FoldError::Io(_) => READ_ERROR.to_owned(),
        FoldError::Unsupported(what) => unsupported(FileSystem::Erofs, what),
        other => damaged(&other.to_string(), COPY),
    }
}

/// There is nothing that repairs those that are only read.
const COPY: &str = "";

pub(super) fn damaged(what: &str, program: &str) -> String {
    if program.is_empty() {
        return format!("the file system is damaged ({what}): make or download it again");
    }
    format!("the file system is damaged ({what}): repair it with {program}, and import again")
}

pub(super) fn unsupported(kind: FileSystem, what: &str) -> String {
    format!(
        "it uses something of {kind} that Bootlace can't read ({what}): copy its files to a new ext4 with `mkfs.ext4 -d`"
    )
}

/// Names that are UTF-8 and can stand in a path.
pub(super) fn named(found: impl Iterator<Item = (Vec<u8>, EntryKind)>) -> Vec<Entry> {
    let entries = found.filter_map(|(name, kind)| {
        let name = String::from_utf8(name).ok()?;
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        is_name.then_some(Entry { name, kind })
    });
    entries.collect()
}

/// Room for a file.
pub(super) fn buffer(size: u64, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
    let too_large = || Trouble(format!("it has {size} bytes, more than {bytes_max}"));
    let length = usize::try_from(size).map_err(|_| too_large())?;
    if size > bytes_max {
        return Err(too_large());
    }
    Ok(vec![0; length])
}
