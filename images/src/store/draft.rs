//! Versions that are being made: a folder of their own, until one rename makes them a version.

use super::{Description, FILES, Same, Store, names_in};
use crate::error::{StoreError, io_error};
use crate::folder::{Locked, open_lock, sync};
use model::{ImageName, ImageVersion, VersionState};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A draft's folder begins so; an image's name can't.
const DRAFT: &str = ".import-";

/// Behind that begins the name of a version's folder that is being removed: `debian-12.v3`.
const REMOVED: &str = ".removed-";

/// For longer nobody has the folder to himself who works: a folder is made or renamed in that time.
const OTHERS_WORK: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(5);

impl Store {
    /// Begins a new version: a folder that disappears unless it is published.
    pub(crate) fn draft(&self) -> Result<Draft, StoreError> {
        let _lock = self.lock()?;
        let folder = tempfile::Builder::new()
            .prefix(DRAFT)
            // Nobody else may lock it, or see a disk that is not yet closed to him.
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.dir)
            .map_err(io_error("make a folder in", &self.dir))?;
        let lock = File::open(folder.path())
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(io_error("lock", folder.path()))?;
        Ok(Draft { folder, _lock: Locked(lock) })
    }

    /// Makes a draft the next version of its image, durably; unless one has the same content, of which files are put
    /// back if they are flawed.
    pub(crate) fn publish(
        &self,
        draft: Draft,
        mut description: Description,
        state: VersionState,
        same: Option<Same>,
    ) -> Result<Published, StoreError> {
        // One at a time: the number is free until we have taken it, and the newest is the newest.
        let _lock = self.lock()?;
        let version = &mut description.version;
        let image = version.image.clone();
        let flawed = same.filter(|same| !same.flawed.is_empty());
        if flawed.is_none()
            && let Some(&number) = self.numbers(&image)?.last()
            && let Ok(newest) = self.version(&image, number)
            && newest.digest == version.digest
        {
            return Ok(Published::Same(newest));
        }
        version.version = match &flawed {
            Some(same) => same.version,
            None => self.next_number(&image)?,
        };
        let about_path = draft.path().join("image.toml");
        let text = toml::to_string(&description)
            .map_err(|error| io_error("write", &about_path)(io::Error::other(error)))?;
        fs::write(&about_path, text).map_err(io_error("write", &about_path))?;
        for (name, mode) in FILES {
            let path = draft.path().join(name);
            fs::set_permissions(&path, Permissions::from_mode(mode))
                .and_then(|()| File::open(&path)?.sync_all())
                .map_err(io_error("write", &path))?;
        }
        fs::set_permissions(draft.path(), Permissions::from_mode(0o755))
            .and_then(|()| sync(draft.path()))
            .map_err(io_error("sync", draft.path()))?;
        let version = description.version;
        self.note_number(&image, version.version, Some((&version.digest, state)))?;
        match flawed {
            Some(Same { flawed, .. }) => {
                self.put_back(draft, &image, version.version, &flawed)?;
                Ok(Published::PutBack(version, flawed))
            }
            None => {
                self.rename_draft(draft, &image, version.version)?;
                Ok(Published::New(version))
            }
        }
    }

    /// Gives a draft that is complete the name of a version, durably.
    pub(super) fn rename_draft(
        &self,
        draft: Draft,
        image: &ImageName,
        number: u32,
    ) -> Result<(), StoreError> {
        let image_dir = self.dir.join(image.as_str());
        fs::create_dir_all(&image_dir).map_err(io_error("make the folder", &image_dir))?;
        let path = self.version_dir(image, number);
        if let Err(error) = fs::rename(draft.path(), &path) {
            let _ = fs::remove_dir(&image_dir);
            return Err(io_error("make", &path)(error));
        }
        draft.keep();
        sync(&image_dir).map_err(io_error("sync", &image_dir))?;
        sync(&self.dir).map_err(io_error("sync", &self.dir))
    }

    /// Held while drafts are made and published; ends with the file.
    pub(super) fn lock(&self) -> Result<Locked, StoreError> {
        let path = self.dir.join(".lock");
        open_lock(&path)
            .and_then(|file| file.lock().map(|()| Locked(file)))
            .map_err(io_error("lock", &path))
    }

    /// [`Store::lock`] for work that can be left to the next one: `None` if somebody has it for longer than his work
    /// takes, as a process does that was stopped in the middle.
    pub(super) fn lock_soon(&self) -> Result<Option<Locked>, StoreError> {
        let path = self.dir.join(".lock");
        let file = open_lock(&path).map_err(io_error("lock", &path))?;
        let end = Instant::now() + OTHERS_WORK;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Locked(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
            }
        }
    }

    /// Removes what broken-off imports left, unless somebody keeps the folder to himself.
    pub(super) fn remove_leftovers(&self) -> Result<(), StoreError> {
        let Some(_lock) = self.lock_soon()? else { return Ok(()) };
        for name in names_in(&self.dir)? {
            if let Some((image, version)) = removed(&name) {
                self.finish_removal(&self.dir.join(&name), &image, version)?;
            }
            if !name.starts_with(DRAFT) {
                continue;
            }
            let path = self.dir.join(name);
            // A draft is locked as long as its importer lives.
            if File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        self.remove_old_partials()
    }
}

impl Store {
    /// Where a version is as soon as it is removed, until nothing is left of it.
    pub(super) fn removed_path(&self, image: &ImageName, version: u32) -> PathBuf {
        self.dir.join(format!("{REMOVED}{image}.v{version}"))
    }
}

/// The version that is being removed under this name.
fn removed(name: &str) -> Option<(ImageName, u32)> {
    let (image, version) = name.strip_prefix(REMOVED)?.rsplit_once(".v")?;
    Some((image.parse().ok()?, version.parse().ok()?))
}

/// What became of a draft.
pub(crate) enum Published {
    /// A version, which has its number now.
    New(ImageVersion),
    /// Nothing: this version has the same content.
    Same(ImageVersion),
    /// These files of a version that was damaged, or gone.
    PutBack(ImageVersion, Vec<&'static str>),
}

/// A version that is being made.
pub(crate) struct Draft {
    folder: tempfile::TempDir,
    _lock: Locked,
}

impl Draft {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// It has another name now.
    fn keep(self) {
        let _ = self.folder.keep();
    }

    pub(super) fn remove(self) -> Result<(), StoreError> {
        let path = self.path().to_owned();
        self.folder.close().map_err(io_error("remove", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Architecture, FileSystem};

    #[test]
    fn who_keeps_the_folder_to_himself_keeps_nobody_from_reading_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        // As an import does that was suspended in the middle.
        let kept = store.lock().unwrap();
        fs::create_dir(folder.path().join(".import-broken-off")).unwrap();
        let other = Store::open(folder.path()).unwrap();
        assert!(folder.path().join(".import-broken-off").exists());
        let image: ImageName = "debian".parse().unwrap();
        let known = ImageVersion {
            image: image.clone(),
            version: 1,
            digest: "00".to_owned(),
            size_bytes: 4096,
            partition: None,
            logical_volume: None,
            file_system: FileSystem::Ext4,
            kernel_version: "6.1.0".to_owned(),
            architecture: Architecture::X86_64,
            os_name: None,
            imported_unix: 0,
        };
        other.note_given([(&known, VersionState::Released)]).unwrap_err();
        drop(kept);
        other.note_given([(&known, VersionState::Released)]).unwrap();
        assert_eq!(other.given_out().unwrap(), [(image, 1)]);
        Store::open(folder.path()).unwrap();
        assert!(!folder.path().join(".import-broken-off").exists());
    }
}
