//! A layer's file, which is open only while somebody needs it: a server has many more layers than
//! descriptors to spare.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Files of which [`Recent`] keeps those open that were opened last. More machines than this rarely write to
/// new places in the same moment; whoever does has his file opened again, which takes microseconds.
const RECENT_MAX: usize = 32;

/// A file of a layer, found by its path whenever it is not open.
///
/// It is the same file each time, or none: whoever was given a layer never gets into the files of the one
/// that took its place.
pub(super) struct LayerFile {
    /// `None` if it has no name, and so stays open.
    path: Option<PathBuf>,
    device: u64,
    inode: u64,
    state: Mutex<State>,
}

enum State {
    Closed,
    Open(Arc<File>),
    /// The layer was thrown away.
    Retired,
}

impl LayerFile {
    /// The file that is or will be at `path`, and of which `file` is a descriptor. It is not kept open.
    pub(super) fn at(path: &Path, file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        let state = Mutex::new(State::Closed);
        Ok(Self { path: Some(path.to_owned()), device: about.dev(), inode: about.ino(), state })
    }

    /// A file without a name.
    pub(super) fn nameless(file: File) -> Self {
        Self { path: None, device: 0, inode: 0, state: Mutex::new(State::Open(Arc::new(file))) }
    }

    /// The open file; whether it had to be opened for that. It stays open until [`close`](Self::close).
    pub(super) fn get(&self) -> io::Result<(Arc<File>, bool)> {
        // Held while the file is opened: after `retire` nobody opens what came in its place.
        let mut state = self.lock();
        match &*state {
            State::Open(file) => return Ok((Arc::clone(file), false)),
            State::Retired => return Err(io::Error::other("the write layer was discarded")),
            State::Closed => {}
        }
        let path = self.path.as_deref().ok_or(io::ErrorKind::NotFound)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if !self.is(&file.metadata()?) {
            let text = format!("somebody has put another file in the place of {}", path.display());
            return Err(io::Error::other(text));
        }
        let file = Arc::new(file);
        *state = State::Open(Arc::clone(&file));
        Ok((file, true))
    }

    /// Closes it, until it is needed again.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if self.path.is_some() && matches!(*state, State::Open(_)) {
            *state = State::Closed;
        }
    }

    /// It is not opened any more; who has it open keeps it.
    pub(super) fn retire(&self) {
        *self.lock() = State::Retired;
    }

    /// What the operating system says about it, without opening it.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        if let State::Open(file) = &*self.lock() {
            return file.metadata();
        }
        let about = fs::symlink_metadata(self.path.as_deref().ok_or(io::ErrorKind::NotFound)?)?;
        if self.is(&about) { Ok(about) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn is(&self, about: &Metadata) -> bool {
        (about.dev(), about.ino()) == (self.device, self.inode)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is replaced as a whole, so it stays right whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files that were opened last.
#[derive(Default)]
pub(super) struct Recent {
    open: Mutex<VecDeque<Weak<LayerFile>>>,
}

impl Recent {
    /// The open file; in its place the one that was opened longest ago may be closed.
    pub(super) fn get(&self, file: &Arc<LayerFile>) -> io::Result<Arc<File>> {
        let (opened, is_new) = file.get()?;
        if is_new {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.push_back(Arc::downgrade(file));
            let too_many = open.len().saturating_sub(RECENT_MAX);
            let oldest: Vec<_> = open.drain(..too_many).collect();
            drop(open);
            oldest.iter().filter_map(Weak::upgrade).for_each(|file| file.close());
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str) -> Arc<LayerFile> {
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        Arc::new(LayerFile::at(&path, &file).unwrap())
    }

    fn is_open(file: &LayerFile) -> bool {
        matches!(*file.lock(), State::Open(_))
    }

    #[test]
    fn only_the_last_files_stay_open() {
        let folder = tempfile::tempdir().unwrap();
        let recent = Recent::default();
        let files: Vec<_> =
            (0..RECENT_MAX + 5).map(|index| file(folder.path(), &index.to_string())).collect();
        assert!(files.iter().all(|file| !is_open(file)));
        for file in &files {
            recent.get(file).unwrap();
            recent.get(file).unwrap();
        }
        let open: Vec<bool> = files.iter().map(|file| is_open(file)).collect();
        assert_eq!(open, [[false; 5].as_slice(), &[true; RECENT_MAX]].concat());
        recent.get(&files[0]).unwrap();
        assert!(is_open(&files[0]) && !is_open(&files[5]));
    }

    #[test]
    fn what_came_in_the_place_of_a_file_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), "one");
        fs::rename(folder.path().join("one"), folder.path().join("former")).unwrap();
        file(folder.path(), "one");
        assert!(one.get().unwrap_err().to_string().contains("another file"));
        assert!(one.metadata().is_err());

        let two = file(folder.path(), "two");
        two.retire();
        assert!(two.get().is_err());
        two.close();
        assert!(two.get().is_err(), "a layer that was thrown away stays so");
    }
}
