//! The files of a version as a tar archive, as root's `tar` would make it.

use super::ExportError;
use crate::ext4::{Kind, Node};
use crate::progress::{Progress, Step};
use crate::rootfs::Rootfs;
use crate::stop::Stop;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// How names of extended attributes begin in an archive, for GNU tar, bsdtar and their kin.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// Writes all that is in the file system, of about so many bytes.
pub(super) fn write(
    root: &Rootfs,
    total_bytes: u64,
    out: &mut dyn Write,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ExportError> {
    let mut archive = Archive { out: Builder::new(out), first_names: HashMap::new() };
    let mut done_bytes = 0;
    let mut failed = None;
    let walked = root.walk(&mut |node, content| {
        let done = done_bytes.min(total_bytes);
        progress(Progress { step: Step::Copy, done_bytes: done, total_bytes });
        let mut content = Watched { content, stop, failed: None };
        let put = archive.put(node, &mut content);
        done_bytes += node.size_bytes;
        match (content.failed, put) {
            (Some(error), _) => Err(error),
            (None, Ok(())) if stop.is_stopping() => Err(io::ErrorKind::Interrupted.into()),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => {
                failed = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    });
    if stop.is_stopping() {
        return Err(ExportError::Stopped);
    }
    if let Some(error) = failed {
        return Err(ExportError::Write(error));
    }
    walked.map_err(|error| ExportError::Files(error.to_string()))?;
    let finished = archive.out.into_inner().and_then(|out| out.flush());
    finished.map_err(ExportError::Write)?;
    progress(Progress { step: Step::Copy, done_bytes: total_bytes, total_bytes });
    Ok(())
}

struct Archive<'a> {
    out: Builder<&'a mut dyn Write>,
    /// By which name what has several was written.
    first_names: HashMap<u32, Vec<u8>>,
}

impl Archive<'_> {
    fn put(&mut self, node: &Node, content: &mut dyn Read) -> io::Result<()> {
        let path = match node.path.as_slice() {
            b"" => Path::new("./"),
            path => Path::new(OsStr::from_bytes(path)),
        };
        let mut header = Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(node.modified_unix.max(0).unsigned_abs());
        header.set_size(0);
        if node.kind != Kind::Folder && node.n_links > 1 {
            if let Some(first) = self.first_names.get(&node.inode) {
                header.set_entry_type(EntryType::Link);
                return self.out.append_link(&mut header, path, OsStr::from_bytes(first));
            }
            self.first_names.insert(node.inode, node.path.clone());
        }
        // A socket is its program's, which makes it again; no archive has them.
        if node.kind == Kind::Socket {
            return Ok(());
        }
        let names: Vec<(String, &[u8])> = node
            .attributes
            .iter()
            .map(|(name, value)| (format!("{ATTRIBUTE}{name}"), value.as_slice()))
            .collect();
        if !names.is_empty() {
            self.out
                .append_pax_extensions(names.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        match &node.kind {
            Kind::Folder => header.set_entry_type(EntryType::Directory),
            Kind::File => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(node.size_bytes);
                return self.out.append_data(&mut header, path, content);
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                return self.out.append_link(&mut header, path, OsStr::from_bytes(target));
            }
            Kind::Pipe => header.set_entry_type(EntryType::Fifo),
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                let is_block = matches!(node.kind, Kind::BlockDevice(..));
                header.set_entry_type(if is_block { EntryType::Block } else { EntryType::Char });
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
            }
            Kind::Socket => return Ok(()),
        }
        self.out.append_data(&mut header, path, io::empty())
    }
}

/// Tells what fails in the image from what fails where it goes.
struct Watched<'a> {
    content: &'a mut dyn Read,
    stop: &'a Stop,
    failed: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopping() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.content.read(into) {
            Ok(n) => Ok(n),
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}
