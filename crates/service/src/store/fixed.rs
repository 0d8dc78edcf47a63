//! Rows of addresses that belong to one NIC for ever, beside those in the configuration.

use super::row::parse;
use super::transaction::{Part, Transaction};
use rusqlite::OptionalExtension as _;
use std::net::Ipv4Addr;
use wire::Mac;

impl Transaction<'_> {
    /// All of them.
    pub(crate) fn fixed_addresses(&self) -> rusqlite::Result<Vec<(Mac, Ipv4Addr)>> {
        self.sql()
            .prepare_cached("SELECT mac, address FROM fixed_address")?
            .query_map([], |row| Ok((parse(row, 0)?, parse(row, 1)?)))?
            .collect()
    }

    /// The address is this NIC's for ever, in place of the one that it had; which is nobody else's.
    pub(crate) fn put_fixed_address(&self, mac: Mac, address: Ipv4Addr) -> rusqlite::Result<()> {
        self.sql().execute(
            "INSERT OR REPLACE INTO fixed_address (mac, address) VALUES (?1, ?2)",
            [mac.to_string(), address.to_string()],
        )?;
        self.touch(Part::Fixed);
        Ok(())
    }

    /// The address is nobody's for ever any more; whose it was.
    pub(crate) fn delete_fixed_address(&self, address: Ipv4Addr) -> rusqlite::Result<Option<Mac>> {
        let delete = "DELETE FROM fixed_address WHERE address = ?1 RETURNING mac";
        let address = address.to_string();
        let deleted = self.sql().query_row(delete, [address], |row| parse(row, 0)).optional()?;
        self.touch(Part::Fixed);
        Ok(deleted)
    }
}
