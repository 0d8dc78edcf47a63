//! Which files differ between two systems, by how much they are larger or smaller.

use crate::error::RootfsError;
use crate::ext4::Kind;
use crate::rootfs::Rootfs;
use std::collections::{HashMap, HashSet};
use std::io;

/// Files of one system that are compared; one with more is no system that machines boot.
const FILES_MAX: usize = 4_000_000;

/// Changes that are told, those of most bytes first.
const TOLD_MAX: usize = 25;

/// A file that one of two systems has, or both with other sizes or times.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileChange {
    /// From `/` on. What is not UTF-8 stands there as `�`.
    pub path: String,
    /// How long it was; `None`: the former system has none there.
    pub old_bytes: Option<u64>,
    /// How long it is.
    pub new_bytes: Option<u64>,
}

impl FileChange {
    fn difference(&self) -> u64 {
        self.new_bytes.unwrap_or(0).abs_diff(self.old_bytes.unwrap_or(0))
    }
}

/// What differs between the files of two systems. A file with several names differs under each of them, and counts once for how much
/// there is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileChanges {
    /// Files that only the later one has.
    pub n_added: u64,
    /// Files that only the former one has.
    pub n_removed: u64,
    /// Files that both have, with another size or time.
    pub n_changed: u64,
    /// How long all files of the former one are.
    pub old_bytes: u64,
    /// How long all files of the later one are.
    pub new_bytes: u64,
    /// Those that make most of the difference, at most 25.
    pub largest: Vec<FileChange>,
}

/// What is compared of a file.
#[derive(PartialEq, Eq)]
struct About {
    bytes: u64,
    modified_unix: i64,
}

/// Compares the files of two root file systems, without what is in them.
///
/// # Errors
/// One of them is no ext4, can't be read, or has more than four million files.
pub fn file_changes(old: &Rootfs, new: &Rootfs) -> Result<FileChanges, RootfsError> {
    let mut former = HashMap::new();
    let old_bytes = each_file(old, |path, about| {
        former.insert(path, about);
    })?;
    let (mut n_added, mut n_changed) = (0, 0);
    let mut largest = Vec::new();
    let new_bytes = each_file(new, |path, about| {
        let before = former.remove(&path);
        if before.as_ref() == Some(&about) {
            return;
        }
        *if before.is_some() { &mut n_changed } else { &mut n_added } += 1;
        let old_bytes = before.map(|before| before.bytes);
        largest.push(FileChange { path: shown(&path), old_bytes, new_bytes: Some(about.bytes) });
        keep_largest(&mut largest, 4 * TOLD_MAX);
    })?;
    let n_removed = former.len() as u64;
    for (path, before) in former {
        let old_bytes = Some(before.bytes);
        largest.push(FileChange { path: shown(&path), old_bytes, new_bytes: None });
        keep_largest(&mut largest, 4 * TOLD_MAX);
    }
    keep_largest(&mut largest, 0);
    Ok(FileChanges { n_added, n_removed, n_changed, old_bytes, new_bytes, largest })
}

/// Returns how long all of them are.
fn each_file(root: &Rootfs, mut file: impl FnMut(Vec<u8>, About)) -> Result<u64, RootfsError> {
    let (mut n_files, mut all_bytes) = (0, 0);
    let mut seen = HashSet::new();
    root.walk(&mut |node, _| {
        if node.kind != Kind::File {
            return Ok(());
        }
        n_files += 1;
        if n_files > FILES_MAX {
            return Err(io::Error::other("it has more than four million files"));
        }
        if node.n_links < 2 || seen.insert(node.inode) {
            all_bytes += node.size_bytes;
        }
        let about = About { bytes: node.size_bytes, modified_unix: node.modified_unix };
        file(node.path.clone(), about);
        Ok(())
    })?;
    Ok(all_bytes)
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// Leaves those of most bytes, in this order, once there are more than so many.
fn keep_largest(changes: &mut Vec<FileChange>, more_than: usize) {
    if changes.len() > more_than {
        let order = |it: &FileChange| (std::cmp::Reverse(it.difference()), it.path.clone());
        changes.sort_by_cached_key(order);
        changes.truncate(TOLD_MAX);
    }
}
