//! Files of a file system whose reader knows folders, files and links, and follows none.

use super::{CheckError, Files};
use crate::entry::{Entry, EntryKind};
use crate::error::RootfsError;
use crate::stop::Stop;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Links on the way to something, as in Linux.
const LINKS_MAX: usize = 40;
/// Longest path, as in Linux.
const PATH_BYTES_MAX: usize = 4096;
/// Folders inside folders that a look at all of them follows: no system has so many, and a circle has no end.
const DEPTH_MAX: usize = 256;
/// Names of folders that are kept, since what is looked for lies close together.
const KEPT_NAMES_MAX: usize = 200_000;
/// Folders of a file system that are looked at.
const FOLDERS_MAX: usize = 10_000_000;

/// What a reader can do: paths begin with `/`, and nothing on them is a link, as far as they were listed by it.
pub(super) trait Reader {
    /// The entries of a folder, without `.` and `..`; names that are no UTF-8 are left out.
    fn folder(&mut self, path: &str) -> Result<Vec<Entry>, Trouble>;
    /// The content of a file, if it has no more bytes.
    fn file(&mut self, path: &str, bytes_max: u64) -> Result<Vec<u8>, Trouble>;
    /// Where a link leads.
    fn link(&mut self, path: &str) -> Result<Vec<u8>, Trouble>;
}

/// Why a reader can't read something, for people.
pub(super) struct Trouble(pub(super) String);

/// A file system, and what was seen of it.
pub(super) struct Tree<R> {
    reader: RefCell<R>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    folders: HashMap<String, Rc<Vec<Entry>>>,
    n_names: usize,
}

/// Where a path leads.
enum Place {
    At(String, EntryKind),
    /// To nothing; or a part of it is no folder, or links run in circles.
    Nowhere(&'static str),
}

const NOT_THERE: &str = "it is not there";

impl<R: Reader> Tree<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader: RefCell::new(reader), seen: RefCell::default() }
    }

    fn folder(&self, path: &str) -> Result<Rc<Vec<Entry>>, RootfsError> {
        if let Some(known) = self.seen.borrow().folders.get(path) {
            return Ok(Rc::clone(known));
        }
        let entries = self.reader.borrow_mut().folder(path).map_err(error(path))?;
        let entries = Rc::new(sorted(entries));
        let mut seen = self.seen.borrow_mut();
        if seen.n_names > KEPT_NAMES_MAX {
            *seen = Seen::default();
        }
        seen.n_names += entries.len() + 1;
        seen.folders.insert(path.to_owned(), Rc::clone(&entries));
        Ok(entries)
    }

    /// Follows a path, and the links on it.
    fn find(&self, path: &str) -> Result<Place, RootfsError> {
        let mut at = String::new();
        let mut kind = EntryKind::Folder;
        // The next part comes last.
        let mut parts: Vec<String> = parts_of(path);
        let mut n_links = 0;
        while let Some(part) = parts.pop() {
            if kind != EntryKind::Folder {
                return Ok(Place::Nowhere("something on the way to it is no folder"));
            }
            if part == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let entries = self.folder(if at.is_empty() { "/" } else { &at })?;
            let found = entries.binary_search_by(|entry| entry.name.as_str().cmp(&part));
            let Some(entry) = found.ok().and_then(|index| entries.get(index)) else {
                return Ok(Place::Nowhere(NOT_THERE));
            };
            let next = format!("{at}/{part}");
            if entry.kind != EntryKind::Link {
                (at, kind) = (next, entry.kind);
                continue;
            }
            n_links += 1;
            if n_links > LINKS_MAX {
                return Ok(Place::Nowhere("its links run in circles"));
            }
            let target = self.reader.borrow_mut().link(&next).map_err(error(&next))?;
            let Ok(target) = String::from_utf8(target) else {
                let why = "it leads to a name that is not UTF-8".to_owned();
                return Err(RootfsError::Read { path: next, why });
            };
            if target.is_empty() {
                return Ok(Place::Nowhere(NOT_THERE));
            }
            if target.starts_with('/') {
                at.clear();
            }
            parts.extend(parts_of(&target));
            if parts.iter().map(|part| part.len() + 1).sum::<usize>() > PATH_BYTES_MAX {
                return Ok(Place::Nowhere("its path is too long"));
            }
        }
        Ok(Place::At(if at.is_empty() { "/".to_owned() } else { at }, kind))
    }

    fn must_find(&self, path: &str) -> Result<(String, EntryKind), RootfsError> {
        match self.find(path)? {
            Place::At(place, kind) => Ok((place, kind)),
            Place::Nowhere(NOT_THERE) => Err(RootfsError::NotFound(path.to_owned())),
            Place::Nowhere(why) => {
                Err(RootfsError::Read { path: path.to_owned(), why: why.to_owned() })
            }
        }
    }
}

impl<R: Reader> Files for Tree<R> {
    fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, RootfsError> {
        let (place, kind) = self.must_find(path)?;
        let no_file = |why| Err(RootfsError::NoFile { path: path.to_owned(), why });
        match kind {
            EntryKind::File => {
                self.reader.borrow_mut().file(&place, bytes_max).map_err(error(path))
            }
            EntryKind::Folder => no_file("it is a folder"),
            EntryKind::Link | EntryKind::Special => no_file("it is a device, pipe or socket"),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, RootfsError> {
        match self.must_find(path)? {
            (place, EntryKind::Folder) => Ok(self.folder(&place)?.to_vec()),
            _ => {
                Err(RootfsError::Read { path: path.to_owned(), why: "it is no folder".to_owned() })
            }
        }
    }

    fn exists(&self, path: &str) -> Result<bool, RootfsError> {
        Ok(matches!(self.find(path)?, Place::At(..)))
    }

    fn canonicalize(&self, path: &str) -> Result<String, RootfsError> {
        Ok(self.must_find(path)?.0)
    }

    fn check(&self, stop: &Stop) -> Result<(), CheckError> {
        let damaged = |path: &str, why: &str| {
            CheckError::Damaged(RootfsError::Read { path: path.to_owned(), why: why.to_owned() })
        };
        let mut folders = vec![("/".to_owned(), 0)];
        let mut n_seen = 0;
        while let Some((folder, depth)) = folders.pop() {
            if stop.is_stopping() {
                return Err(CheckError::Stopped);
            }
            n_seen += 1;
            if depth > DEPTH_MAX || n_seen > FOLDERS_MAX {
                return Err(damaged(&folder, "its folders run in circles"));
            }
            let entries = self.reader.borrow_mut().folder(&folder);
            let entries = entries.map_err(|trouble| damaged(&folder, &trouble.0))?;
            let inner = entries.into_iter().filter(|entry| entry.kind == EntryKind::Folder);
            let path = |name: String| format!("{}/{name}", folder.trim_end_matches('/'));
            folders.extend(inner.map(|entry| (path(entry.name), depth + 1)));
        }
        Ok(())
    }
}

/// The names of a path, the first of them last.
fn parts_of(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.rev().map(str::to_owned).collect()
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn error(path: &str) -> impl FnOnce(Trouble) -> RootfsError {
    let path = path.to_owned();
    move |Trouble(why)| RootfsError::Read { path, why }
}
