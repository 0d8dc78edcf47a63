//! A file system that is only written down.

use super::tree::Files;
use crate::entry::{Entry, EntryKind};
use crate::error::RootfsError;
use std::collections::{BTreeMap, BTreeSet};

/// Only root reads files whose names end so.
const PRIVATE: &str = ".nmconnection";

/// A file system without a disk, for tests and fuzzing: a link is a file whose content is `-> TARGET`, absolute; a folder ends with `/`.
pub(super) struct Planted(BTreeMap<String, Vec<u8>>);

impl Planted {
    pub(super) fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self(files)
    }

    fn target(&self, path: &str) -> Option<String> {
        let bytes = self.0.get(path)?.strip_prefix(b"-> ")?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn resolve(&self, path: &str) -> Option<String> {
        let mut path = path.trim_end_matches("/.").to_owned();
        for _ in 0..8 {
            // Links of folders, too.
            let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
            let mut ends: Vec<usize> = ends.chain([path.len()]).collect();
            ends.dedup();
            let found = ends
                .iter()
                .find_map(|&end| Some((self.target(&path[..end])?, path[end..].to_owned())));
            match found {
                Some((target, rest)) => path = format!("{target}{rest}"),
                None => return Some(path),
            }
        }
        None
    }

    fn is_folder(&self, path: &str) -> bool {
        let start = format!("{}/", path.trim_end_matches('/'));
        self.0.keys().any(|other| other.starts_with(&start))
    }
}

impl Files for Planted {
    fn read_at_most(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        let missing = || RootfsError::NotFound(path.to_owned());
        let real = self.resolve(path).ok_or_else(missing)?;
        if self.is_folder(&real) {
            return Err(RootfsError::NoFile { path: path.to_owned(), why: "it is a folder" });
        }
        let bytes = self.0.get(&real).ok_or_else(missing)?;
        match bytes.len() as u64 > bytes_max {
            true => Err(RootfsError::Read { path: real, why: "it is too long".to_owned() }),
            false => Ok(bytes.clone()),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        let real = self.resolve(path).unwrap_or_default();
        let start = format!("{real}/");
        let inside = self.0.keys().filter_map(|other| other.strip_prefix(&start));
        let names: BTreeSet<&str> = inside
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .collect();
        let entry = |name: &str| {
            let path = format!("{start}{name}");
            let kind = match () {
                () if self.is_folder(&path) => EntryKind::Folder,
                () if self.target(&path).is_some() => EntryKind::Link,
                () => EntryKind::File,
            };
            Entry { name: name.to_owned(), kind }
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        let Some(real) = self.resolve(path) else { return Ok(false) };
        let needs_folder = path.ends_with("/.");
        Ok(self.is_folder(&real) || !needs_folder && self.0.contains_key(&real))
    }

    fn is_for_all(&self, path: &str) -> Result<bool, RootfsError> {
        Ok(!path.ends_with(PRIVATE))
    }

    fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        match self.exists(path)? {
            true => self.resolve(path).ok_or_else(|| RootfsError::NotFound(path.to_owned())),
            false => Err(RootfsError::NotFound(path.to_owned())),
        }
    }
}
