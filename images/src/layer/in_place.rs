//! Small files in a layer's folder that change while the layer is what it is.

use super::error::{LayerError, io_error};
use crate::folder::sync;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// What is in the file; `None` if it is missing or empty.
///
/// # Errors
/// The file can't be read (`Err` of the operating system), or is not what was written (`InvalidData`).
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.message().to_owned()))
}

/// Keeps this in the file, durably. The file is always `file_bytes` long, a sector at most, and is overwritten in place:
/// this needs no room on a full disk, and a power cut leaves the one content or the other.
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
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), sync)
    };
    keep().map_err(failed)
}
