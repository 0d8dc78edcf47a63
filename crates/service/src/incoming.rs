//! Disk files that wait to be imported: somebody has laid them into a folder, or sent them with a browser.
//!
//! Whoever asks for one gives a name, and never a path: what is in the folder is what there is.

use model::does_something;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Files that are listed, by name.
const FILES_LISTED_MAX: usize = 200;

/// Longest name of a file in bytes: with what a part has beside it, it is one for all of Linux's file systems.
const NAME_BYTES_MAX: usize = 200;

/// What was sent of a file that is not complete has a name that is hidden, and so none of a file here.
const PART: (&str, &str) = (".", ".part");

/// After so many bytes it is looked again whether there is room.
const ROOM_INTERVAL_BYTES: u64 = 16 << 20;

/// Why a file can't be received, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// It can't be called so.
    #[error(
        "{0:?} can't be the name of a file here: it has 1 to {NAME_BYTES_MAX} bytes, no slash and no control characters, and does not \
         begin with a dot"
    )]
    BadName(String),
    /// There is one of that name, or it is just being sent.
    #[error(
        "there is a file {0} already, or somebody is just sending it: remove it first, or give this one another name"
    )]
    Taken(String),
    /// There is none.
    #[error("there is no file {0} in the folder of incoming disks")]
    Missing(String),
    /// It does not fit.
    #[error(
        "there is no room for it: {} are free, of which {} are kept for machines that start",
        model::Size(*free_bytes), model::Size(*reserve_bytes)
    )]
    NoRoom {
        /// What is free.
        free_bytes: u64,
        /// What of it must stay free.
        reserve_bytes: u64,
    },
    /// What was sent has ended too early.
    #[error("only a part of it was received; nothing of it stays. Send it again")]
    CutOff,
    /// Others are sending.
    #[error("too many files are being sent at once: try again when one is done")]
    TooMany,
    /// The operating system refuses.
    #[error("can't write {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A disk file that waits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IncomingFile {
    /// By which it is called.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Incoming {
    folder: PathBuf,
}

/// A file that is being received. One that is dropped before its end leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: File,
    part: PathBuf,
    target: PathBuf,
    name: String,
    folder: PathBuf,
    received_bytes: u64,
    room_until: u64,
}

impl Incoming {
    /// In this folder, which need not be there.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its files, by name. What is no plain file, or has a name that nobody could give, is not among them.
    pub fn list(&self) -> Vec<IncomingFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name))?;
            let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(IncomingFile { name, size_bytes: about.len() })
        };
        let mut files: Vec<IncomingFile> = entries.filter_map(file).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.truncate(FILES_LISTED_MAX);
        files
    }

    /// Where the file of this name is.
    ///
    /// # Errors
    /// There is none, or it is no plain file.
    pub fn path(&self, name: &str) -> Result<PathBuf, IncomingError> {
        let path = self.folder.join(checked(name)?);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
        is_file.then_some(path).ok_or_else(|| IncomingError::Missing(name.to_owned()))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or the system refuses.
    pub fn remove(&self, name: &str) -> Result<(), IncomingError> {
        let path = self.path(name)?;
        fs::remove_file(&path).map_err(|source| IncomingError::Io { path, source })
    }

    /// Begins to receive a file of so many bytes, if that is known.
    ///
    /// # Errors
    /// It can't be called so, there is one of that name, or there is no room.
    pub fn receive(&self, name: &str, size_bytes: Option<u64>) -> Result<Upload, IncomingError> {
        let name = checked(name)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| IncomingError::Io { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let target = self.folder.join(name);
        if fs::symlink_metadata(&target).is_ok() {
            return Err(IncomingError::Taken(name.to_owned()));
        }
        check_room(&self.folder, size_bytes.unwrap_or(0))?;
        let part = self.folder.join(format!("{}{name}{}", PART.0, PART.1));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => IncomingError::Taken(name.to_owned()),
            _ => failed(&part)(error),
        })?;
        let folder = self.folder.clone();
        let (name, received_bytes, room_until) = (name.to_owned(), 0, ROOM_INTERVAL_BYTES);
        Ok(Upload { file, part, target, name, folder, received_bytes, room_until })
    }

    /// Makes the folder, so that somebody can copy a file to it, and removes what an earlier process has left of files that it was
    /// receiving. Nobody else may receive any now.
    pub fn begin(&self) {
        let _ = fs::create_dir_all(&self.folder);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(PART.0.as_bytes()) && name.ends_with(PART.1.as_bytes()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Upload {
    /// By which it will be called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next bytes.
    ///
    /// # Errors
    /// There is no room any more, or they can't be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IncomingError> {
        let after = self.received_bytes.saturating_add(bytes.len() as u64);
        if self.received_bytes == 0 || after > self.room_until {
            check_room(&self.folder, bytes.len() as u64)?;
            self.room_until = after.saturating_add(ROOM_INTERVAL_BYTES);
        }
        self.received_bytes = after;
        let path = &self.part;
        let failed = |source| IncomingError::Io { path: path.clone(), source };
        self.file.write_all(bytes).map_err(failed)
    }

    /// All was received: it has its name now, durably.
    ///
    /// # Errors
    /// There is one of that name by now, or the system refuses.
    pub fn finish(self) -> Result<IncomingFile, IncomingError> {
        let failed = |source| IncomingError::Io { path: self.target.clone(), source };
        self.file.sync_all().map_err(failed)?;
        // Unlike a rename this replaces nothing.
        fs::hard_link(&self.part, &self.target).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => IncomingError::Taken(self.name.clone()),
            _ => failed(error),
        })?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(IncomingFile { name: self.name.clone(), size_bytes: self.received_bytes })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part);
    }
}

