//! Sending a version.

use super::error::StreamError;
use super::header::{FileAbout, From, Header, is_file_name};
use super::{BLOCK_BYTES, DIFF, FILE_BYTES_MAX, FILES_MAX, MAGIC};
use crate::digest::{Digest, PIECE_BYTES};
use crate::error::{StoreError, io_error};
use crate::progress::{Progress, Step};
use crate::sparse::hole_at;
use crate::stop::Stop;
use crate::store::{Description, Store};
use model::ImageName;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

/// How strongly it is compressed: more takes twice the time for some percents.
const COMPRESSION: i32 = 3;

/// What to send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// The image.
    pub image: ImageName,
    /// Its version.
    pub version: u32,
    /// The version that the other side has; `None`: it has none of this image.
    pub from: Option<u32>,
    /// Where of the disk to begin: what is before that has come already.
    pub at_bytes: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the records of the disk, before they were compressed.
    pub diff_bytes: u64,
    /// Bytes of all, as they went out.
    pub stream_bytes: u64,
}

/// Blocks that differ in no way, are empty now, or have other content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Zero,
    Data,
}

impl Store {
    /// Sends a version as a stream.
    ///
    /// # Errors
    /// See [`StreamError`]. What was sent then is no stream that anybody takes.
    pub fn send<W: Write>(
        &self,
        request: &SendRequest,
        out: W,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Sent, StreamError> {
        let sending = Sending::new(self, request)?;
        let mut counted = Counted { out, n_bytes: 0 };
        let encoder = zstd::Encoder::new(&mut counted, COMPRESSION).map_err(StreamError::Write)?;
        let mut out = Hashing { out: encoder, hasher: blake3::Hasher::new() };
        let diff_bytes = sending.write(&mut out, stop, progress)?;
        let digest = out.hasher.finalize();
        let mut encoder = out.out;
        encoder.write_all(digest.as_bytes()).map_err(StreamError::Write)?;
        encoder.finish().and_then(|out| out.flush()).map_err(StreamError::Write)?;
        Ok(Sent { diff_bytes, stream_bytes: counted.n_bytes })
    }

    /// Sends only the records of a version's disk, as Ceph's `rbd import-diff` takes them.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_diff<W: Write>(
        &self,
        request: &SendRequest,
        mut out: W,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64, StreamError> {
        let n_bytes = Sending::new(self, request)?.write_diff(&mut out, stop, progress)?;
        out.flush().map_err(StreamError::Write)?;
        Ok(n_bytes)
    }
}

/// A version that is sent.
struct Sending {
    header: Header,
    disk_path: PathBuf,
    disk: Disk,
    base: Option<Disk>,
    files: Vec<PathBuf>,
}

struct Disk {
    file: File,
    size_bytes: u64,
}

impl Disk {
    fn open(store: &Store, description: &Description) -> Result<(PathBuf, Self), StreamError> {
        let model::ImageVersion { image, version, size_bytes, .. } = &description.version;
        let path = store.disk_path(image, *version);
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let found = file.metadata().map_err(io_error("read", &path))?.len();
        if found != *size_bytes {
            let why = format!("it has {found} bytes instead of {size_bytes}");
            return Err(StoreError::Damaged { path, why }.into());
        }
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        Ok((path, Self { file, size_bytes: *size_bytes }))
    }

    /// How much is empty from here on, as far as that is known without reading.
    fn empty_at(&self, offset: u64, length: u64) -> io::Result<u64> {
        if offset >= self.size_bytes {
            return Ok(length);
        }
        let there = length.min(self.size_bytes - offset);
        let hole = hole_at(&self.file, offset, there)?;
        Ok(if hole == there { length } else { hole })
    }

    /// Reads a piece; behind the end there are zeroes.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let there = self.size_bytes.saturating_sub(offset).min(bytes.len() as u64) as usize;
        bytes[there..].fill(0);
        self.file.read_exact_at(&mut bytes[..there], offset)
    }
}

