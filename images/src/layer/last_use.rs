//! `last-use.toml` in a layer's folder: how far the layer has come, so that it can be told from an older copy of it.

use super::error::LayerError;
use super::in_place;
use model::BootId;
use std::io;
use std::path::Path;

/// The file is always that long.
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
/// As [`in_place::read`] and [`in_place::parse`].
pub(super) fn read(folder: &Path) -> io::Result<Option<(u64, BootId)>> {
    // A power cut may have left an empty file to an earlier release, before it was ever written.
    let text = in_place::read(&path(folder))?.filter(|text| !text.trim().is_empty());
    let content: Option<Content> = text.map(|text| in_place::parse(&text)).transpose()?;
    Ok(content.map(|content| (content.count, content.boot)))
}

/// Keeps count and boot in the layer's folder, durably.
pub(super) fn write(folder: &Path, count: u64, boot: BootId) -> Result<(), LayerError> {
    in_place::write(&path(folder), &Content { count, boot }, FILE_BYTES)
}

pub(super) fn path(folder: &Path) -> std::path::PathBuf {
    folder.join("last-use.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;

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
