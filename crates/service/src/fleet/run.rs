//! What a boot server does by itself.

use super::findings::images_without_version;
use crate::service::Service;
use std::time::Duration;

/// How often it is looked whether the image versions that machines are to boot are there.
const IMAGES_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked what there is to find.
const FINDINGS_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether the process of a job has died.
const JOBS_INTERVAL: Duration = Duration::from_secs(5);

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
                self.tell_findings(),
                self.settle_jobs(),
                self.follow_wall_clock()
            )
        };
        tokio::select! {
            () = self.database().ended() => {}
            _ = tasks => {}
        }
    }

    /// Cleans up after jobs whose process has died. Never ends.
    async fn settle_jobs(&self) {
        self.begin_incoming().await;
        loop {
            self.settle_jobs_now().await;
            tokio::time::sleep(JOBS_INTERVAL).await;
        }
    }

    /// Logs what is found and what is over, and has it told by alerts, whether somebody looks at it or not. Never ends.
    async fn tell_findings(&self) {
        self.remember_alerts().await;
        // The process may have ended between what a boot has shown and what follows from it.
        self.look_at_rings().await;
        loop {
            // At the start the storage server starts, too.
            tokio::time::sleep(FINDINGS_INTERVAL).await;
            let findings = self.find().await;
            self.look_for_alerts(&findings);
            self.log_findings();
        }
    }

    /// Finds image versions that are damaged or gone, and those that are there again. Never ends.
    async fn look_for_images(&self) {
        self.look_at_images().await;
        loop {
            tokio::time::sleep(IMAGES_INTERVAL).await;
            if !images_without_version(&self.site()).is_empty() {
                self.index_images().await;
            }
            self.look_at_images().await;
        }
    }
}
