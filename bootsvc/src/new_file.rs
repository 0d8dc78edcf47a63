//! Files that somebody names, and that are there as a whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The end of the name that a file has until it is complete.
const PART: &str = ".part";

/// A file that is being written. Until it is put in place it lies there under a name that nobody else can have made, and is
/// locked; if it is dropped, it goes.
pub(crate) struct NewFile {
    target: PathBuf,
    part: NamedTempFile,
}

impl NewFile {
    /// For a file of this name, with these permissions but for those of the process's umask. A link leads to its file. Who may not
    /// read what is there may not read what replaces it either.
    ///
    /// # Errors
    /// Its folder is missing, or may not be written to; the link leads nowhere; what is there is no file: a device or a pipe that a file
    /// replaces is one no more.
    pub(crate) fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let is_link = path.symlink_metadata().is_ok_and(|it| it.is_symlink());
        let target = if is_link { fs::canonicalize(path)? } else { path.to_owned() };
        let former = target.metadata().ok();
        if former.as_ref().is_some_and(|there| !there.is_file()) {
            let why = format!("{} is no file", target.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let former_mode = former.map_or(0o777, |former| former.mode() & 0o777);
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let part = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(PART)
            .permissions(Permissions::from_mode(mode & former_mode))
            .tempfile_in(folder.unwrap_or(".".as_ref()))?;
        // Some network file systems have no locks; then it is only not known that it is in use.
        let _ = part.as_file().try_lock();
        Ok(Self { target, part })
    }

    /// The file as it is so far.
    pub(crate) fn file(&self) -> &File {
        self.part.as_file()
    }

    /// Puts it in place of what is there, once it is on the disk.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.part.as_file().sync_all()?;
        self.part.persist(&self.target)?;
        sync_folder(&self.target)
    }

    /// Puts it in place once it is on the disk, if nothing is there. Returns its size in bytes.
    ///
    /// # Errors
    /// It can't be written, or something has got its name meanwhile.
    pub(crate) fn put(self) -> io::Result<u64> {
        self.part.as_file().sync_all()?;
        let file = self.part.persist_noclobber(&self.target)?;
        sync_folder(&self.target)?;
        Ok(file.metadata()?.len())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// The name of a file whose making has begun, if this is what such a one is called.
pub(crate) fn unfinished(name: &str) -> Option<&str> {
    let (name, _random) = name.strip_prefix('.')?.strip_suffix(PART)?.rsplit_once('.')?;
    Some(name)
}

/// Whether nobody writes to this unfinished file any more.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_there_when_it_is_complete_and_links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, nowhere] =
            ["file", "link", "nowhere"].map(|name| folder.path().join(name));
        let entries = || fs::read_dir(folder.path()).unwrap().count();
        let mut new = NewFile::create(&file, 0o640).unwrap();
        new.write_all(b"half").unwrap();
        assert!(!file.exists());
        drop(new);
        assert_eq!(entries(), 0, "nothing is left");
        let new = NewFile::create(&file, 0o640).unwrap();
        let path = new.part.path().to_owned();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(unfinished(name), Some("file"));
        assert!(!is_abandoned(&path));
        new.put().unwrap();
        let error = NewFile::create(&file, 0o640).unwrap().put().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        symlink("file", &link).unwrap();
        let mut new = NewFile::create(&link, 0o640).unwrap();
        new.write_all(b"new").unwrap();
        new.replace().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        NewFile::create(&file, 0o644).unwrap().replace().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        symlink("not there", &nowhere).unwrap();
        assert!(NewFile::create(&nowhere, 0o640).is_err());
        let device = folder.path().join("device");
        symlink("/dev/null", &device).unwrap();
        for no_file in [&device, Path::new("/dev/null"), folder.path()] {
            let error = NewFile::create(no_file, 0o640).err().unwrap().to_string();
            assert!(error.contains("is no file"), "{error}");
        }
        fs::remove_file(device).unwrap();
        assert_eq!(entries(), 3);
        let left = folder.path().join(".file.aB3xyz.part");
        fs::write(&left, "").unwrap();
        assert!(is_abandoned(&left));
        for name in ["file", ".file", ".part", "file.x.part", ".file.part.x"] {
            assert_eq!(unfinished(name), None, "{name}");
        }
    }
}
