//! Images: index, and the files that machines boot.

use crate::error::Error;
use crate::initrds::{ImageModules, InitrdFile, InitrdState};
use crate::people::Admin;
use crate::service::Service;
use crate::store::{AuditEntry, FieldChange};
use images::{Store, VersionTrouble};
use initrd_builder::ModuleSource;
use model::{BootFile, BootPart, ImageName, ImageVersion, is_note};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image version whose files are not as they were imported.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DamagedVersion {
    /// The image.
    pub image: ImageName,
    /// The version's number.
    pub version: u32,
    /// What is wrong with its files.
    pub why: String,
    /// Machines start with it all the same: its files are there, and their content is another one.
    pub starts: bool,
}

impl DamagedVersion {
    fn of(((image, version), trouble): (&(ImageName, u32), &VersionTrouble)) -> Self {
        let VersionTrouble { why, has_changed, .. } = trouble;
        Self { image: image.clone(), version: *version, why: why.clone(), starts: *has_changed }
    }
}

impl Admin {
    /// Records a version that somebody has made in the image store, and builds its initrd. Who records it again changes
    /// nothing.
    ///
    /// The second result is where its initrd is, or why machines can't boot it yet; a disk without a system needs none.
    ///
    /// # Errors
    /// There is no such version in the store, or the database can't be written.
    pub async fn record_image_version(
        &self,
        image: ImageName,
        version: u32,
    ) -> Result<(ImageVersion, Result<Option<PathBuf>, Error>), Error> {
        let subject = format!("{image}/v{version}");
        let entry = self.actor().does("image.add", &subject, Vec::new(), self.now().unix_ms);
        self.service().record_version(image, version, entry).await
    }
}

impl Service {
    /// Records a version; who does it again changes nothing, and is not noted.
    pub(crate) async fn record_version(
        &self,
        image: ImageName,
        version: u32,
        entry: AuditEntry,
    ) -> Result<(ImageVersion, Result<Option<PathBuf>, Error>), Error> {
        let service = self;
        let store = Arc::clone(service.store());
        let described = tokio::task::spawn_blocking(move || {
            Ok::<_, Error>((store.version(&image, version)?, store.states()?))
        });
        let (version, states) = described.await.map_err(|_| Error::Stopping)??;
        // First the initrd, then the index: who boots the version finds it built.
        let initrd = match version.is_data() {
            true => Ok(None),
            false => service.initrds().ensure(&version).await.map(Some),
        };
        let indexed = version.clone();
        let is_known = self.site().version(&version.image, version.version).is_some();
        let stored = service.database().write(move |tables| {
            if !is_known {
                tables.put_audit(&entry)?;
            }
            tables.put_image_version(&indexed)?;
            Ok(tables.take_image_states(&states)?)
        });
        stored.await?;
        // What was wrong with its files is perhaps mended.
        service.look_at_images().await;
        tracing::info!(image = %version.image, version = version.version, "image imported");
        Ok((version, initrd))
    }
}

impl Admin {
    /// What people want to remember about a version from now on; empty: nothing.
    ///
    /// # Errors
    /// There is no such version, it is no note, or the image store can't be written.
    pub async fn set_image_note(
        &self,
        image: ImageName,
        version: u32,
        note: String,
    ) -> Result<(), Error> {
        if !is_note(&note) {
            return Err(Error::BadNote);
        }
        if self.site().version(&image, version).is_none() {
            return Err(Error::NoVersion { image, version });
        }
        let former = self.image_note(image.clone(), version).await;
        let subject = format!("{image}/v{version}");
        let (store, new) = (Arc::clone(self.service().store()), note.clone());
        let written = tokio::task::spawn_blocking(move || store.set_note(&image, version, &new));
        written.await.map_err(|_| Error::Stopping)??;
        let new = Some(note).filter(|note| !note.is_empty());
        let Some(change) = FieldChange::between("note", former, new) else { return Ok(()) };
        let entry = self.actor().does("image.note", &subject, vec![change], self.now().unix_ms);
        self.service().database().write(move |tables| Ok(tables.put_audit(&entry)?)).await
    }
}

impl Service {
    /// Where a file that machines boot is on this server's disk.
    ///
    /// `None`: there is no such version, or the initrd is not built yet. Never waits.
    pub fn boot_file(&self, file: &BootFile) -> Option<PathBuf> {
        let site = self.site();
        let BootFile { image, version, part } = file;
        let known = site.version(image, *version)?;
        let recipe = match part {
            BootPart::Kernel => return Some(self.store().vmlinuz_path(image, *version)),
            BootPart::Initrd => self.initrds().for_all(&site, image, *version),
            BootPart::FittedInitrd(key) => self.initrds().fitted(known, key),
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
        self.initrds().shelf().state(&self.initrds().for_all(&self.site(), image, version))
    }

    /// What was left out of the initrd of an image version, and why; empty as long as it is not built.
    pub async fn initrd_warnings(&self, image: &ImageName, version: u32) -> Vec<String> {
        match self.initrd_state(image, version) {
            InitrdState::Ready { path, .. } => self.initrds().warnings(path).await,
            _ => Vec::new(),
        }
    }

    /// What is wrong with the files of an image version; `None`: nothing that their names and sizes show, or that was
    /// found when all of them was read last. Never waits.
    pub fn version_trouble(&self, image: &ImageName, version: u32) -> Option<DamagedVersion> {
        let troubles = self.image_troubles().last();
        troubles.get_key_value(&(image.clone(), version)).map(DamagedVersion::of)
    }

    /// Image versions whose files are not as they were imported, and why, whether machines are to boot them or not; also those that
    /// are so damaged that they are no versions any more. Looks at their files if nobody has done so yet.
    pub async fn damaged_images(&self) -> Vec<DamagedVersion> {
        self.know_images().await;
        let troubles = self.image_troubles().last();
        troubles.iter().map(DamagedVersion::of).collect()
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
    pub async fn initrd_files(&self) -> Result<Vec<InitrdFile>, Error> {
        let service = self.clone();
        let files = tokio::task::spawn_blocking(move || service.initrds().files());
        files.await.map_err(|_| Error::Stopping)?
    }
}

/// The kernel modules of a version in the image store `images`, for building an initrd by hand.
///
/// # Errors
/// There is no such version, or its file system can't be read.
pub fn image_modules(
    images: &Path,
    version: &ImageVersion,
) -> Result<Box<dyn ModuleSource>, Error> {
    Ok(Box::new(ImageModules::open(&Store::open(images)?, version)?))
}
