//! What a boot server does by itself.

use crate::service::Service;

impl Service {
    /// Keeps initrds built, the storage server's view fresh, and leases in step with the wall clock. Runs
    /// until it is dropped; a boot server needs it.
    pub async fn run(&self) {
        tokio::join!(
            self.keep_exports_fresh(),
            self.initrds().keep_built(),
            self.follow_wall_clock()
        );
    }
}
