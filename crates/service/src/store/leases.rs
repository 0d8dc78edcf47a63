//! Rows of leases.

use super::row::parse;
use super::transaction::{Part, Transaction};
use model::Lease;
use rusqlite::{OptionalExtension as _, Row, params};
use std::net::Ipv4Addr;
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

    /// Stores a lease, in place of the NIC's former one and of any other for the address. From now on it lasts
    /// `length_seconds`.
    pub(crate) fn put_lease(&self, lease: &Lease, length_seconds: u32) -> rusqlite::Result<()> {
        let (mac, address) = (lease.mac.to_string(), lease.address.to_string());
        let former: Option<Mac> = self
            .sql()
            .prepare_cached("DELETE FROM lease WHERE address = ?1 AND mac <> ?2 RETURNING mac")?
            .query_row([&address, &mac], |row| parse(row, 0))
            .optional()?;
        self.sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO lease (mac, address, expires_unix, host_name, length_seconds) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                mac,
                address,
                lease.expires_unix,
                lease.host_name,
                length_seconds
            ])?;
        for mac in former.into_iter().chain([lease.mac]) {
            self.touch(Part::Lease(mac));
        }
        let forget = "DELETE FROM declined_by WHERE address = ?1";
        if self.sql().prepare_cached(forget)?.execute([&address])? > 0 {
            self.touch(Part::Declined);
        }
        Ok(())
    }

    /// Stores leases of addresses that nobody else has, in place of what these NICs had before. Many are one after the
    /// other stored here, and read again together.
    pub(crate) fn put_leases(&self, leases: &[(Lease, u32)]) -> rusqlite::Result<()> {
        let mut insert = self.sql().prepare_cached(
            "INSERT OR REPLACE INTO lease (mac, address, expires_unix, host_name, length_seconds) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (lease, length_seconds) in leases {
            let (mac, address) = (lease.mac.to_string(), lease.address.to_string());
            let Lease { expires_unix, host_name, .. } = lease;
            insert.execute(params![mac, address, expires_unix, host_name, length_seconds])?;
        }
        self.touch(Part::Leases);
        Ok(())
    }

    /// Forgets the lease of this address, ended or not; whose it was, and until when.
    pub(crate) fn delete_lease(&self, address: Ipv4Addr) -> rusqlite::Result<Option<Lease>> {
        let deleted = self
            .sql()
            .prepare_cached(
                "DELETE FROM lease WHERE address = ?1 RETURNING mac, address, expires_unix, host_name",
            )?
            .query_row([address.to_string()], lease)
            .optional()?;
        if let Some(lease) = &deleted {
            self.touch(Part::Lease(lease.mac));
        }
        Ok(deleted)
    }

    /// The address can be given again; until when it could not, if that is so.
    pub(crate) fn delete_declined(&self, address: Ipv4Addr) -> rusqlite::Result<Option<u64>> {
        let address = address.to_string();
        let until = self
            .sql()
            .prepare_cached("DELETE FROM declined_address WHERE address = ?1 RETURNING until_unix")?
            .query_row([&address], |row| row.get(0))
            .optional()?;
        self.sql().execute("DELETE FROM declined_by WHERE address = ?1", [&address])?;
        self.touch(Part::Declined);
        Ok(until)
    }

    /// Nobody gets the address until then, and its lease ends. Whose it was is remembered as long: anybody can decline
    /// it in his name.
    pub(crate) fn put_declined(
        &self,
        address: Ipv4Addr,
        until_unix: u64,
        now_unix: u64,
    ) -> rusqlite::Result<()> {
        let text = address.to_string();
        let former: Option<Mac> = self
            .sql()
            .prepare_cached("DELETE FROM lease WHERE address = ?1 RETURNING mac")?
            .query_row([&text], |row| parse(row, 0))
            .optional()?;
        if let Some(mac) = former {
            self.touch(Part::Lease(mac));
        }
        // So that no more are there than can be declined in that time.
        self.sql()
            .prepare_cached("DELETE FROM declined_address WHERE until_unix <= ?1")?
            .execute([now_unix])?;
        self.sql()
            .prepare_cached("INSERT OR REPLACE INTO declined_address VALUES (?1, ?2)")?
            .execute(params![text, until_unix])?;
        self.sql().execute(
            "DELETE FROM declined_by WHERE address NOT IN (SELECT address FROM declined_address)",
            [],
        )?;
        if let Some(mac) = former {
            let insert = "INSERT OR REPLACE INTO declined_by VALUES (?1, ?2)";
            self.sql().execute(insert, [text, mac.to_string()])?;
        }
        self.touch(Part::Declined);
        Ok(())
    }

    /// Addresses that were declined lately and that nobody had since, and in whose names.
    pub(super) fn declined_by(&self) -> rusqlite::Result<Vec<(Ipv4Addr, Mac)>> {
        self.sql()
            .prepare_cached("SELECT address, mac FROM declined_by")?
            .query_map([], |row| Ok((parse(row, 0)?, parse(row, 1)?)))?
            .collect()
    }

    /// Addresses that nobody gets, and until when.
    pub(crate) fn declined(&self) -> rusqlite::Result<Vec<(Ipv4Addr, u64)>> {
        self.sql()
            .prepare_cached("SELECT address, until_unix FROM declined_address")?
            .query_map([], |row| Ok((parse(row, 0)?, row.get(1)?)))?
            .collect()
    }

    /// The wall clock was set, and is at `now_unix`: what was to end then ends so much later, or earlier.
    pub(crate) fn shift_leases(&self, seconds: i64, now_unix: u64) -> rusqlite::Result<()> {
        // A sum that is too large would become a fraction, which the table refuses.
        self.sql().execute(
            "UPDATE lease SET expires_unix = max(0, min(expires_unix, ?2 - max(0, ?1)) + ?1)",
            [seconds, i64::MAX],
        )?;
        self.bound_leases(now_unix)?;
        self.touch(Part::Leases);
        Ok(())
    }

    /// No lease has more time left than it was given for: one that has was stored by a clock that was ahead.
    pub(crate) fn bound_leases(&self, now_unix: u64) -> rusqlite::Result<()> {
        let n_rows = self.sql().execute(
            "UPDATE lease SET expires_unix = ?1 + length_seconds WHERE expires_unix > ?1 + length_seconds",
            [now_unix],
        )?;
        if n_rows > 0 {
            self.touch(Part::Leases);
        }
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
