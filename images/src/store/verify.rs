//! Versions of which all is read again: disks rot, and of most images nobody reads the whole for months.

use super::{Store, names_in};
use crate::block::Block;
use crate::copy::{CopyError, Read};
use crate::error::{StoreError, io_error};
use crate::folder::replace;
use crate::progress::Progress;
use crate::raw::RawFile;
use crate::stop::Stop;
use crate::system::find_system;
use model::{ImageName, ImageVersion};
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was found is here, a file for each version. An image's name can't begin so.
const FOLDER: &str = ".verified";

/// What was found when all of a version was read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verified {
    /// When, seconds since 1970.
    pub at_unix: u64,
    /// What is not as it was imported; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<String>,
    /// Which files those were: others may have taken their place.
    disk: Stamp,
    kernel: Stamp,
}

/// A file as it was. Who rots does not change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Stamp {
    inode: u64,
    size_bytes: u64,
    changed_unix: i64,
    changed_nanos: i64,
}

impl Stamp {
    /// Of no file, if there is none.
    fn of(found: &io::Result<Metadata>) -> Self {
        found.as_ref().map_or_else(
            |_| Self::default(),
            |found| Self {
                inode: found.ino(),
                size_bytes: found.len(),
                changed_unix: found.ctime(),
                changed_nanos: found.ctime_nsec(),
            },
        )
    }
}

/// Reading was told to stop.
pub(super) struct Stopped;

/// A version was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It was told to stop. Nothing is known of the version.
    #[error("stopped")]
    Stopped,
    /// The version's description can't be read, or what was found can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Reads all of a version, as of `now_unix`, and notes what is not as it was imported, until another file takes the
    /// place of the one with the flaw: [`trouble`](Self::trouble) tells of it.
    ///
    /// # Errors
    /// See [`VerifyError`]. Files that can't be read are a flaw, and no error.
    pub fn verify(
        &self,
        image: &ImageName,
        number: u32,
        now_unix: u64,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Verified, VerifyError> {
        let described = self.version(image, number)?;
        let (disk, kernel) = self.stamps(image, number);
        let of_disk = self.disk_flaw(number, &described, stop, progress);
        let of_disk = of_disk.map_err(|Stopped| VerifyError::Stopped)?;
        let flaw = of_disk.or_else(|| self.kernel_flaw(&described));
        let verified = Verified { at_unix: now_unix, flaw, disk, kernel };
        self.note_verified(image, number, &verified)?;
        Ok(verified)
    }

    /// What was found when all of a version was read last; `None`: that was never done, or its files are others by now.
    pub fn verified(&self, image: &ImageName, number: u32) -> Option<Verified> {
        let text = fs::read_to_string(self.verified_path(image, number)).ok()?;
        // What can't be read is found again.
        let verified: Verified = toml::from_str(&text).ok()?;
        ((verified.disk, verified.kernel) == self.stamps(image, number)).then_some(verified)
    }

    fn stamps(&self, image: &ImageName, number: u32) -> (Stamp, Stamp) {
        let stamp = |path: PathBuf| Stamp::of(&fs::metadata(path));
        (stamp(self.disk_path(image, number)), stamp(self.vmlinuz_path(image, number)))
    }

    /// Why the disk with this number is not the described one, whose number is not looked at; `None`: it is that.
    pub(super) fn disk_flaw(
        &self,
        number: u32,
        described: &ImageVersion,
        stop: &Stop,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<String>, Stopped> {
        let path = self.disk_path(&described.image, number);
        let told = |error: io::Error| Ok(Some(format!("can't read {}: {error}", path.display())));
        let disk = match File::open(&path) {
            Ok(disk) => disk,
            Err(error) => return told(error),
        };
        let size_bytes = described.size_bytes;
        match disk.metadata() {
            Ok(found) if found.len() == size_bytes => {}
            Ok(found) => {
                let found = found.len();
                let why = format!("{} has {found} bytes instead of {size_bytes}", path.display());
                return Ok(Some(why));
            }
            Err(error) => return told(error),
        }
        let read = Read { source: &disk, size_bytes, padded_bytes: size_bytes };
        match read.run(None, stop, progress) {
            Ok(digest) if digest == described.digest => Ok(None),
            Ok(_) => Ok(Some(format!("the content of {} has changed", path.display()))),
            Err(CopyError::Stopped) => Err(Stopped),
            Err(CopyError::Read(error) | CopyError::Write(error)) => told(error),
        }
    }

    /// The kernel is compared with the one on the disk, which is whole.
    fn kernel_flaw(&self, described: &ImageVersion) -> Option<String> {
        if described.is_data() {
            return None;
        }
        let ImageVersion { image, version, kernel_version, .. } = described;
        let path = self.vmlinuz_path(image, *version);
        let kernel = match fs::read(&path) {
            Ok(kernel) => kernel,
            Err(error) => return Some(format!("can't read {}: {error}", path.display())),
        };
        let disk_path = self.disk_path(image, *version);
        let disk: Arc<dyn Block> = Arc::new(RawFile::open(&disk_path).ok()?);
        // An earlier Bootlace may have chosen another of the kernels on the disk, or read disks that this one refuses.
        let system = find_system(&disk, &disk_path).ok()?;
        let is_another = system.kernel_version == *kernel_version && system.vmlinuz != kernel;
        is_another.then(|| format!("{} is not the kernel that is on its disk", path.display()))
    }

    fn note_verified(
        &self,
        image: &ImageName,
        number: u32,
        verified: &Verified,
    ) -> Result<(), StoreError> {
        let path = self.verified_path(image, number);
        let text = toml::to_string(verified)
            .map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        let folder = self.dir().join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.and_then(|()| replace(&path, text.as_bytes())).map_err(io_error("write", &path))?;
        self.forget_removed(&folder);
        Ok(())
    }

    /// What is kept of versions that are gone is of no use. What can't be removed now is removed the next time.
    fn forget_removed(&self, folder: &Path) {
        for name in names_in(folder).unwrap_or_default() {
            let version = name.strip_suffix(".toml").and_then(|name| name.rsplit_once('.'));
            let is_gone = version.is_some_and(|(image, number)| {
                !self.dir().join(image).join(number).try_exists().unwrap_or(true)
            });
            if is_gone {
                let _ = fs::remove_file(folder.join(name));
            }
        }
    }

    fn verified_path(&self, image: &ImageName, number: u32) -> PathBuf {
        self.dir().join(FOLDER).join(format!("{image}.{number}.toml"))
    }
}
