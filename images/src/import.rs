//! Making an image version of a disk image file.

use crate::block::Block;
use crate::copy::{CopyError, read_disk};
use crate::error::{ImportError, StoreError, io_error};
use crate::folder::space;
use crate::progress::{Progress, Step};
use crate::qemu_img;
use crate::raw::RawFile;
use crate::source::{Format, HEAD_BYTES_MAX, NotImported, detect};
use crate::store::{Draft, Store};
use crate::system::find_system;
use model::{ImageName, ImageVersion};
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Sizes are rounded up to this: the unit of write layers, and of every page cache.
const SIZE_UNIT_BYTES: u64 = 4096;
/// No file of ext4 is larger; a header that claims more is a mistake or an attack.
const SIZE_BYTES_MAX: u64 = 16 << 40;

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// The disk image: raw, qcow2, VMDK, VHDX, VHD or VDI; or a block device.
    pub source: PathBuf,
    /// The image of which it becomes the next version.
    pub name: ImageName,
    /// What people want to remember about it.
    pub note: Option<String>,
}

impl Store {
    /// Imports a disk image as the next version of an image.
    ///
    /// Nothing stays in the store if it fails. Takes as long as reading the disk takes;
    /// `progress` is called about once for each MiB.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(
        &self,
        request: &ImportRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageVersion, ImportError> {
        let source_error = |source| ImportError::Source { path: request.source.clone(), source };
        let mut source = File::open(&request.source).map_err(source_error)?;
        let metadata = source.metadata().map_err(source_error)?;
        if metadata.is_dir() {
            return Err(no_disk(
                &request.source,
                "a folder",
                ": make a disk of it with `mkfs.ext4 -d`",
            ));
        }
        // A block device has no length of its own, but an end.
        let source_bytes = source.seek(SeekFrom::End(0)).map_err(source_error)?;
        let format = detect_format(&source, source_bytes, &request.source)?;
        let allocated_bytes = match metadata.blocks() * 512 {
            0 => source_bytes,
            bytes => bytes.min(source_bytes),
        };
        self.check_room(allocated_bytes)?;

        let draft = self.draft()?;
        let disk_path = draft.path().join("disk.raw");
        let (size_bytes, digest) = match format {
            Format::Raw => self.copy_raw(&source, source_bytes, &disk_path, request, progress)?,
            _ => self.convert(format, &disk_path, request, progress)?,
        };
        if let Some(newest) = self.newest(&request.name)?
            && newest.digest == digest
        {
            return Err(ImportError::SameAsNewest {
                image: request.name.clone(),
                version: newest.version,
            });
        }
        self.describe(draft, request, size_bytes, digest, progress)
    }

