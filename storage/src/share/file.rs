//! Opening what is shared.

use super::{ShareConfig, ShareError, Writes};
use images::{Block, DiskFile, RawFile, WriteLayer};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

pub(super) fn open(config: &ShareConfig) -> Result<Arc<dyn Block>, ShareError> {
    let path = &config.file;
    let failed = |why: String| ShareError::File { path: path.clone(), why };
    let writable = config.writes == Writes::Through;
    let file = open_file(path, writable).map_err(failed)?;
    lock(&file, writable).map_err(failed)?;
    let size_bytes = (&file).seek(SeekFrom::End(0)).map_err(|error| failed(error.to_string()))?;
    if size_bytes == 0 {
        return Err(failed("it is empty: truncate -s 10G makes a file a disk".to_owned()));
    }
    match &config.writes {
        Writes::Through => Ok(Arc::new(DiskFile::new(file, size_bytes, config.durability))),
        Writes::Refuse => Ok(Arc::new(RawFile::of_size(file, size_bytes))),
        Writes::Discard(folder) => {
            let parent = Arc::new(RawFile::of_size(file, size_bytes));
            let layer = WriteLayer::temporary(parent, folder).map_err(|error| {
                failed(format!("no file for what is written in {}: {error}", folder.display()))
            })?;
            Ok(Arc::new(layer))
        }
    }
}

fn open_file(path: &Path, writable: bool) -> Result<File, String> {
    let kind = std::fs::metadata(path).map_err(|error| error.to_string())?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err("it is neither a file nor a block device".to_owned());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(writable);
    if writable && kind.is_block_device() {
        // Refused if a file system on it is mounted, or another driver has it.
        options.custom_flags(libc::O_EXCL);
    }
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "this host uses it (is it mounted?): end that, or share it with --readonly".to_owned()
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writable => {
            format!("{error}: to share it as it is, add --readonly or --write discard")
        }
        _ => error.to_string(),
    })
}

/// Two writers would destroy each other's file systems. The lock ends with this process.
fn lock(file: &File, writable: bool) -> Result<(), String> {
    let locked = if writable { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(
            "another program has locked it: if that is bootlace share, end it, or let all shares of \
             it have --readonly or --write discard"
                .to_owned(),
        ),
        Err(TryLockError::Error(error)) => Err(format!("it can't be locked: {error}")),
    }
}
