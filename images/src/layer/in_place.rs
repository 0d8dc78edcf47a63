//! Small files in a layer's folder, of which most change while the layer is what it is.

use super::error::{LayerError, io_error};
use crate::folder::sync;
use crate::small_file::read_small;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// None of them is longer: the description of a layer takes 500 bytes, and 400 more for each snapshot.
const FILE_BYTES_MAX: u64 = 32 << 10;

/// What is in the file; `None` if it is missing.
///
/// # Errors
/// As [`read_small`].
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    read_small(path, FILE_BYTES_MAX)
}

/// What the text of a file says.
///
/// # Errors
/// It is not what was written (`InvalidData`, with a sentence for people).
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> io::Result<T> {
    if text.trim().is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is empty"));
    }
    let unfit = |_| io::Error::new(ErrorKind::InvalidData, "it is not what was written there");
    toml::from_str(text).map_err(unfit)
}

/// Keeps this in the file, durably. The file is always `file_bytes` long, a sector at most. The first time it gets its name when it is
/// complete; from then on it is overwritten in place: this needs no room on a full disk, and a power cut leaves the one content or the other.
pub(super) fn write<T: Serialize>(
    path: &Path,
    content: &T,
    file_bytes: usize,
) -> Result<(), LayerError> {
    let failed = io_error("write", path);
    let keep = || {
        let text = toml::to_string(content).map_err(io::Error::other)?;
        let mut bytes = text.into_bytes();
        bytes.resize(file_bytes - 1, b' ');
        bytes.push(b'\n');
        let there = fs::symlink_metadata(path);
        if there.is_ok_and(|there| there.is_file() && there.len() == file_bytes as u64) {
            return put(&OpenOptions::new().write(true).open(path)?, &bytes);
        }
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        put(&options.write(true).create_new(true).mode(0o600).open(&new)?, &bytes)?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), sync)
    };
    keep().map_err(failed)
}

fn put(file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}