    fn copy_raw(
        &self,
        source: &File,
        source_bytes: u64,
        disk_path: &Path,
        request: &ImportRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(u64, String), ImportError> {
        // Before copying gigabytes: is there anything on it?
        let block: Arc<dyn Block> = Arc::new(RawFile::of_size(
            source
                .try_clone()
                .map_err(|source| ImportError::Source { path: request.source.clone(), source })?,
            source_bytes,
        ));
        find_system(&block, &request.source)?;

        let size_bytes = padded(source_bytes, &request.source)?;
        let target = new_disk(disk_path)?;
        let digest = read_disk(source, source_bytes, size_bytes, Some(&target), progress).map_err(
            |error| match error {
                CopyError::Read(source) => {
                    ImportError::Source { path: request.source.clone(), source }
                }
                CopyError::Write(source) => self.write_error(disk_path, source),
            },
        )?;
        Ok((size_bytes, digest))
    }

    fn convert(
        &self,
        format: Format,
        disk_path: &Path,
        request: &ImportRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(u64, String), ImportError> {
        qemu_img::convert(format, &request.source, disk_path, progress).map_err(
            |error| match error {
                qemu_img::Failed::DiskFull => ImportError::DiskFull { path: self.dir().to_owned() },
                qemu_img::Failed::Other(text) => ImportError::Convert(text),
            },
        )?;
        let disk = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(disk_path)
            .map_err(io_error("open", disk_path))?;
        let converted_bytes = disk.metadata().map_err(io_error("read", disk_path))?.len();
        let size_bytes = padded(converted_bytes, &request.source)?;
        disk.set_len(size_bytes).map_err(|error| self.write_error(disk_path, error))?;
        let digest =
            read_disk(&disk, size_bytes, size_bytes, None, progress).map_err(
                |error| match error {
                    CopyError::Read(error) | CopyError::Write(error) => {
                        self.write_error(disk_path, error)
                    }
                },
            )?;
        Ok((size_bytes, digest))
    }

    /// Looks at the copy, writes what was found beside it, and publishes all of it.
    fn describe(
        &self,
        draft: Draft,
        request: &ImportRequest,
        size_bytes: u64,
        digest: String,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageVersion, ImportError> {
        let disk_path = draft.path().join("disk.raw");
        let disk: Arc<dyn Block> =
            Arc::new(RawFile::open(&disk_path).map_err(io_error("open", &disk_path))?);
        let system = find_system(&disk, &request.source)?;
        drop(disk);
        let version = ImageVersion {
            image: request.name.clone(),
            // Set when it is published.
            version: 0,
            digest,
            size_bytes,
            partition: system.volume.partition,
            file_system: system.file_system,
            kernel_version: system.kernel_version,
            os_name: system.os_name,
            imported_unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let vmlinuz_path = draft.path().join("vmlinuz");
        std::fs::write(&vmlinuz_path, &system.vmlinuz)
            .map_err(|error| self.write_error(&vmlinuz_path, error))?;
        progress(Progress { step: Step::Sync, done_bytes: 0, total_bytes: size_bytes });
        let published =
            self.publish(draft, version, request.note.clone()).map_err(|error| match error {
                StoreError::Io { path, source, .. } if is_full(&source) => {
                    self.write_error(&path, source)
                }
                other => other.into(),
            })?;
        progress(Progress { step: Step::Sync, done_bytes: size_bytes, total_bytes: size_bytes });
        Ok(published)
    }

    fn check_room(&self, needed_bytes: u64) -> Result<(), ImportError> {
        let free_bytes = space(self.dir()).map_err(io_error("read", self.dir()))?.free_bytes;
        if free_bytes < needed_bytes {
            return Err(ImportError::NoRoom {
                path: self.dir().to_owned(),
                needed_bytes,
                free_bytes,
            });
        }
        Ok(())
    }

    fn write_error(&self, path: &Path, source: io::Error) -> ImportError {
        if is_full(&source) {
            ImportError::DiskFull { path: self.dir().to_owned() }
        } else {
            io_error("write", path)(source).into()
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn detect_format(source: &File, source_bytes: u64, path: &Path) -> Result<Format, ImportError> {
    let mut head = vec![0; source_bytes.min(HEAD_BYTES_MAX as u64) as usize];
    source
        .read_exact_at(&mut head, 0)
        .map_err(|source| ImportError::Source { path: path.to_owned(), source })?;
    detect(&head).map_err(|not_imported| match not_imported {
        NotImported::NoDisk { found, advice } => no_disk(path, found, advice),
        NotImported::Refused(why) => {
            ImportError::Refused { path: path.to_owned(), why: why.to_owned() }
        }
    })
}

fn no_disk(path: &Path, found: &str, advice: &'static str) -> ImportError {
    ImportError::NoDisk { path: path.to_owned(), found: found.to_owned(), advice }
}

/// The size of the disk that becomes of a source.
fn padded(bytes: u64, path: &Path) -> Result<u64, ImportError> {
    match bytes.checked_next_multiple_of(SIZE_UNIT_BYTES) {
        Some(0) => Err(no_disk(path, "empty", "")),
        Some(padded) if padded <= SIZE_BYTES_MAX => Ok(padded),
        _ => Err(ImportError::Refused {
            path: path.to_owned(),
            why: format!("it says that it has {bytes} bytes; {SIZE_BYTES_MAX} is the most"),
        }),
    }
}

fn new_disk(path: &Path) -> Result<File, StoreError> {
    File::create_new(path).map_err(io_error("make", path))
}
