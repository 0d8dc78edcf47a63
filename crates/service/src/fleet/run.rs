//! What a boot server does by itself.

use crate::service::Service;

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
                self.follow_wall_clock()
            )
        };
        tokio::select! {
            () = self.database().ended() => {}
            _ = tasks => {}
        }
    }
}
