//! PCs that asked for a loader, whether they are machines or not.

use crate::error::Error;
use crate::service::Service;
use crate::store::Sighting;

impl Service {
    /// Notes that a PC asked, so that it appears among the discovered ones. Of more that nobody knows than there are in a house,
    /// some are left out, and counted: somebody invents them, and those that are there would be forgotten for them.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub fn saw(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (now, view) = (self.now(), self.view());
        let is_known = view.seen.get(&sighting.mac).is_some()
            || view.site.machine_by_mac(sighting.mac).is_some();
        let noted = (is_known || self.newcomers().comes(now.moment)).then(|| {
            let unix = now.unix();
            self.database().write(move |tables| Ok(tables.put_sighting(&sighting, unix)?))
        });
        if noted.is_none() {
            self.traffic().refused("dhcp", "too-many-newcomers");
        }
        async move {
            match noted {
                Some(noted) => noted.await,
                None => Ok(()),
            }
        }
    }
}
