//! What is noted of a layer in its folder, and what people say there.

use super::{Files, folder};
use crate::layer::about::{About, LayerMode};
use crate::layer::error::{LayerError, OwnerUnknown, io_error};
use crate::layer::in_place;
use crate::layer::last_use::{self, LastUse};
use crate::layer::owner;
use model::{BootId, DiskId, DiskOwner, ImageName};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// See [`Files::put_back_path`].
const PUT_BACK: &str = "put-back";

/// See [`Files::take_over_path`].
const TAKE_OVER: &str = "take-over";

impl Files {
    /// How far a layer has come, of which `about` is the description.
    pub(in crate::layer) fn last_use(&self, about: &About) -> Result<LastUse, LayerError> {
        let folder = self.dir.join(folder(&about.disk, about.mode));
        let path = last_use::path(&folder);
        let (count, boot) = match last_use::read(&folder) {
            Ok(known) => known.unwrap_or((0, about.boot)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let (disk, why) = (about.disk.clone(), error.to_string());
                return Err(LayerError::Damaged { disk, path, why });
            }
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        Ok(LastUse { id: about.id.clone(), count, boot })
    }

    /// Keeps that a layer was opened in this boot, for the so manieth time.
    pub(in crate::layer) fn note_use(
        &self,
        about: &About,
        count: u64,
        boot: BootId,
    ) -> Result<LastUse, LayerError> {
        let folder = self.dir.join(folder(&about.disk, about.mode));
        last_use::write(&folder, count, boot)?;
        Ok(LastUse { id: about.id.clone(), count, boot })
    }

    /// Which machine has had the machine's persistent layer last, if there is one and that is known.
    pub(in crate::layer) fn owner(&self, disk: &DiskId) -> Result<Option<DiskOwner>, LayerError> {
        let folder = self.dir.join(folder(disk, LayerMode::Persistent));
        owner::read(&folder).map_err(|error| {
            LayerError::OwnerUnknown(Box::new(OwnerUnknown {
                disk: disk.clone(),
                path: owner::path(&folder),
                why: error.to_string(),
                take_over: self.take_over_path(disk),
            }))
        })
    }

    /// Keeps which machine has the machine's persistent layer.
    pub(in crate::layer) fn note_owner(
        &self,
        disk: &DiskId,
        owner: &DiskOwner,
    ) -> Result<(), LayerError> {
        owner::write(&self.dir.join(folder(disk, LayerMode::Persistent)), owner)
    }

    /// The file by which a person says that the machine's persistent layer is to be given to another machine of that name.
    pub(in crate::layer) fn take_over_path(&self, disk: &DiskId) -> PathBuf {
        self.dir.join(folder(disk, LayerMode::Persistent)).join(TAKE_OVER)
    }

    /// How much the machine has written to its persistent layer, in bytes, and when that was begun, in seconds since 1970.
    pub(in crate::layer) fn extent(&self, disk: &DiskId) -> io::Result<(u64, u64)> {
        let folder = self.dir.join(folder(disk, LayerMode::Persistent));
        let data = fs::metadata(folder.join("data"))?;
        // The description is written once.
        let made = fs::metadata(folder.join("layer.toml"))?.mtime();
        Ok((data.blocks() * 512, made.max(0).unsigned_abs()))
    }

    /// The file by which a person says that an older copy of the layer was put back on purpose.
    pub(in crate::layer) fn put_back_path(&self, disk: &DiskId, mode: LayerMode) -> PathBuf {
        self.dir.join(folder(disk, mode)).join(PUT_BACK)
    }

    /// What was not flushed into the layer is that of another copy.
    pub(in crate::layer) fn forget_volatile(
        &self,
        disk: &DiskId,
        mode: LayerMode,
    ) -> Result<(), LayerError> {
        let folder = folder(disk, mode);
        let path = self.volatile_dir.join(format!("{folder}.map"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            _ => {}
        }
        self.remove_volatile(&folder);
        Ok(())
    }
}

/// Whether a person has put this file there. A folder of its name says nothing: it would never go.
pub(in crate::layer) fn is_said(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(!found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// See [`Layers::look_at_parent`](crate::layer::Layers::look_at_parent).
pub(in crate::layer) fn look_at_parent(dir: &Path, disk: &DiskId) -> Option<(ImageName, u32)> {
    let about = dir.join(folder(disk, LayerMode::Persistent)).join("layer.toml");
    let about: About = in_place::parse(&in_place::read(&about).ok()??).ok()?;
    Some((about.image, about.version))
}

/// See [`Layers::look_at_use`](crate::layer::Layers::look_at_use).
pub(in crate::layer) fn look_at_use(dir: &Path, disk: &DiskId) -> Option<(LastUse, bool)> {
    let folder = dir.join(folder(disk, LayerMode::Persistent));
    let about: About = in_place::parse(&in_place::read(&folder.join("layer.toml")).ok()??).ok()?;
    let (count, boot) = last_use::read(&folder).ok()?.unwrap_or((0, about.boot));
    let is_put_back = is_said(&folder.join(PUT_BACK)).unwrap_or(false);
    Some((LastUse { id: about.id, count, boot }, is_put_back))
}
