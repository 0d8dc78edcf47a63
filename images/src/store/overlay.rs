//! What is laid over a version at each boot: a file beside it, so that the version itself stays as it is.

use super::{Store, names_in};
use crate::base::Base;
use crate::block::Block;
use crate::error::{StoreError, io_error};
use crate::folder::sync;
use crate::harm::{self, FixChoice, Look};
use crate::rootfs::Rootfs;
use crate::volumes::find_volumes;
use initcfg::{OVERLAY_MAX, Overlay};
use model::ImageName;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Its name is the version's number and this.
const END: &str = ".overlay";

/// Beside secrets of the image it may have some of its own.
const MODE: u32 = 0o400;

impl Store {
    /// Looks for what in a version hurts a diskless machine.
    ///
    /// # Errors
    /// There is no such version, or its root can't be read.
    pub fn harms(&self, image: &ImageName, version: u32) -> Result<Look, StoreError> {
        Ok(self.look_into(image, version)?.1)
    }

    /// Lays files over a version against the harms that are chosen, in place of what was laid over it; `None`: nothing is, from then
    /// on. Returns what is laid over it now.
    ///
    /// # Errors
    /// There is no such version, its root can't be read, or the operating system refuses.
    pub fn lay_over(
        &self,
        image: &ImageName,
        version: u32,
        choice: Option<&FixChoice>,
    ) -> Result<Overlay, StoreError> {
        let overlay = match choice {
            Some(choice) => {
                let (root, look) = self.look_into(image, version)?;
                look.overlay(&root, choice)?
            }
            None => {
                self.version(image, version)?;
                Overlay::default()
            }
        };
        self.keep_overlay(image, version, &overlay)?;
        Ok(overlay)
    }

    /// What is laid over a version; empty: nothing.
    ///
    /// # Errors
    /// It can't be read.
    pub fn overlay(&self, image: &ImageName, version: u32) -> Result<Overlay, StoreError> {
        Ok(self.overlay_file(image, version)?.map(|(overlay, _)| overlay).unwrap_or_default())
    }

    /// The same with the bytes of its file; `None`: nothing is laid over it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn overlay_file(
        &self,
        image: &ImageName,
        version: u32,
    ) -> Result<Option<(Overlay, Vec<u8>)>, StoreError> {
        let path = self.overlay_path(image, version);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io_error("open", &path))?,
        };
        let mut bytes = Vec::new();
        let read = file.take(OVERLAY_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(io_error("read", &path))?;
        let overlay = Overlay::parse(&bytes).map_err(|error| StoreError::Damaged {
            path,
            why: format!("{error}; make it anew: bootlace image fix {image}/v{version}"),
        })?;
        Ok(Some((overlay, bytes)))
    }

    /// Versions over which something is laid.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn overlaid(&self) -> Result<Vec<(ImageName, u32)>, StoreError> {
        let mut found = Vec::new();
        for name in names_in(&self.dir)? {
            let Ok(image) = name.parse::<ImageName>() else { continue };
            let dir = self.dir.join(image.as_str());
            if !dir.is_dir() {
                continue;
            }
            let names = names_in(&dir)?;
            let numbers = names.iter().filter_map(|name| name.strip_suffix(END)?.parse().ok());
            found.extend(numbers.map(|number| (image.clone(), number)));
        }
        Ok(found)
    }

    /// Notes what is laid over a version, durably.
    pub(crate) fn keep_overlay(
        &self,
        image: &ImageName,
        version: u32,
        overlay: &Overlay,
    ) -> Result<(), StoreError> {
        let path = self.overlay_path(image, version);
        let folder = self.dir.join(image.as_str());
        if overlay.entries.is_empty() {
            self.remove_overlay(image, version)?;
            return sync(&folder).map_err(io_error("sync", &folder));
        }
        let bytes = overlay.to_file();
        let bytes = bytes.map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        let draft = self.draft()?;
        let made = draft.path().join("overlay");
        fs::write(&made, bytes)
            .and_then(|()| fs::set_permissions(&made, Permissions::from_mode(MODE)))
            .and_then(|()| File::open(&made)?.sync_all())
            .map_err(io_error("write", &made))?;
        fs::rename(&made, &path).map_err(io_error("make", &path))?;
        sync(&folder).map_err(io_error("sync", &folder))?;
        draft.remove()
    }

    /// Removes what is laid over a version, if there is anything.
    pub(super) fn remove_overlay(&self, image: &ImageName, version: u32) -> Result<(), StoreError> {
        let path = self.overlay_path(image, version);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn look_into(&self, image: &ImageName, version: u32) -> Result<(Rootfs, Look), StoreError> {
        let Base { block, .. } = self.open_base(image, version)?;
        let path = self.disk_path(image, version);
        let disk: Arc<dyn Block> = block;
        let volumes = find_volumes(&disk).map_err(io_error("read", &path))?;
        let root = self.rootfs(image, version)?;
        let look = harm::look(&root, disk.as_ref(), &volumes)?;
        Ok((root, look))
    }

    fn overlay_path(&self, image: &ImageName, version: u32) -> PathBuf {
        self.dir.join(image.as_str()).join(format!("{version}{END}"))
    }
}
