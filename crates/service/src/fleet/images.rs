//! Images: import, index, and the files that machines boot.

use crate::error::Error;
use crate::initrds::build::foreign_roots;
use crate::service::Service;
use crate::store::view::Part;
use crate::store::{rows, schema};
use images::{ImportRequest, Progress, Store};
use model::{ImageName, ImageVersion};
use rusqlite::TransactionBehavior;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image version that was imported.
#[derive(Debug)]
pub struct Imported {
    /// The version.
    pub version: ImageVersion,
    /// Its initrd, or why machines can't boot it yet.
    pub initrd: Result<PathBuf, Error>,
}

impl Service {
    /// Imports a disk image as the next version of an image, and builds its initrd.
    ///
    /// Takes minutes; `progress` is called about once for each MiB, on another thread.
    ///
    /// # Errors
    /// The import failed; nothing of it stays. See [`images::ImportError`].
    pub async fn import_image(
        &self,
        request: ImportRequest,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Imported, Error> {
        let store = Arc::clone(self.store());
        let import = tokio::task::spawn_blocking(move || store.import(&request, &mut progress));
        let version = import.await.map_err(|_| Error::Stopping)??;
        // First the initrd, then the index: a server that runs finds it built.
        let initrd = self.build_initrd(version.clone()).await;
        let indexed = version.clone();
        self.database()
            .write(move |connection| {
                rows::insert_image_version(connection, &indexed)?;
                Ok((Part::Site, ()))
            })
            .await?;
        tracing::info!(image = %version.image, version = version.version, "image imported");
        Ok(Imported { version, initrd })
    }

    /// Where a file that machines boot is: `vmlinuz` or `initrd` of an image version.
    ///
    /// `None`: there is no such version or file, or the initrd is not built yet. Never waits.
    pub fn boot_file(&self, image: &ImageName, version: u32, file: &str) -> Option<PathBuf> {
        let site = self.site();
        let known = site.images.iter().find(|v| v.image == *image && v.version == version)?;
        match file {
            "vmlinuz" => Some(self.store().vmlinuz_path(image, version)),
            "initrd" => self.initrds().ready(known, &foreign_roots(&self.site(), &known.image)),
            _ => self.initrds().fitted().ready(known, file.strip_prefix("initrd-")?),
        }
    }

    /// What people wanted to remember about a version.
    pub async fn image_note(&self, image: ImageName, version: u32) -> Option<String> {
        let store = Arc::clone(self.store());
        let note = tokio::task::spawn_blocking(move || store.note(&image, version));
        note.await.ok()?.ok()?
    }
}

/// Makes the index say what the store holds.
pub(crate) fn index(database: &Path, store: &Store) -> Result<(), Error> {
    let failed = |source| Error::Database { path: database.to_owned(), source: Arc::new(source) };
    let mut connection = schema::open(database)?;
    if rows::image_versions(&connection).map_err(failed)? == store.list()? {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Looked at again under the lock: what another process imported since is in the store before it
    // is in the index, and must not fall out of the index by an older look.
    let versions = store.list()?;
    transaction.execute("DELETE FROM image_version", []).map_err(failed)?;
    for version in &versions {
        rows::insert_image_version(&transaction, version).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
