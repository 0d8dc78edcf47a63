//! Image versions as files that other programs read.

mod qcow2;
mod tar;

use crate::copy::{CopyError, Read};
use crate::error::{Bytes, StoreError, io_error};
use crate::progress::{Progress, Step};
use crate::stop::Stop;
use crate::store::Store;
use model::{FileSystem, ImageName, ImageVersion};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

/// As what a version is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// The disk as it is, with holes where it is empty.
    Raw,
    /// The disk for QEMU and its kin.
    Qcow2,
    /// The files of the root file system.
    Tar,
}

impl ExportFormat {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] =
        [("raw", Self::Raw), ("qcow2", Self::Qcow2), ("tar", Self::Tar)];
}

/// Where it goes.
pub enum ExportTo<'a> {
    /// A new, empty file.
    File(&'a File),
    /// Somebody who takes it from start to end.
    Pipe(&'a mut dyn Write),
}

/// A version was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read is not what was imported.
    #[error(
        "the content of {path} has changed since it was imported: importing the same disk again puts it back"
    )]
    Flawed {
        /// The disk.
        path: PathBuf,
    },
    /// It can't be written.
    #[error("it can't be written")]
    Write(#[source] io::Error),
    /// It would not fit.
    #[error("it needs up to {}, and {} are free there", Bytes(*needed_bytes), Bytes(*free_bytes))]
    NoRoom {
        /// What is needed at most.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The format has its parts in no order in which a pipe could take them.
    #[error("qcow2 can't be written to a pipe: name a file, or choose raw or tar")]
    NoPipe,
    /// Its files can't be told.
    #[error("its root file system can't be written as tar: {0}; raw and qcow2 hold it as it is")]
    Files(String),
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
}

impl Store {
    /// Exports a version. It is compared with its digest on the way.
    ///
    /// # Errors
    /// See [`ExportError`]. What was written then is of no use.
    pub fn export(
        &self,
        image: &ImageName,
        version: u32,
        (format, to): (ExportFormat, ExportTo<'_>),
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageVersion, ExportError> {
        let described = self.version(image, version)?;
        let path = self.disk_path(image, version);
        let disk = File::open(&path).map_err(io_error("open", &path))?;
        let about = disk.metadata().map_err(io_error("read", &path))?;
        let (size_bytes, found) = (described.size_bytes, about.len());
        if found != size_bytes {
            let why = format!("it has {found} bytes instead of {size_bytes}");
            return Err(StoreError::Damaged { path, why }.into());
        }
        if format == ExportFormat::Tar {
            self.export_files(&described, to, stop, progress)?;
            return Ok(described);
        }
        if let ExportTo::File(file) = to {
            // Holes stay holes; tables of qcow2 are less than a thousandth.
            let taken = (about.blocks() * 512).min(size_bytes);
            check_room(file, taken.saturating_add(taken / 1000))?;
        }
        let from_copy = |error| match error {
            CopyError::Stopped => ExportError::Stopped,
            CopyError::Read(error) => io_error("read", &path)(error).into(),
            CopyError::Write(error) => ExportError::Write(error),
        };
        let digest = match (format, to) {
            (ExportFormat::Raw, ExportTo::File(target)) => {
                let read = Read { source: &disk, size_bytes, padded_bytes: size_bytes };
                read.run(Some(target), stop, progress).map_err(from_copy)?
            }
            (ExportFormat::Raw, ExportTo::Pipe(out)) => {
                pipe(&disk, size_bytes, out, stop, progress).map_err(from_copy)?
            }
            (ExportFormat::Qcow2 | ExportFormat::Tar, ExportTo::File(target)) => {
                qcow2::write(&disk, size_bytes, target, stop, progress).map_err(from_copy)?
            }
            (ExportFormat::Qcow2 | ExportFormat::Tar, ExportTo::Pipe(_)) => {
                return Err(ExportError::NoPipe);
            }
        };
        match digest == described.digest {
            true => Ok(described),
            false => Err(ExportError::Flawed { path }),
        }
    }
}

impl Store {
    fn export_files(
        &self,
        version: &ImageVersion,
        to: ExportTo<'_>,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ExportError> {
        if version.file_system != FileSystem::Ext4 {
            let told = format!("it is {}, and only ext4 is read so far", version.file_system);
            return Err(ExportError::Files(told));
        }
        let root = self.rootfs(&version.image, version.version)?;
        let path = self.disk_path(&version.image, version.version);
        let about = std::fs::metadata(&path).map_err(io_error("read", &path))?;
        // All else than files is a few percents of it.
        let taken = (about.blocks() * 512).min(version.size_bytes);
        match to {
            ExportTo::File(file) => {
                check_room(file, taken)?;
                let mut out = BufWriter::with_capacity(1 << 20, file);
                tar::write(&root, taken, &mut out, stop, progress)
            }
            ExportTo::Pipe(out) => tar::write(&root, taken, out, stop, progress),
        }
    }
}

fn check_room(file: &File, needed_bytes: u64) -> Result<(), ExportError> {
    let room = rustix::fs::fstatvfs(file).map_err(|error| ExportError::Write(error.into()))?;
    let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
    match free_bytes < needed_bytes {
        true => Err(ExportError::NoRoom { needed_bytes, free_bytes }),
        false => Ok(()),
    }
}

/// Writes a disk, holes and all.
fn pipe(
    disk: &File,
    size_bytes: u64,
    out: &mut dyn Write,
    stop: &Stop,
    progress: &mut dyn FnMut(Progress),
) -> Result<String, CopyError> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    let mut position = 0;
    while position < size_bytes {
        progress(Progress { step: Step::Copy, done_bytes: position, total_bytes: size_bytes });
        if stop.is_stopping() {
            return Err(CopyError::Stopped);
        }
        let bytes = &mut piece[..(size_bytes - position).min(1 << 20) as usize];
        disk.read_exact_at(bytes, position).map_err(CopyError::Read)?;
        hasher.update(bytes);
        out.write_all(bytes).map_err(CopyError::Write)?;
        position += bytes.len() as u64;
    }
    out.flush().map_err(CopyError::Write)?;
    Ok(hasher.finalize().to_hex().to_string())
}
