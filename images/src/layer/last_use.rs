//! `last-use.toml` in a layer's folder: how far the layer has come, so that it can be told from an older copy of it.

use super::error::{LayerError, io_error};
use crate::folder::sync;
use model::BootId;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The file is always that long, and is overwritten in place: this needs no room on a full disk, and a power cut leaves
/// the one content or the other.
const FILE_BYTES: usize = 128;

/// A layer as it was when somebody opened it last.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LastUse {
    /// Its identity, as in its description.
    pub id: String,
    /// How often its files were opened since it was made; layers of before December 2026 begin at 0.
    pub count: u64,
    /// The boot in which that was.
    pub boot: BootId,
}

impl LastUse {
    /// Whether this can't be the layer that was `noted` when it was opened: it is an older copy, or another layer.
    pub fn is_not(&self, noted: &Self) -> bool {
        self.id != noted.id || self.count < noted.count
    }
}

/// For people: `id 9215c0de…, boot 4, opened 7 times`.
impl std::fmt::Display for LastUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id: String = self.id.chars().take(8).collect();
        let times = if self.count == 1 { "time" } else { "times" };
        write!(f, "id {id}…, boot {}, reopened {} {times}", self.boot, self.count)
    }
}

/// What the file holds. What a later Bootlace adds is left out.
#[derive(serde::Serialize, serde::Deserialize)]
struct Content {
    count: u64,
    boot: BootId,
}

/// Count and boot from the layer's folder; `None` if it was never opened again, or by an earlier Bootlace only.
///
/// # Errors
/// The file can't be read (`Err` of the operating system), or is not what was written (`InvalidData`).
pub(super) fn read(folder: &Path) -> io::Result<Option<(u64, BootId)>> {
    let text = match fs::read_to_string(path(folder)) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let content: Content = toml::from_str(&text)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.message().to_owned()))?;
    Ok(Some((content.count, content.boot)))
}

/// Keeps count and boot in the layer's folder, durably.
pub(super) fn write(folder: &Path, count: u64, boot: BootId) -> Result<(), LayerError> {
    let path = path(folder);
    let failed = io_error("write", &path);
    let content = Content { count, boot };
    let keep = || {
        let text = toml::to_string(&content).map_err(io::Error::other)?;
        let mut bytes = text.into_bytes();
        bytes.resize(FILE_BYTES - 1, b' ');
        bytes.push(b'\n');
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        sync(folder)
    };
    keep().map_err(failed)
}

pub(super) fn path(folder: &Path) -> std::path::PathBuf {
    folder.join("last-use.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_copy_and_another_layer_are_told_from_the_one_that_was_noted() {
        let of = |id: &str, count| LastUse { id: id.into(), count, boot: 4 };
        let noted = of("9215", 3);
        assert!(of("9215", 2).is_not(&noted), "an older copy");
        assert!(of("bb4a", 7).is_not(&noted), "another layer");
        assert!(!of("9215", 3).is_not(&noted), "it, or a copy in which nobody has written");
        assert!(!of("9215", 4).is_not(&noted), "the server died before it noted that");
    }

    #[test]
    fn what_is_written_is_read_and_never_longer_or_shorter() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        for (count, boot) in [(u64::MAX >> 1, u64::MAX >> 1), (1, 7)] {
            write(folder.path(), count, boot).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Some((count, boot)));
            let length = fs::metadata(path(folder.path())).unwrap().len();
            assert_eq!(length, FILE_BYTES as u64);
        }
        fs::write(path(folder.path()), "count = what\n").unwrap();
        assert_eq!(read(folder.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
