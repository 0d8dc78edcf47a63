//! PCs that asked for a loader, whether they are machines or not.

use crate::error::Error;
use crate::service::{Service, now_unix};
use crate::store::view::Part;
use model::Firmware;
use rusqlite::params;
use std::net::Ipv4Addr;
use wire::Mac;

/// PCs that are remembered. Who invents hardware addresses can't fill the disk; the oldest go first.
const SEEN_MAX: u32 = 2048;

/// A PC asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its NIC.
    pub mac: Mac,
    /// Its firmware.
    pub firmware: Firmware,
    /// Address it was given.
    pub address: Option<Ipv4Addr>,
    /// SMBIOS UUID, if it sent one.
    pub uuid: Option<String>,
    /// Host name that it sent.
    pub host_name: Option<String>,
}

impl Service {
    /// Notes that a PC asked, so that it appears among the discovered ones.
    ///
    /// # Errors
    /// The database can't be written, or too many changes wait.
    pub async fn saw(&self, sighting: Sighting) -> Result<(), Error> {
        let now = now_unix();
        self.database()
            .write(move |connection| {
                connection.execute(
                    "INSERT INTO seen (mac, firmware, address, uuid, host_name, first_unix, last_unix) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) \
                     ON CONFLICT (mac) DO UPDATE SET firmware = excluded.firmware, \
                     address = coalesce(excluded.address, address), \
                     uuid = coalesce(excluded.uuid, uuid), \
                     host_name = coalesce(excluded.host_name, host_name), \
                     last_unix = excluded.last_unix",
                    params![
                        sighting.mac.to_string(),
                        sighting.firmware.code(),
                        sighting.address.map(|address| address.to_string()),
                        sighting.uuid,
                        sighting.host_name,
                        now,
                    ],
                )?;
                connection.execute(
                    "DELETE FROM seen WHERE mac IN \
                     (SELECT mac FROM seen ORDER BY last_unix DESC, mac LIMIT -1 OFFSET ?1)",
                    [SEEN_MAX],
                )?;
                Ok((Part::Seen, ()))
            })
            .await
    }
}