impl Sending {
    fn new(store: &Store, request: &SendRequest) -> Result<Self, StreamError> {
        let SendRequest { image, version, from, at_bytes } = request;
        let description = store.description(image, *version)?;
        let (disk_path, disk) = Disk::open(store, &description)?;
        if *at_bytes > disk.size_bytes || !at_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let size = disk.size_bytes;
            let told = format!("the disk has {size} bytes, and can't be sent from {at_bytes} on");
            return Err(StreamError::Flawed(told));
        }
        let (mut base, mut from_about) = (None, None);
        if let Some(from) = from {
            let description = store.description(image, *from)?;
            let (digest, size_bytes) =
                (description.version.digest.clone(), description.version.size_bytes);
            from_about = Some(From { version: *from, digest, size_bytes });
            base = Some(Disk::open(store, &description)?.1);
        }
        let (mut files, paths) = files_beside(store, image, *version)?;
        if let Some(from) = from {
            let before = files_beside(store, image, *from)?.0;
            let is_there = |file: &FileAbout| {
                before.iter().any(|it| it.name == file.name && it.blake3 == file.blake3)
            };
            files.iter_mut().for_each(|file| file.is_as_before = is_there(file));
        }
        let allocated = disk.file.metadata().map_err(io_error("read", &disk_path))?.blocks() * 512;
        let files_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let header = Header {
            at_bytes: *at_bytes,
            data_bytes: allocated.min(disk.size_bytes).saturating_add(files_bytes),
            from: from_about,
            files,
            description,
        };
        Ok(Self { header, disk_path, disk, base, files: paths })
    }

    fn write(
        &self,
        out: &mut impl Write,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64, StreamError> {
        let header = self.header.encode()?;
        out.write_all(MAGIC).map_err(StreamError::Write)?;
        out.write_all(&(header.len() as u32).to_le_bytes()).map_err(StreamError::Write)?;
        out.write_all(&header).map_err(StreamError::Write)?;
        for (path, about) in self.files.iter().zip(&self.header.files) {
            if about.is_as_before {
                continue;
            }
            let bytes = read_file(path)?;
            if blake3::hash(&bytes).to_hex().as_str() != about.blake3 {
                let told = format!("{} changed while it was sent", path.display());
                return Err(StreamError::Flawed(told));
            }
            out.write_all(&bytes).map_err(StreamError::Write)?;
        }
        self.write_diff(out, stop, progress)
    }

    /// Returns how many bytes that were.
    fn write_diff(
        &self,
        out: &mut impl Write,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64, StreamError> {
        let version = &self.header.description.version;
        let mut out = Counted { out, n_bytes: 0 };
        let write = |out: &mut Counted<_>, parts: &[&[u8]]| {
            parts.iter().try_for_each(|part| out.write_all(part)).map_err(StreamError::Write)
        };
        write(&mut out, &[DIFF])?;
        let snapshots = [
            (b"f", self.header.from.as_ref().map(|from| from.version)),
            (b"t", Some(version.version)),
        ];
        for (tag, number) in snapshots {
            let Some(number) = number else { continue };
            let name = format!("v{number}");
            write(&mut out, &[tag, &(name.len() as u32).to_le_bytes(), name.as_bytes()])?;
        }
        write(&mut out, &[b"s", &version.size_bytes.to_le_bytes()])?;
        let is_unchanged =
            self.header.from.as_ref().is_some_and(|from| from.digest == version.digest);
        if !is_unchanged {
            self.write_records(&mut out, stop, progress)?;
        }
        write(&mut out, &[b"e"])?;
        Ok(out.n_bytes)
    }

    fn write_records<W: Write>(
        &self,
        out: &mut Counted<W>,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), StreamError> {
        let Self { disk, base, disk_path, .. } = self;
        let total_bytes = disk.size_bytes;
        let read_error = |error| StreamError::from(io_error("read", disk_path)(error));
        // Who goes on does not read again what has come already.
        let mut digest = (self.header.at_bytes == 0).then(Digest::new);
        let (mut piece, mut former) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut position = self.header.at_bytes;
        while position < total_bytes {
            progress(Progress { step: Step::Copy, done_bytes: position, total_bytes });
            if stop.is_stopping() {
                return Err(StreamError::Stopped);
            }
            let left = total_bytes - position;
            let mut empty = disk.empty_at(position, left).map_err(read_error)?;
            if let Some(base) = base.as_ref().filter(|_| empty > 0) {
                empty = base.empty_at(position, empty).map_err(read_error)?;
            }
            let n_empty = empty / PIECE_BYTES as u64;
            if n_empty > 0 {
                let count = digest.as_ref().map_or(n_empty, |it| it.zeroes_max().min(n_empty));
                if let Some(digest) = &mut digest {
                    digest.zeroes(count);
                }
                position += count * PIECE_BYTES as u64;
                continue;
            }
            let length = left.min(PIECE_BYTES as u64) as usize;
            let bytes = &mut piece[..length];
            disk.read(bytes, position).map_err(read_error)?;
            if let Some(digest) = &mut digest {
                digest.piece(bytes);
            }
            let before = base.as_ref().map(|base| base.read(&mut former[..length], position));
            let before = before.transpose().map_err(read_error)?.map(|()| &former[..length]);
            write_piece(out, bytes, before, position).map_err(StreamError::Write)?;
            position += length as u64;
        }
        let version = &self.header.description.version;
        let found = digest.map(|digest| digest.finish().to_hex());
        if found.is_some_and(|found| found.as_str() != version.digest) {
            return Err(StreamError::Flawed(format!(
                "the content of {} has changed since it was imported: bootlace image verify {} tells, and importing the same disk \
                 again puts it back",
                disk_path.display(),
                version.image
            )));
        }
        progress(Progress { step: Step::Copy, done_bytes: total_bytes, total_bytes });
        Ok(())
    }
}

/// Writes the records of a piece.
fn write_piece(
    out: &mut impl Write,
    bytes: &[u8],
    before: Option<&[u8]>,
    offset: u64,
) -> io::Result<()> {
    let change_at = |at: usize| {
        let block = &bytes[at..bytes.len().min(at + BLOCK_BYTES)];
        let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
        match before {
            Some(before) if before[at..at + block.len()] == *block => Change::None,
            None if is_zero(block) => Change::None,
            Some(_) if is_zero(block) => Change::Zero,
            _ => Change::Data,
        }
    };
    let mut start = 0;
    while start < bytes.len() {
        let change = change_at(start);
        let mut end = start + BLOCK_BYTES;
        while end < bytes.len() && change_at(end) == change {
            end += BLOCK_BYTES;
        }
        let run = &bytes[start..end.min(bytes.len())];
        let tag = match change {
            Change::None => None,
            Change::Zero => Some(b'z'),
            Change::Data => Some(b'w'),
        };
        if let Some(tag) = tag {
            out.write_all(&[tag])?;
            out.write_all(&(offset + start as u64).to_le_bytes())?;
            out.write_all(&(run.len() as u64).to_le_bytes())?;
        }
        if change == Change::Data {
            out.write_all(run)?;
        }
        start = end;
    }
    Ok(())
}

/// The files that a version has beside its disk and its description.
fn files_beside(
    store: &Store,
    image: &ImageName,
    version: u32,
) -> Result<(Vec<FileAbout>, Vec<PathBuf>), StreamError> {
    let folder = store.version_dir(image, version);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
        let entry = entry.map_err(io_error("list", &folder))?;
        let is_file = entry.file_type().map_err(io_error("read", &folder))?.is_file();
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_file && is_file_name(&name) {
            names.push(name);
        }
    }
    names.sort();
    if names.len() > FILES_MAX {
        let told = format!("{} has {} files, which are too many", folder.display(), names.len());
        return Err(StreamError::Flawed(told));
    }
    let (mut files, mut paths) = (Vec::new(), Vec::new());
    for name in names {
        let path = folder.join(&name);
        let bytes = read_file(&path)?;
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        let size_bytes = bytes.len() as u64;
        files.push(FileAbout { name, size_bytes, blake3, is_as_before: false });
        paths.push(path);
    }
    Ok((files, paths))
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, StreamError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|it| it.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(io_error("read", path))?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(StreamError::Flawed(format!("{} is too large to be sent", path.display()))),
        false => Ok(bytes),
    }
}

struct Counted<W> {
    out: W,
    n_bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.n_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
