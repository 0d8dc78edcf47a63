//! Files of ext2, ext3 and ext4.

use super::look::{FileReader, From, Looked};
use super::{CheckError, Files};
use crate::block::Block;
use crate::entry::{Entry, EntryKind};
use crate::error::RootfsError;
use crate::ext4::{
    NotMounted, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock, Times, Visit, check_mounts, walk,
};
use crate::partitions::read_if_there;
use crate::stop::Stop;
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType, PathBuf};
use std::io;
use std::sync::Arc;

/// A folder has one name in a sound file system: many more of them are a circle.
const LINKS_PER_INODE: u32 = 2;

/// A file system that the driver of ext4 takes.
pub(super) struct Ext4Files {
    file_system: Ext4,
    has_errors: bool,
    n_inodes: u32,
    disk: Arc<dyn Block>,
    offset: u64,
}

impl Ext4Files {
    pub(super) fn open(
        disk: Arc<dyn Block>,
        offset: u64,
        size_bytes: u64,
    ) -> Result<Self, RootfsError> {
        let superblock = superblock(disk.as_ref(), offset)?;
        if let Some(why) = superblock.unreadable() {
            return Err(RootfsError::FileSystem(why));
        }
        if size_bytes < superblock.size_bytes {
            return Err(RootfsError::FileSystem(format!(
                "it has {} bytes, and there are only {size_bytes} for it: the disk is probably cut off; copy or \
                 download it again",
                superblock.size_bytes
            )));
        }
        let mut window = Window {
            disk: Arc::clone(&disk),
            offset,
            size_bytes,
            hidden: superblock.hidden.clone(),
            times: None,
        };
        window.times = Times::of(&|buffer, at| window.read_disk(buffer, at));
        let file_system = Ext4::load(Box::new(window)).map_err(|error| {
            RootfsError::FileSystem(match error {
                Ext4Error::Incompatible(_) if superblock.needs_recovery => format!(
                    "it was not unmounted, and its journal is of a kind that Bootlace can't read: {CHECK}"
                ),
                other => what_is_wrong(&other),
            })
        })?;
        let Superblock { has_errors, n_inodes, .. } = superblock;
        Ok(Self { file_system, has_errors, n_inodes, disk, offset })
    }
}

impl Ext4Files {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let at = self.offset.checked_add(at);
        match at.map(|at| read_if_there(self.disk.as_ref(), at, buffer)) {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(false)) | None => {
                Err(io::Error::other("it leads beyond the end of the file system"))
            }
        }
    }
}

impl Files for Ext4Files {
    fn look(&self, path: String, entries_max: usize) -> Result<Looked, RootfsError> {
        let about = self.file_system.metadata(&*path).map_err(error(&path))?;
        if !about.is_dir() {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let kind = match about.file_type() {
                FileType::Regular => EntryKind::File,
                _ => EntryKind::Special,
            };
            let entry = (Entry { name, kind }, Some(about.len()));
            return Ok(Looked { path, entries: vec![entry], is_cut: false });
        }
        let (mut entries, mut is_cut) = (Vec::new(), false);
        for entry in self.file_system.read_dir(&*path).map_err(error(&path))? {
            let entry = entry.map_err(error(&path))?;
            let name = entry.file_name();
            // Names that are no text can't be asked for either.
            let Ok(name) = name.as_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            if entries.len() == entries_max {
                is_cut = true;
                break;
            }
            let kind = match entry.file_type().map_err(error(&path))? {
                FileType::Regular => EntryKind::File,
                FileType::Directory => EntryKind::Folder,
                FileType::Symlink => EntryKind::Link,
                _ => EntryKind::Special,
            };
            // One damaged inode is no reason to hide the others.
            let about = entry.metadata().ok().filter(|_| kind == EntryKind::File);
            let entry = Entry { name: name.to_owned(), kind };
            entries.push((entry, about.map(|about| about.len())));
        }
        entries.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(Looked { path, entries, is_cut })
    }

    fn is_for_all(&self, path: &str) -> Result<bool, RootfsError> {
        const OTHERS_READ: u16 = 0o4;
        Ok(self.file_system.metadata(path).map_err(error(path))?.mode() & OTHERS_READ != 0)
    }

