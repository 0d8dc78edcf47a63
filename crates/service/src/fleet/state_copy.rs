//! A copy of the state, while the server runs.

use crate::error::Error;
use crate::service::Service;
use std::path::Path;

impl Service {
    /// Copies the database into a new file, which only its owner may read: as it was at one moment between the call and the
    /// answer. If the database was deleted while this server runs, it is what the server still has of it.
    ///
    /// # Errors
    /// The database can't be read, or the copy not be written.
    pub async fn copy_state(&self, to: &Path) -> Result<(), Error> {
        self.database().copy(to).await
    }
}
