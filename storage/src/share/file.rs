//! Opening what is shared.

use super::{ShareConfig, ShareError, Writes};
use images::{Block, DiskFile, Format, HEAD_BYTES_MAX, NotImported, RawFile, WriteLayer, detect};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What AoE clients read and write.
const SECTOR_BYTES: u64 = 512;

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
    for warning in warnings(&file, size_bytes) {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    match &config.writes {
        Writes::Through => Ok(Arc::new(DiskFile::new(file, size_bytes, config.durability))),
        Writes::Refuse => Ok(Arc::new(RawFile::in_sectors(file, size_bytes))),
        Writes::Discard(folder) => {
            let parent = Arc::new(RawFile::in_sectors(file, size_bytes));
            let layer = WriteLayer::temporary(parent, folder).map_err(|error| {
                failed(format!("no file for what is written in {}: {error}", folder.display()))
            })?;
            Ok(Arc::new(layer))
        }
    }
}

/// What is probably not as whoever shares the file thinks.
fn warnings(file: &File, size_bytes: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    let n_missing = size_bytes.next_multiple_of(SECTOR_BYTES) - size_bytes;
    if n_missing > 0 {
        warnings.push(format!(
            "the file does not end with a whole sector: {n_missing} bytes are missing, and clients see zeroes there"
        ));
    }
    let mut head = vec![0; HEAD_BYTES_MAX.min(usize::try_from(size_bytes).unwrap_or(usize::MAX))];
    // Whoever reads it later is told if that fails.
    if file.read_exact_at(&mut head, 0).is_ok() {
        warnings.extend(no_raw_disk(&head));
    }
    warnings
}

/// What a file is that clients can't use as a disk, and what helps.
fn no_raw_disk(head: &[u8]) -> Option<String> {
    let as_it_is = "is shared as it is: clients see its bytes, and not those of a disk in it";
    match detect(head) {
        Ok(Format::Raw) => None,
        Ok(format) => {
            let format = format.name();
            Some(format!(
                "a {format} image {as_it_is}. Share what `qemu-img convert -f {format} -O raw FILE DISK.raw` makes of \
                 it; `bootlace image import` takes it for machines"
            ))
        }
        Err(NotImported::NoDisk { found, .. }) => {
            Some(format!("{found} {as_it_is}. Unpack it if there is one, and share that"))
        }
        Err(NotImported::Refused(_)) => Some(format!(
            "a disk image that is not raw {as_it_is}. Share what `qemu-img convert -O raw FILE DISK.raw` makes of it"
        )),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_of_whole_sectors_is_told() {
        let told = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            warnings(&file, bytes.len() as u64).join("; ")
        };
        assert_eq!(told(&[7; 1024]), "");
        assert!(told(&[7; 1443]).contains(": 93 bytes are missing"), "{}", told(&[7; 1443]));
        let beginning = |magic: &[u8]| [magic, &[0; 1024]].concat()[..1024].to_vec();
        for (magic, expected) in [
            (&b"QFI\xfb\0\0\0\x03"[..], "a qcow2 image is shared as it is"),
            (b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x01", "a disk image that is not raw is shared"),
            (b"\x1f\x8b", "a gzip file is shared as it is"),
        ] {
            let told = told(&beginning(magic));
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn every_way_to_share_a_file_has_its_last_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        std::fs::write(&file, [7; 1443]).unwrap();
        for writes in [Writes::Through, Writes::Refuse, Writes::Discard(folder.path().to_owned())] {
            let config = ShareConfig {
                file: file.clone(),
                name: "disk".to_owned(),
                writes,
                durability: images::Durability::Durable,
                nbd: Vec::new(),
                nbd_sockets: Vec::new(),
                tls: None,
                aoe: Vec::new(),
                allow: Vec::new(),
            };
            let disk = open(&config).unwrap();
            assert_eq!(disk.size_bytes(), 1536, "{:?}", config.writes);
            let mut sector = [9; 512];
            disk.read_at(&mut sector, 1024).unwrap();
            assert!(sector[..419] == [7; 419] && sector[419..] == [0; 93], "{:?}", config.writes);
        }
    }
}
