//! PCs that asked for a loader, whether they are machines or not.

use crate::error::Error;
use crate::service::Service;
use crate::store::Sighting;

impl Service {
    /// Notes that a PC asked, so that it appears among the discovered ones.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub fn saw(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let now = self.now().unix();
        self.database().write(move |tables| Ok(tables.put_sighting(&sighting, now)?))
    }
}
