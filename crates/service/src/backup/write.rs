//! Writing a backup.

use super::manifest::Manifest;
use super::{BackupError, MANIFEST};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// Zstandard's own default: a database shrinks to a third, as fast as disks read.
const LEVEL: i32 = 3;

/// Size and BLAKE3 of a file.
///
/// # Errors
/// It can't be read.
pub fn digest(path: &Path) -> Result<(u64, String), BackupError> {
    let read = || -> io::Result<_> {
        let mut hash = blake3::Hasher::new();
        let size_bytes = io::copy(&mut File::open(path)?, &mut hash)?;
        Ok((size_bytes, hash.finalize().to_hex().to_string()))
    };
    read().map_err(failed("read", &path.display()))
}

/// Writes a backup of these files, which stand beside the manifest's in the same order. `progress` hears how many bytes
/// are written.
///
/// # Errors
/// A file can't be read or has changed since its digest was taken, or the backup can't be written.
pub fn write_backup<W: Write>(
    out: W,
    manifest: &Manifest,
    sources: &[impl AsRef<Path>],
    mut progress: impl FnMut(u64),
) -> Result<W, BackupError> {
    let failed_out = || failed("write", &"the backup");
    let encoder = zstd::stream::write::Encoder::new(out, LEVEL).map_err(failed_out())?;
    let mut tar = Builder::new(encoder);
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| failed("write", &MANIFEST)(io::Error::other(error)))?;
    let entry = header(MANIFEST, text.len() as u64, manifest.made_unix).map_err(failed_out())?;
    tar.append(&entry, &text[..]).map_err(failed_out())?;
    let mut written = 0;
    for (file, source) in manifest.files.iter().zip(sources) {
        let source = source.as_ref();
        let read = File::open(source).map_err(failed("read", &source.display()))?;
        let mut hash = blake3::Hasher::new();
        let counted = Counted {
            inner: read.take(file.size_bytes),
            hash: &mut hash,
            written: &mut written,
            progress: &mut progress,
        };
        let entry = header(&file.name, file.size_bytes, manifest.made_unix);
        tar.append(&entry.map_err(failed_out())?, counted).map_err(failed_out())?;
        if hash.finalize().to_hex().as_str() != file.blake3 {
            let why = io::Error::other("it has changed meanwhile: try again");
            return Err(failed("save", &source.display())(why));
        }
    }
    let encoder = tar.into_inner().map_err(failed_out())?;
    encoder.finish().map_err(failed_out())
}

fn header(name: &str, size_bytes: u64, made_unix: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_mtime(made_unix);
    header.set_cksum();
    Ok(header)
}

struct Counted<'a, R, P> {
    inner: R,
    hash: &'a mut blake3::Hasher,
    written: &'a mut u64,
    progress: &'a mut P,
}

impl<R: Read, P: FnMut(u64)> Read for Counted<'_, R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n_bytes]);
        *self.written += n_bytes as u64;
        (self.progress)(*self.written);
        Ok(n_bytes)
    }
}

fn failed(
    action: &'static str,
    name: &dyn std::fmt::Display,
) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let name = name.to_string();
    move |source| BackupError::Io { action, name, source }
}
