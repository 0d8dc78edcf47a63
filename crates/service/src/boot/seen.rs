//! PCs that asked for a loader, whether they are machines or not.

use crate::clock::Now;
use crate::error::Error;
use crate::service::Service;
use crate::store::Sighting;
use wire::Mac;

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
        let now = self.now();
        let noted = self.is_noted(sighting.mac, now).then(|| {
            let unix = now.unix();
            self.database().write(move |tables| Ok(tables.put_sighting(&sighting, unix)?))
        });
        async move {
            match noted {
                Some(noted) => noted.await,
                None => Ok(()),
            }
        }
    }

    /// Whether it is noted that a PC asked; counts it if not.
    pub(super) fn is_noted(&self, mac: Mac, now: Now) -> bool {
        let view = self.view();
        let is_known = view.seen.get(&mac).is_some() || view.site.machine_by_mac(mac).is_some();
        let is_noted = is_known || self.newcomers().comes(now.moment);
        if !is_noted {
            self.traffic().refused("dhcp", "too-many-newcomers");
        }
        is_noted
    }
}