fn checked(name: &str) -> Result<&str, IncomingError> {
    is_name(name)
        .then_some(name)
        .ok_or_else(|| IncomingError::BadName(name.chars().take(NAME_BYTES_MAX).collect()))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains('/')
        && !name.chars().any(does_something)
}

/// Whether so many bytes fit, with what must stay free.
fn check_room(folder: &Path, needed_bytes: u64) -> Result<(), IncomingError> {
    let failed = |source| IncomingError::Io { path: folder.to_owned(), source };
    let model::Space { free_bytes, reserve_bytes, .. } = images::space(folder).map_err(failed)?;
    match free_bytes.saturating_sub(reserve_bytes) < needed_bytes {
        true => Err(IncomingError::NoRoom { free_bytes, reserve_bytes }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;

    fn incoming() -> (tempfile::TempDir, Incoming) {
        let folder = tempfile::tempdir().unwrap();
        let incoming = Incoming::in_folder(folder.path().join("incoming"));
        (folder, incoming)
    }

    fn names(incoming: &Incoming) -> Vec<String> {
        incoming.list().into_iter().map(|file| file.name).collect()
    }

    fn in_folder(incoming: &Incoming) -> usize {
        fs::read_dir(&incoming.folder).unwrap().count()
    }

    #[test]
    fn a_file_is_there_when_all_of_it_was_received() {
        let (_folder, incoming) = incoming();
        assert!(incoming.list().is_empty());
        let mut upload = incoming.receive("a.qcow2", Some(6)).unwrap();
        upload.write(b"abc").unwrap();
        assert!(incoming.list().is_empty() && incoming.path("a.qcow2").is_err());
        // Two of one name.
        assert!(matches!(incoming.receive("a.qcow2", None), Err(IncomingError::Taken(_))));
        upload.write(b"def").unwrap();
        assert_eq!(upload.finish().unwrap().size_bytes, 6);
        assert_eq!(fs::read(incoming.path("a.qcow2").unwrap()).unwrap(), b"abcdef");
        assert!(matches!(incoming.receive("a.qcow2", None), Err(IncomingError::Taken(_))));
        assert_eq!(in_folder(&incoming), 1, "a part stays");
        // Somebody lays one there meanwhile.
        let mut upload = incoming.receive("b", None).unwrap();
        upload.write(b"new").unwrap();
        fs::write(incoming.folder.join("b"), "old").unwrap();
        assert!(matches!(upload.finish(), Err(IncomingError::Taken(_))));
        assert_eq!(fs::read(incoming.folder.join("b")).unwrap(), b"old");
        incoming.remove("a.qcow2").unwrap();
        assert_eq!(names(&incoming), ["b"]);
    }

    #[test]
    fn what_is_cut_off_leaves_nothing() {
        let (_folder, incoming) = incoming();
        let mut upload = incoming.receive("a", None).unwrap();
        upload.write(b"abc").unwrap();
        drop(upload);
        assert_eq!(in_folder(&incoming), 0);
        // Nor does a process that was killed.
        std::mem::forget(incoming.receive("a", None).unwrap());
        incoming.begin();
        assert_eq!(in_folder(&incoming), 0);
        incoming.receive("a", None).unwrap();
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_at_once() {
        let (_folder, incoming) = incoming();
        let refused = incoming.receive("a", Some(1 << 60)).unwrap_err();
        assert!(matches!(refused, IncomingError::NoRoom { .. }), "{refused}");
        assert_eq!(in_folder(&incoming), 0);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (folder, incoming) = incoming();
        fs::create_dir(&incoming.folder).unwrap();
        fs::write(folder.path().join("state.db"), "secret").unwrap();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in [
            "",
            ".",
            "..",
            "../state.db",
            "/etc/passwd",
            "a/b",
            ".hidden",
            ".a.part",
            "a\0b",
            "a\nb",
            "a\u{202e}b",
            &long,
        ] {
            assert!(matches!(incoming.path(name), Err(IncomingError::BadName(_))), "{name:?}");
            assert!(incoming.receive(name, None).is_err() && incoming.remove(name).is_err());
        }
        symlink(folder.path().join("state.db"), incoming.folder.join("link")).unwrap();
        symlink("/nowhere", incoming.folder.join("dangling")).unwrap();
        let pipe = incoming.folder.join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(incoming.folder.join("folder")).unwrap();
        assert!(incoming.list().is_empty());
        for name in ["link", "dangling", "pipe", "folder", "none"] {
            assert!(matches!(incoming.path(name), Err(IncomingError::Missing(_))), "{name}");
            incoming.remove(name).unwrap_err();
            assert_eq!(incoming.receive(name, None).is_ok(), name == "none", "{name}");
        }
        for name in ["Debian 12.qcow2", "büro.raw", "x"] {
            incoming.receive(name, None).unwrap().finish().unwrap();
        }
        assert_eq!(incoming.list().len(), 3);
    }
}
