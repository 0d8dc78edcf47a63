//! Addresses that belong to NICs.

use crate::error::Error;
use crate::service::Service;
use crate::store::view::Part;
use model::Lease;
use rusqlite::params;
use std::sync::Arc;

impl Service {
    /// All leases, ended ones too.
    pub fn leases(&self) -> Arc<Vec<Lease>> {
        Arc::clone(&self.view().leases)
    }

    /// Stores a lease, in place of the NIC's former one and of any other for the address.
    ///
    /// When this returns, the lease is on the disk: the ACK may leave.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn commit_lease(&self, lease: Lease) -> Result<(), Error> {
        self.database()
            .write(move |connection| {
                let (mac, address) = (lease.mac.to_string(), lease.address.to_string());
                connection.execute(
                    "DELETE FROM lease WHERE address = ?1 AND mac <> ?2",
                    [&address, &mac],
                )?;
                connection.execute(
                    "INSERT OR REPLACE INTO lease (mac, address, expires_unix, host_name) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![mac, address, lease.expires_unix, lease.host_name],
                )?;
                Ok((Part::Leases, ()))
            })
            .await
    }
}
