//! A file or device that is imported: opened without a wait, and used by nobody who writes.

use crate::error::ImportError;
use crate::lease;
use crate::stop::Stop;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So often, and this far apart, is looked again whether a writer is still there: a child that is about to start a program is
/// one for milliseconds, on a busy machine for tenths of a second.
const WRITER_LOOKS: u32 = 8;
const WRITER_LOOK_INTERVAL: Duration = Duration::from_millis(60);

/// What is read to tell what a file is: Zstandard unpacks up to 128 KiB at once.
const START_BYTES_MAX: u64 = 256 << 10;

/// How soon it is seen that reading of a silent pipe is to stop.
const STOP_LATENCY: Duration = Duration::from_millis(100);

/// A disk that is to be imported: a file or a block device, opened.
#[derive(Debug)]
pub struct Source {
    pub(crate) file: File,
    pub(crate) size_bytes: u64,
    /// Bytes that the file takes, as far as can be told.
    pub(crate) allocated_bytes: u64,
    path: PathBuf,
    /// `None`: it is a pipe.
    before: Option<Stamp>,
    /// Of a pipe: what was read of it already.
    start: Vec<u8>,
}

/// By what is seen that a file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { size_bytes: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Source {
    /// Opens a regular file or a block device; never waits for another program, as a pipe would. Only root sees all who might
    /// write to it.
    ///
    /// # Errors
    /// It can't be read, is surely no disk, or somebody writes to it.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let source_error = |source| ImportError::Source { path: path.to_owned(), source };
        // Looked at before it is opened: opening may do something with a device.
        let kind = fs::metadata(path).map_err(source_error)?;
        if let Some((found, advice)) = no_disk(&kind) {
            return Err(ImportError::NoDisk {
                path: path.to_owned(),
                found: found.to_owned(),
                advice,
            });
        }
        let mut flags = OFlags::NONBLOCK;
        if kind.file_type().is_block_device() {
            // The kernel lets nobody in who wants it alone while it is mounted, or a part of it.
            flags |= OFlags::EXCL;
        }
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => ImportError::InUse {
                path: path.to_owned(),
                how: "in use by this server: it, or a part of it, is mounted, or belongs to LVM or a RAID"
                    .to_owned(),
                help: "unmount it".to_owned(),
            },
            _ => source_error(error),
        })?;
        if let Some(Writer { name, help }) = lasting_writer(&file, &kind, path) {
            let how = format!("open for writing by {name}");
            return Err(ImportError::InUse { path: path.to_owned(), how, help });
        }
        let metadata = file.metadata().map_err(source_error)?;
        // A block device has no length of its own, but an end.
        let size_bytes = file.seek(SeekFrom::End(0)).map_err(source_error)?;
        let allocated_bytes = match metadata.blocks() * 512 {
            0 => size_bytes,
            bytes => bytes.min(size_bytes),
        };
        let before = Some(Stamp::of(&metadata));
        let path = path.to_owned();
        Ok(Self { file, size_bytes, allocated_bytes, path, before, start: Vec::new() })
    }

    /// What another program writes: a tar archive. Waits for its first bytes. `name` is what errors call it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn pipe(file: File, name: &str) -> Result<Self, ImportError> {
        let path = PathBuf::from(name);
        let mut start = Vec::new();
        let read =
            file.try_clone().and_then(|file| file.take(START_BYTES_MAX).read_to_end(&mut start));
        read.map_err(|source| ImportError::Source { path: path.clone(), source })?;
        Ok(Self { file, size_bytes: 0, allocated_bytes: 0, path, before: None, start })
    }

    /// Its first bytes, of which can be told what it is, though it may be packed.
    pub(crate) fn head(&self) -> io::Result<Vec<u8>> {
        if self.is_pipe() {
            return Ok(self.start.clone());
        }
        let mut head = vec![0; self.size_bytes.min(START_BYTES_MAX) as usize];
        self.file.read_exact_at(&mut head, 0)?;
        Ok(head)
    }

    /// All of it, from the beginning. Reading ends with an error when it is told to stop, however long a pipe is silent.
    pub(crate) fn reader<'a>(&'a self, stop: &'a Stop) -> io::Result<impl Read + use<'a>> {
        if !self.is_pipe() {
            (&self.file).seek(SeekFrom::Start(0))?;
        }
        Ok(self.start.chain(Content { file: &self.file, is_pipe: self.is_pipe(), stop }))
    }

    pub(crate) fn is_pipe(&self) -> bool {
        self.before.is_none()
    }

    /// By which name it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To be called when all of it was read.
    pub(crate) fn check_unchanged(&self) -> Result<(), ImportError> {
        let Some(before) = self.before else { return Ok(()) };
        let source_error = |source| ImportError::Source { path: self.path.clone(), source };
        let same_file = self.file.metadata().map_err(source_error)?;
        if Stamp::of(&same_file) == before {
            Ok(())
        } else {
            Err(ImportError::Changed { path: self.path.clone() })
        }
    }
}

/// A file or pipe that is read to its end.
struct Content<'a> {
    file: &'a File,
    is_pipe: bool,
    stop: &'a Stop,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_stopping() {
                return Err(io::Error::other("told to stop"));
            }
            let silence = Timespec { tv_sec: 0, tv_nsec: STOP_LATENCY.subsec_nanos().into() };
            let mut wait = [PollFd::new(self.file, PollFlags::IN)];
            if !self.is_pipe || poll(&mut wait, Some(&silence))? > 0 {
                return self.file.read(buffer);
            }
        }
    }
}

