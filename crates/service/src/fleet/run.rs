//! What a boot server does by itself.

use super::findings::images_without_version;
use crate::service::Service;
use crate::store;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether images that machines are to boot are there again.
const IMAGES_INTERVAL: Duration = Duration::from_secs(10);

impl Service {
    /// Keeps initrds built, the storage server's view fresh, and leases in step with the wall clock. A boot server
    /// needs it.
    ///
    /// Runs until it is dropped. If it ends, the database can't be written any more, as its thread has panicked.
    pub async fn run(&self) {
        self.database().keep_room();
        let tasks = async {
            tokio::join!(
                self.keep_exports_fresh(),
                self.initrds().keep_built(),
                self.look_for_images(),
                self.follow_wall_clock()
            )
        };
        tokio::select! {
            () = self.database().ended() => {}
            _ = tasks => {}
        }
    }

    /// Finds images whose file system was not mounted when this server started. Never ends.
    async fn look_for_images(&self) {
        loop {
            tokio::time::sleep(IMAGES_INTERVAL).await;
            if !images_without_version(&self.site()).is_empty() {
                self.index_images().await;
            }
        }
    }

    /// What is in the image store now is what machines can boot.
    pub(crate) async fn index_images(&self) {
        let (database, store) = (self.options().database.clone(), Arc::clone(self.store()));
        let indexed =
            tokio::task::spawn_blocking(move || store::index(&database, || Ok(store.list()?)));
        if let Ok(Err(error)) = indexed.await {
            tracing::debug!(error = error.chain(), "images can't be listed");
        }
    }
}