    fn open_file(&self, path: &str) -> Result<FileReader, RootfsError> {
        let about = self.file_system.metadata(path).map_err(error(path))?;
        if about.is_dir() {
            let why = "it is a folder";
            return Err(RootfsError::NoFile { path: path.to_owned(), why });
        }
        let file = self.file_system.open(path).map_err(error(path))?;
        let left_bytes = file.metadata().len();
        Ok(FileReader { left_bytes, path: path.to_owned(), from: From::Ext4(Box::new(file)) })
    }

    fn has_errors(&self) -> bool {
        self.has_errors
    }

    fn check_mounts(&self) -> Result<(), RootfsError> {
        check_mounts(&|buffer: &mut [u8], at: u64| self.read_at(buffer, at)).map_err(|why| {
            RootfsError::FileSystem(match why {
                NotMounted::Io(error) => error.to_string(),
                NotMounted::Damaged(why) => format!("no kernel would mount it, as {why}: {CHECK}"),
                NotMounted::Unfit(why) => format!("no machine could use it, as {why}"),
            })
        })
    }

    fn walk(&self, visit: Visit<'_>) -> Result<(), RootfsError> {
        walk(&|buffer: &mut [u8], at: u64| self.read_at(buffer, at), visit).map_err(|why| {
            RootfsError::FileSystem(match why {
                NotMounted::Io(error) => error.to_string(),
                NotMounted::Damaged(why) => {
                    format!("the file system is damaged, as {why}: {CHECK}")
                }
                NotMounted::Unfit(why) => why,
            })
        })
    }

    fn check(&self, stop: &Stop) -> Result<(), CheckError> {
        self.check_mounts().map_err(CheckError::Damaged)?;
        let damaged = |path: &PathBuf, why: String| {
            let path = path.as_path().display().to_string();
            CheckError::Damaged(RootfsError::Read { path, why })
        };
        let mut left = self.n_inodes.saturating_mul(LINKS_PER_INODE);
        let mut folders = vec![PathBuf::new("/")];
        while let Some(folder) = folders.pop() {
            if stop.is_stopping() {
                return Err(CheckError::Stopped);
            }
            let entries = match self.file_system.read_dir(&folder) {
                Ok(entries) => entries,
                // Whoever has the key can read it.
                Err(Ext4Error::Encrypted) => continue,
                Err(error) => return Err(damaged(&folder, what_is_wrong(&error))),
            };
            for entry in entries {
                let entry = entry.map_err(|error| damaged(&folder, what_is_wrong(&error)))?;
                let path = entry.path();
                let about = entry.metadata();
                let about = about.map_err(|error| damaged(&path, what_is_wrong(&error)))?;
                let name = entry.file_name();
                if !about.is_dir() || [&b"."[..], b".."].contains(&name.as_ref()) {
                    continue;
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    return Err(damaged(&path, "its folders run in circles".to_owned()));
                }
                folders.push(path);
            }
        }
        Ok(())
    }

    fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        let length = self.file_system.metadata(path).map_err(error(path))?.len();
        if length > bytes_max {
            let why = format!("it has {length} bytes, more than {bytes_max}");
            return Err(RootfsError::Read { path: path.to_owned(), why });
        }
        self.file_system.read(path).map_err(error(path))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        let mut entries = Vec::new();
        for entry in self.file_system.read_dir(path).map_err(error(path))? {
            let entry = entry.map_err(error(path))?;
            let name = entry.file_name();
            let Ok(name) = name.as_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type().map_err(error(path))? {
                FileType::Regular => EntryKind::File,
                FileType::Directory => EntryKind::Folder,
                FileType::Symlink => EntryKind::Link,
                _ => EntryKind::Special,
            };
            entries.push(Entry { name: name.to_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        match self.file_system.exists(path) {
            Ok(exists) => Ok(exists),
            Err(Ext4Error::NotADirectory | Ext4Error::TooManySymlinks | Ext4Error::PathTooLong) => {
                Ok(false)
            }
            Err(other) => Err(error(path)(other)),
        }
    }

    fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        let resolved = self.file_system.canonicalize(path).map_err(error(path))?;
        let resolved = resolved.to_str().map_err(|_| RootfsError::Read {
            path: path.to_owned(),
            why: "it leads to a name that is not UTF-8".to_owned(),
        })?;
        Ok(resolved.to_owned())
    }
}

/// The superblock of what begins at `offset`.
fn superblock(disk: &dyn Block, offset: u64) -> Result<Superblock, RootfsError> {
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    let is_there = read_if_there(disk, offset.saturating_add(SUPERBLOCK_OFFSET), &mut bytes)
        .map_err(|error| RootfsError::FileSystem(format!("it can't be read: {error}")))?;
    Superblock::parse(&bytes)
        .filter(|_| is_there)
        .ok_or_else(|| RootfsError::FileSystem(format!("its superblock is damaged: {CHECK}")))
}

/// A part of a disk, as the ext4 reader wants it.
struct Window {
    disk: Arc<dyn Block>,
    offset: u64,
    size_bytes: u64,
    /// Bytes of the superblock, and the bits of them, that the reader must not see.
    hidden: Vec<(usize, u8)>,
    /// Times of files that it would take for damage.
    times: Option<Times>,
}

impl Window {
    fn read_disk(&self, buffer: &mut [u8], start: u64) -> io::Result<()> {
        let end = start.checked_add(buffer.len() as u64);
        let is_inside = end.is_some_and(|end| end <= self.size_bytes);
        let offset = self.offset.checked_add(start).filter(|_| is_inside);
        let beyond = || io::Error::other("it leads beyond the end of the file system");
        self.disk.read_at(buffer, offset.ok_or_else(beyond)?)
    }
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.read_disk(buffer, start)?;
        if let Some(times) = &self.times {
            times.mend(buffer, start, &|buffer, at| self.read_disk(buffer, at))?;
        }
        for &(at, bits) in &self.hidden {
            let at = (SUPERBLOCK_OFFSET + at as u64).checked_sub(start);
            if let Some(byte) = at.and_then(|at| buffer.get_mut(usize::try_from(at).ok()?)) {
                *byte &= !bits;
            }
        }
        Ok(())
    }
}

/// What helps a file system that may be sound but for what was not written any more.
const CHECK: &str =
    "repair it with `e2fsck -f`, or start its system and shut it down, and import again";

pub(super) fn error(path: &str) -> impl FnOnce(Ext4Error) -> RootfsError + use<> {
    let path = path.to_owned();
    move |error| match error {
        Ext4Error::NotFound => RootfsError::NotFound(path),
        Ext4Error::IsADirectory => RootfsError::NoFile { path, why: "it is a folder" },
        Ext4Error::IsASpecialFile => {
            RootfsError::NoFile { path, why: "it is a device, pipe or socket" }
        }
        other => RootfsError::Read { path, why: what_is_wrong(&other) },
    }
}

/// For people: of the reader's own words only those that are words.
fn what_is_wrong(error: &Ext4Error) -> String {
    let words = match error {
        Ext4Error::Io(error) => return error.to_string(),
        Ext4Error::Corrupt(corrupt) => {
            return format!("the file system is damaged ({corrupt}): {CHECK}");
        }
        Ext4Error::Incompatible(_) => {
            "it uses something of ext4 that Bootlace can't read: copy its files to a new ext4 with `mkfs.ext4 -d`"
        }
        Ext4Error::NotAbsolute => "the path does not begin with /",
        Ext4Error::NotASymlink => "it is no link",
        Ext4Error::NotFound => "it is not there",
        Ext4Error::NotADirectory => "something on the way to it is no folder",
        Ext4Error::FileTooLarge => "it is too large",
        Ext4Error::NotUtf8 => "its name is not UTF-8",
        Ext4Error::MalformedPath | Ext4Error::PathTooLong => "its path is too long or malformed",
        Ext4Error::TooManySymlinks => "its links run in circles",
        Ext4Error::Encrypted => {
            "it is encrypted (fscrypt), and nothing but its own system has the key"
        }
        _ => "the file system can't be read",
    };
    words.to_owned()
}
