//! Image versions on disk.
//!
//! `<dir>/<image>/<version>/{disk.raw,vmlinuz,image.toml}`. A version gets its name when it is complete,
//! by one rename, and never changes after. What is laid over it at boot stands beside it, in `<version>.overlay`.

mod draft;
mod numbers;
mod overlay;
mod partial;
mod put_back;
mod trouble;
mod verify;

pub(crate) use draft::{Draft, Published};
pub(crate) use partial::{Partial, whole_pieces};
pub(crate) use put_back::Same;
pub use trouble::VersionTrouble;
pub use verify::{Verified, VerifyError};

use crate::base::Base;
use crate::block::Block;
use crate::error::{StoreError, io_error};
use crate::folder::{is_full, space};
use crate::logical::Logical;
use crate::raw::RawFile;
use crate::rootfs::Rootfs;
use crate::volumes::find_volumes;
use model::{ImageName, ImageVersion, Space, one_line};
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The files of a version and who may read them, in the order in which they are put in place. The disk holds the image's
/// secrets; kernel and description don't.
pub(crate) const FILES: [(&str, u32); 3] =
    [("disk.raw", 0o400), ("vmlinuz", 0o444), ("image.toml", 0o444)];

/// The image store of one server. Several processes may use one folder at once.
pub struct Store {
    dir: PathBuf,
    /// Open bases, so that a version is opened once, however many machines use it.
    open: Mutex<HashMap<(ImageName, u32), Weak<RawFile>>>,
}

/// What `image.toml` holds.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Description {
    #[serde(flatten)]
    pub(crate) version: ImageVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// What a later Bootlace has added, which goes where the version goes.
    #[serde(flatten)]
    pub(crate) others: toml::Table,
}