/// What is surely no disk, and what helps.
fn no_disk(metadata: &Metadata) -> Option<(&'static str, &'static str)> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some(("a folder", ""))
    } else if kind.is_fifo() {
        Some((
            "a pipe",
            ": give a tar archive on standard input, by the name -, or write it to a file",
        ))
    } else if kind.is_socket() {
        Some(("a socket", ""))
    } else {
        Some(("a character device", ""))
    }
}

/// Who has a file open for writing.
struct Writer {
    name: String,
    /// How to make it close the file.
    help: String,
}

/// Who has the file open for writing and keeps it so. Whoever has just closed it may have a child that has not done so yet: one
/// that starts another program, and has all files of its parent until then.
fn lasting_writer(file: &File, metadata: &Metadata, path: &Path) -> Option<Writer> {
    for _ in 0..WRITER_LOOKS {
        writer(file, metadata, path)?;
        std::thread::sleep(WRITER_LOOK_INTERVAL);
    }
    writer(file, metadata, path)
}

/// Who has the file open for writing, as far as that can be seen from here. Who is in a container, or is another user's, may
/// have no name here, and the kernel still counts him.
fn writer(file: &File, metadata: &Metadata, path: &Path) -> Option<Writer> {
    let program =
        |name| Writer { name, help: "shut the machine down, or end the program".to_owned() };
    let device = |name| Writer { help: format!("detach it with `losetup -d {name}`"), name };
    let locked =
        || has_qemu_lock(file).then(|| "a virtual machine, or a tool of QEMU's".to_owned());
    let nameless = || Writer {
        name: "a program that can't be seen from here, such as one in a container".to_owned(),
        help: "shut the machine down, or end the program (`lsof` as root may name it)".to_owned(),
    };
    writing_process(metadata, path)
        .map(program)
        .or_else(|| writing_loop_device(metadata).map(device))
        .or_else(|| locked().map(program))
        .or_else(|| (lease::has_writer(file) == Some(true)).then(nameless))
}

/// QEMU locks bytes of the images that it uses: for each permission that it has one from 100 on
/// (`RAW_LOCK_PERM_BASE` in `block/file-posix.c`). That is seen in containers, and perhaps over NFS, too.
fn has_qemu_lock(file: &File) -> bool {
    const WRITE: i64 = 101;
    const RESIZE: i64 = 103;
    [WRITE, RESIZE].into_iter().any(|byte| {
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        // Where there are no such locks nobody holds one.
        let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
        asked.is_ok() && lock.l_type != libc::F_UNLCK as i16
    })
}

/// A process with a descriptor for writing, by `/proc`, under whatever name it has opened the file.
fn writing_process(metadata: &Metadata, path: &Path) -> Option<String> {
    let name = path.canonicalize().ok()?.file_name()?.to_owned();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let folder = process.path();
        let is_process =
            process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        // Processes end while we look, and those of others may be closed to us.
        let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let about = folder.join("fdinfo").join(descriptor.file_name());
            let Ok(about) = fs::read_to_string(about) else { continue };
            if !may_write(&about) {
                continue;
            }
            // To ask a file itself may take for ever, if its server is away: only one that is probably ours.
            let may_be_it = match inode(&about) {
                Some(inode) if !metadata.file_type().is_block_device() => inode == metadata.ino(),
                // Each name of a device has an inode of its own; and Linux before 5.14 does not tell.
                _ => fs::read_link(descriptor.path()).is_ok_and(|target| {
                    target.starts_with("/dev") || target.file_name() == Some(name.as_os_str())
                }),
            };
            let is_same = || {
                fs::metadata(descriptor.path()).is_ok_and(|other| is_same_file(&other, metadata))
            };
            if may_be_it && is_same() {
                let program = fs::read_to_string(folder.join("comm")).unwrap_or_default();
                let pid = process.file_name();
                return Some(format!("{} (pid {})", program.trim().escape_debug(), pid.display()));
            }
        }
    }
    None
}

/// The file's inode by `/proc/PID/fdinfo/N`.
fn inode(about: &str) -> Option<u64> {
    about.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok())
}

/// Whether `/proc/PID/fdinfo/N` is that of a descriptor for writing.
fn may_write(about: &str) -> bool {
    const ACCESS: u32 = 0o3;
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & ACCESS != 0)
}

/// A loop device that may write has the file in the kernel, where no process shows it.
fn writing_loop_device(metadata: &Metadata) -> Option<String> {
    for device in fs::read_dir("/sys/block").ok()?.flatten() {
        let folder = device.path();
        let Ok(backing) = fs::read_to_string(folder.join("loop/backing_file")) else { continue };
        let is_same =
            fs::metadata(backing.trim_end()).is_ok_and(|other| is_same_file(&other, metadata));
        let is_read_only = fs::read_to_string(folder.join("ro")).is_ok_and(|ro| ro.trim() == "1");
        if is_same && !is_read_only {
            let name = device.file_name();
            return Some(format!("/dev/{}", name.display()));
        }
    }
    None
}

fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    if a.file_type().is_block_device() && b.file_type().is_block_device() {
        return a.rdev() == b.rdev();
    }
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_for_writing_are_told_from_others() {
        assert!(may_write("pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"));
        assert!(may_write("pos:\t0\nflags:\t0100001\n"));
        assert!(!may_write("pos:\t0\nflags:\t0100000\n"));
        assert!(!may_write("") && !may_write("flags:\tx"));
        assert_eq!(inode("flags:\t01\nino:\t1234\n"), Some(1234));
        assert_eq!((inode("flags:\t01\n"), inode("ino:\tx")), (None, None));
    }
}
