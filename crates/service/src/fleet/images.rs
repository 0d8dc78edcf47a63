//! Images: import, index, and the files that machines boot.

use crate::error::Error;
use crate::initrds::{ImageModules, InitrdFile, InitrdState, Recipe};
use crate::service::Service;
use images::{ImportRequest, Progress, Stop};
use initrd_builder::ModuleSource;
use model::{BootFile, BootPart, ImageName, ImageVersion};
use std::path::PathBuf;
use std::sync::Arc;

/// An image version that was imported.
#[derive(Debug)]
pub struct Imported {
    /// The version.
    pub version: ImageVersion,
    /// Kernels of its system that were not taken, and why.
    pub passed_over: Vec<String>,
    /// Its initrd, or why machines can't boot it yet.
    pub initrd: Result<PathBuf, Error>,
}

impl Service {
    /// Imports a disk image as the next version of an image, and builds its initrd.
    ///
    /// Takes minutes; `progress` is called about once for each MiB, on another thread.
    ///
    /// # Errors
    /// The import failed or was stopped; nothing of it stays. See [`images::ImportError`].
    pub async fn import_image(
        &self,
        request: ImportRequest,
        stop: Stop,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Imported, Error> {
        let store = Arc::clone(self.store());
        let import =
            tokio::task::spawn_blocking(move || store.import(&request, &stop, &mut progress));
        let import = import.await.map_err(|_| Error::Stopping)??;
        let version = import.version;
        // First the initrd, then the index: a server that runs finds it built.
        let initrd = self.initrds().ensure(&version).await;
        let indexed = version.clone();
        let stored = self.database().write(move |tables| Ok(tables.put_image_version(&indexed)?));
        stored.await?;
        tracing::info!(image = %version.image, version = version.version, "image imported");
        Ok(Imported { version, passed_over: import.passed_over, initrd })
    }

    /// Where a file that machines boot is on this server's disk.
    ///
    /// `None`: there is no such version, or the initrd is not built yet. Never waits.
    pub fn boot_file(&self, file: &BootFile) -> Option<PathBuf> {
        let site = self.site();
        let BootFile { image, version, part } = file;
        let known = site.version(image, *version)?;
        let recipe = match part {
            BootPart::Kernel => return Some(self.store().vmlinuz_path(image, *version)),
            BootPart::Initrd => Recipe::for_all(&site, image, *version),
            BootPart::FittedInitrd(key) => Recipe::fitted(known, key),
        };
        self.initrds().shelf().ready(&recipe)
    }

    /// What people wanted to remember about a version.
    pub async fn image_note(&self, image: ImageName, version: u32) -> Option<String> {
        let store = Arc::clone(self.store());
        let note = tokio::task::spawn_blocking(move || store.note(&image, version));
        note.await.ok()?.ok()?
    }

    /// How far the initrd of an image version is. Never waits.
    pub fn initrd_state(&self, image: &ImageName, version: u32) -> InitrdState {
        self.initrds().shelf().state(&Recipe::for_all(&self.site(), image, version))
    }

    /// The initrd of an image version; builds it if it is not in the cache.
    ///
    /// # Errors
    /// There is no such version, or its initrd can't be built.
    pub async fn ensure_initrd(&self, image: &ImageName, version: u32) -> Result<PathBuf, Error> {
        let site = self.site();
        let known = site
            .version(image, version)
            .ok_or_else(|| Error::NoVersion { image: image.clone(), version })?;
        self.initrds().ensure(known).await
    }

    /// Initrds in the cache, and image versions without one; sorted by image and version.
    ///
    /// # Errors
    /// The folder or `bootlace-init` can't be read.
    pub fn initrd_files(&self) -> Result<Vec<InitrdFile>, Error> {
        self.initrds().files()
    }

    /// The kernel modules of the newest version of an image, for building an initrd by hand.
    ///
    /// # Errors
    /// There is no such image, or its file system can't be read.
    pub fn module_source(&self, image: &ImageName) -> Result<Box<dyn ModuleSource>, Error> {
        let site = self.site();
        let version = site.newest(image).ok_or_else(|| Error::NoImage {
            image: image.clone(),
            known: site.images.iter().map(|version| version.image.clone()).collect(),
        })?;
        Ok(Box::new(ImageModules::open(self.store(), version)?))
    }
}