impl Store {
    /// Opens the store, making the folder if it is missing.
    ///
    /// What broken-off imports left is removed.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(dir).map_err(io_error("make the folder", dir))?;
        // Absolute, so that it stays the same folder wherever the process goes.
        let dir = dir.canonicalize().map_err(io_error("find", dir))?;
        let store = Self { dir, open: Mutex::default() };
        store.remove_leftovers()?;
        Ok(store)
    }

    /// Opens the store for who only reads: nothing is made or removed in it.
    ///
    /// # Errors
    /// There is no such folder, or the operating system refuses.
    pub fn look(dir: &Path) -> Result<Self, StoreError> {
        let dir = dir.canonicalize().map_err(io_error("find", dir))?;
        Ok(Self { dir, open: Mutex::default() })
    }

    /// The folder that holds the store, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much room there is, if that is not enough for so many bytes more; `None`: it is.
    pub(crate) fn lacks_room(&self, needed_bytes: u64) -> Result<Option<Space>, StoreError> {
        let room = space(&self.dir).map_err(io_error("read", &self.dir))?;
        let is_lacking = room.free_bytes.saturating_sub(room.reserve_bytes) < needed_bytes;
        Ok(is_lacking.then_some(room))
    }

    /// All versions, by image and version number. Damaged ones are left out and logged.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn list(&self) -> Result<Vec<ImageVersion>, StoreError> {
        let mut versions = Vec::new();
        for name in names_in(&self.dir)? {
            let Ok(image) = name.parse::<ImageName>() else { continue };
            for number in self.numbers(&image)? {
                match self.version(&image, number) {
                    Ok(version) => versions.push(version),
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(%image, version = number, error, "damaged image version");
                    }
                }
            }
        }
        versions.sort_by(|a, b| (&a.image, a.version).cmp(&(&b.image, b.version)));
        Ok(versions)
    }

    /// The description of one version.
    ///
    /// # Errors
    /// There is no such version, or its description can't be read.
    pub fn version(&self, image: &ImageName, version: u32) -> Result<ImageVersion, StoreError> {
        Ok(self.description(image, version)?.version)
    }

    /// What people wanted to remember about a version, in one line.
    ///
    /// # Errors
    /// There is no such version, or its description can't be read.
    pub fn note(&self, image: &ImageName, version: u32) -> Result<Option<String>, StoreError> {
        let imported = self.description(image, version)?.note;
        let note = self.later_note(image, version).unwrap_or_default().or(imported);
        // An earlier Bootlace took any text.
        Ok(note.filter(|note| !note.is_empty()).as_deref().map(one_line))
    }

    /// Opens a version's disk, read-only. All who open the same version share one open file.
    ///
    /// # Errors
    /// There is no such version, or its files can't be read.
    pub fn open_base(&self, image: &ImageName, version: u32) -> Result<Base, StoreError> {
        let described = self.version(image, version)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (image.clone(), version);
        let path = self.disk_path(image, version);
        // Not one that was put back since: who has the damaged one open keeps that.
        if let Some(block) = open.get(&key).and_then(Weak::upgrade)
            && block.is_at(&path)
        {
            return Ok(Base { version: described, block });
        }
        let block = Arc::new(RawFile::open(&path).map_err(io_error("open", &path))?);
        let size_bytes = block.size_bytes();
        if size_bytes != described.size_bytes {
            let why = format!("it has {size_bytes} bytes instead of {}", described.size_bytes);
            return Err(StoreError::Damaged { path, why });
        }
        open.insert(key, Arc::downgrade(&block));
        Ok(Base { version: described, block })
    }

    /// Opens the root file system of a version, to read files out of it.
    ///
    /// # Errors
    /// There is no such version, or its root can't be read.
    pub fn rootfs(&self, image: &ImageName, version: u32) -> Result<Rootfs, StoreError> {
        let base = self.open_base(image, version)?;
        let path = self.disk_path(image, version);
        let volumes = find_volumes(&(Arc::clone(&base.block) as Arc<dyn Block>))
            .map_err(io_error("read", &path))?;
        let root = volumes.iter().find(|volume| {
            let logical = volume.logical.as_ref().map(Logical::name);
            let ImageVersion { partition, logical_volume, .. } = &base.version;
            (volume.partition, logical) == (*partition, logical_volume.as_ref())
        });
        let Some(root) = root else {
            let why = "its root is gone: there is no such partition or logical volume on its disk"
                .to_owned();
            return Err(StoreError::Damaged { path, why });
        };
        Ok(Rootfs::open(Arc::clone(&base.block) as Arc<dyn Block>, root)?)
    }

    /// Where the kernel of a version is.
    pub fn vmlinuz_path(&self, image: &ImageName, version: u32) -> PathBuf {
        self.version_dir(image, version).join("vmlinuz")
    }

    /// Where the disk of a version is.
    pub fn disk_path(&self, image: &ImageName, version: u32) -> PathBuf {
        self.version_dir(image, version).join("disk.raw")
    }

    /// How many bytes its files take on the disk, without holes.
    ///
    /// # Errors
    /// There is no such version, or the operating system refuses.
    pub fn disk_bytes(&self, image: &ImageName, version: u32) -> Result<u64, StoreError> {
        let folder = self.version_dir(image, version);
        let mut n_bytes = 0;
        for (name, _) in FILES {
            let path = folder.join(name);
            match fs::metadata(&path) {
                Ok(about) => n_bytes += about.blocks() * 512,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", &path)(error)),
            }
        }
        Ok(n_bytes)
    }

    /// Removes a version. Who has it open keeps it until he closes it; whether a machine still needs it
    /// is for the caller to know.
    ///
    /// # Errors
    /// There is no such version, or the operating system refuses.
    pub fn remove(&self, image: &ImageName, version: u32) -> Result<(), StoreError> {
        match self.remove_in_order(image, version) {
            Err(StoreError::Io { source, .. }) if is_full(&source) => {
                self.remove_without_room(image, version)
            }
            removed => removed,
        }
    }

    fn remove_in_order(&self, image: &ImageName, version: u32) -> Result<(), StoreError> {
        let path = self.version_dir(image, version);
        if !path.try_exists().map_err(io_error("read", &path))? {
            return Err(StoreError::Missing { image: image.clone(), version });
        }
        // First out of the way in one step, so that nobody opens a half-removed version.
        let draft = self.draft()?;
        let target = draft.path().join("removed");
        {
            let _lock = self.lock()?;
            // A number never comes back: people remember what v7 was.
            let former = self.noted_as(image, version)?;
            self.note_number(image, version, None)?;
            if let Err(error) = fs::rename(&path, target) {
                if let Some((digest, state)) = former {
                    self.note_number(image, version, Some((&digest, state)))?;
                }
                return Err(io_error("remove", &path)(error));
            }
            self.remove_overlay(image, version)?;
        }
        draft.remove()
    }

    /// The same on a disk without any room, where neither a folder can be made nor a note be written: what is large goes first.
    fn remove_without_room(&self, image: &ImageName, version: u32) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let (path, away) = (self.version_dir(image, version), self.removed_path(image, version));
        fs::rename(&path, &away).map_err(io_error("remove", &path))?;
        self.finish_removal(&away, image, version)
    }

    /// Removes a version that is out of the way already. Who is interrupted here goes on when the store is opened again.
    pub(super) fn finish_removal(
        &self,
        away: &Path,
        image: &ImageName,
        version: u32,
    ) -> Result<(), StoreError> {
        let (disk, _) = FILES[0];
        match fs::remove_file(away.join(disk)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", away)(error));
            }
            _ => {}
        }
        self.note_number(image, version, None)?;
        self.remove_overlay(image, version)?;
        fs::remove_dir_all(away).map_err(io_error("remove", away))
    }

    pub(crate) fn description(
        &self,
        image: &ImageName,
        version: u32,
    ) -> Result<Description, StoreError> {
        let path = self.version_dir(image, version).join("image.toml");
        let damaged = |why: String| StoreError::Damaged { path: path.clone(), why };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { image: image.clone(), version });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("it is not text".to_owned()));
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        if text.trim().is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let description: Description = toml::from_str(&text)
            .map_err(|_| damaged("it is not what an import wrote".to_owned()))?;
        if description.version.image != *image || description.version.version != version {
            return Err(damaged(format!(
                "it describes {}/v{}",
                description.version.image, description.version.version
            )));
        }
        Ok(description)
    }

    /// The version numbers of an image, ascending.
    pub(crate) fn numbers(&self, image: &ImageName) -> Result<Vec<u32>, StoreError> {
        let dir = self.dir.join(image.as_str());
        if !dir.try_exists().map_err(io_error("read", &dir))? {
            return Ok(Vec::new());
        }
        // `007` is not where version 7 is.
        let number = |name: &String| name.parse().ok().filter(|it: &u32| it.to_string() == *name);
        let mut numbers: Vec<u32> = names_in(&dir)?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) fn version_dir(&self, image: &ImageName, version: u32) -> PathBuf {
        self.dir.join(image.as_str()).join(version.to_string())
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        if let Ok(name) = entry.map_err(io_error("list", dir))?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
