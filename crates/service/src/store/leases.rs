//! Rows of leases.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::Lease;
use rusqlite::{OptionalExtension as _, Row, params};
use wire::Mac;

impl Transaction<'_> {
    /// All leases, ended ones too.
    pub(crate) fn leases(&self) -> rusqlite::Result<Vec<Lease>> {
        self.sql()
            .prepare_cached("SELECT mac, address, expires_unix, host_name FROM lease")?
            .query_map([], lease)?
            .collect()
    }

    /// The lease of a NIC, ended or not.
    pub(crate) fn lease(&self, mac: Mac) -> rusqlite::Result<Option<Lease>> {
        self.sql()
            .prepare_cached(
                "SELECT mac, address, expires_unix, host_name FROM lease WHERE mac = ?1",
            )?
            .query_row([mac.to_string()], lease)
            .optional()
    }

    /// Stores a lease, in place of the NIC's former one and of any other for the address.
    pub(crate) fn put_lease(&self, lease: &Lease) -> rusqlite::Result<()> {
        let (mac, address) = (lease.mac.to_string(), lease.address.to_string());
        let former: Option<Mac> = self
            .sql()
            .prepare_cached("DELETE FROM lease WHERE address = ?1 AND mac <> ?2 RETURNING mac")?
            .query_row([&address, &mac], |row| parse(row, 0))
            .optional()?;
        self.sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO lease (mac, address, expires_unix, host_name) \
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![mac, address, lease.expires_unix, lease.host_name])?;
        for mac in former.into_iter().chain([lease.mac]) {
            self.touch(Part::Lease(mac));
        }
        Ok(())
    }

    /// The wall clock was set: what was to end then ends so much later, or earlier.
    pub(crate) fn shift_leases(&self, seconds: i64) -> rusqlite::Result<()> {
        // One that never ends stays so: a sum that is too large would become a fraction, which the table refuses.
        self.sql().execute(
            "UPDATE lease SET expires_unix = max(0, min(expires_unix, ?2 - max(0, ?1)) + ?1)",
            [seconds, i64::MAX],
        )?;
        self.touch(Part::Leases);
        Ok(())
    }
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease {
        mac: parse(row, 0)?,
        address: parse(row, 1)?,
        expires_unix: row.get(2)?,
        host_name: row.get(3)?,
    })
}
