//! What earlier builds compressed: that is most of the work, and modules rarely change.

use crate::codec::{self, Effort};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Length of the digest that each file starts with.
const DIGEST_SIZE: usize = 32;

/// A folder with one file for each module, named by the digest of what it decodes to.
///
/// The cache never changes what is built. Nothing removes files that are no longer used (15 MB for each kernel):
/// the folder may be emptied at any time.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The compressed data, from the folder if it is there.
    pub(crate) fn compress(&self, plain: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
        let path = self.folder.join(name(plain, effort));
        if let Some(compressed) = read(&path) {
            return Ok(compressed);
        }
        let compressed = codec::compress(plain, effort)?;
        // Who may not write here, or has a full disk, waits longer, and still gets his initrd.
        let _ = self.write(&path, &compressed);
        Ok(compressed)
    }

    /// Puts the file there as a whole, after its digest.
    fn write(&self, path: &Path, compressed: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let new = path.with_extension(format!("new{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(blake3::hash(compressed).as_bytes())
            .and_then(|()| file.write_all(compressed))
            .and_then(|()| fs::rename(&new, path))
            .inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

/// `None` if there is no such file, or a damaged one.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::read(path).ok()?;
    let (digest, compressed) = file.split_at_checked(DIGEST_SIZE)?;
    if blake3::hash(compressed).as_bytes() != digest {
        return None;
    }
    file.drain(..DIGEST_SIZE);
    Some(file)
}

/// The name of what this content is compressed to. The compressor's version belongs to it: another one gives
/// other bytes.
fn name(plain: &[u8], effort: Effort) -> String {
    format!("{}.{}", blake3::hash(plain).to_hex(), codec::compressor(effort))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_compressed_once_and_damage_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(&root.path().join("a/b"));
        let plain = b"module".repeat(100);
        let expected = codec::compress(&plain, Effort::Quick).unwrap();
        assert_eq!(cache.compress(&plain, Effort::Quick).unwrap(), expected);
        let files = || fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(files().count(), 1);
        let path = files().next().unwrap();
        let stored = fs::read(&path).unwrap();
        // Proof that the file is used: another content with a right digest is believed.
        fs::write(&path, [blake3::hash(b"x").as_bytes(), &b"x"[..]].concat()).unwrap();
        assert_eq!(cache.compress(&plain, Effort::Quick).unwrap(), b"x");
        let mut wrong = stored.clone();
        wrong[DIGEST_SIZE + 3] ^= 1;
        for damaged in [&wrong[..], &stored[..stored.len() - 1], &stored[..7], b""] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.compress(&plain, Effort::Quick).unwrap(), expected);
            assert_eq!(fs::read(&path).unwrap(), stored, "it is made again");
        }
        assert_eq!(files().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_time_only() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let cache = Cache::new(&root.path().join("file/modules"));
        assert_eq!(
            cache.compress(b"module", Effort::Quick).unwrap(),
            codec::compress(b"module", Effort::Quick).unwrap()
        );
    }
}
