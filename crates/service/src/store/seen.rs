//! Rows of PCs that asked for a loader, whether they are machines or not.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use model::{Firmware, Seen};
use rusqlite::{OptionalExtension as _, Row, params};
use std::net::Ipv4Addr;
use wire::Mac;

/// PCs that are remembered, and beyond them machines. Who invents hardware addresses can't fill the disk; the oldest go
/// first.
const SEEN_MAX: u32 = 2048;

const COLUMNS: &str = "mac, firmware, address, uuid, first_unix, last_unix";

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

impl Transaction<'_> {
    /// All PCs that are remembered.
    pub(crate) fn all_seen(&self) -> rusqlite::Result<Vec<Seen>> {
        let query = format!("SELECT {COLUMNS} FROM seen");
        self.sql().prepare_cached(&query)?.query_map([], seen)?.collect()
    }

    /// What is remembered of the PC with this NIC.
    pub(crate) fn seen(&self, mac: Mac) -> rusqlite::Result<Option<Seen>> {
        let query = format!("SELECT {COLUMNS} FROM seen WHERE mac = ?1");
        self.sql().prepare_cached(&query)?.query_row([mac.to_string()], seen).optional()
    }

    /// Forgets a PC.
    pub(crate) fn delete_sighting(&self, mac: Mac) -> rusqlite::Result<()> {
        self.sql().prepare_cached("DELETE FROM seen WHERE mac = ?1")?.execute([mac.to_string()])?;
        self.touch(Part::Seen(mac));
        Ok(())
    }

    /// Remembers a PC, and forgets the oldest if there are too many.
    pub(crate) fn put_sighting(&self, sighting: &Sighting, now_unix: u64) -> rusqlite::Result<()> {
        let is_new = self.seen(sighting.mac)?.is_none();
        self.sql()
            .prepare_cached(
                "INSERT INTO seen (mac, firmware, address, uuid, host_name, first_unix, last_unix) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) \
                 ON CONFLICT (mac) DO UPDATE SET firmware = excluded.firmware, \
                 address = coalesce(excluded.address, address), \
                 uuid = coalesce(excluded.uuid, uuid), \
                 host_name = coalesce(excluded.host_name, host_name), \
                 last_unix = excluded.last_unix",
            )?
            .execute(params![
                sighting.mac.to_string(),
                sighting.firmware.code(),
                sighting.address.map(|address| address.to_string()),
                sighting.uuid,
                sighting.host_name,
                now_unix,
            ])?;
        self.touch(Part::Seen(sighting.mac));
        if !is_new {
            return Ok(());
        }
        let mut forget = self.sql().prepare_cached(&format!(
            // A machine's UUID is remembered: by it another of its NICs is known.
            "DELETE FROM seen WHERE mac IN \
             (SELECT mac FROM seen ORDER BY last_unix DESC, mac LIMIT -1 OFFSET {SEEN_MAX}) \
             AND mac NOT IN (SELECT mac FROM machine) AND mac NOT IN (SELECT mac FROM machine_mac) \
             RETURNING mac",
        ))?;
        for mac in forget.query_map([], |row| parse(row, 0))? {
            self.touch(Part::Seen(mac?));
        }
        Ok(())
    }
}

fn seen(row: &Row<'_>) -> rusqlite::Result<Seen> {
    Ok(Seen {
        mac: parse(row, 0)?,
        firmware: Firmware::of_code(row.get(1)?),
        address: parse_optional(row, 2)?,
        uuid: row.get(3)?,
        first_unix: row.get(4)?,
        last_unix: row.get(5)?,
    })
}
