//! Rows of machines.

use super::row::{parse, parse_optional};
use super::schema;
use super::transaction::{Part, Transaction};
use crate::error::Error;
use model::{ImageName, Machine, MachineName, RootUrl};
use rusqlite::{OptionalExtension as _, Row, params};
use std::path::Path;
use wire::Mac;

const COLUMNS: &str =
    "name, mac, image, root, root_url, write_mode, shelf_slot, kernel_args, reset_disk";

/// How many machines the database has. It is only read: no file is made, and an older database stays as it is.
///
/// # Errors
/// There is no such database, or it can't be read.
pub fn count_machines(database: &Path) -> Result<u64, Error> {
    let failed = |source| Error::database(database, source);
    let connection = schema::open_reader(database).map_err(failed)?;
    connection.query_row("SELECT count(*) FROM machine", [], |row| row.get(0)).map_err(failed)
}

impl Transaction<'_> {
    /// All machines, by name.
    pub(crate) fn machines(&self) -> rusqlite::Result<Vec<Machine>> {
        let query = format!("SELECT {COLUMNS} FROM machine ORDER BY name");
        self.sql().prepare_cached(&query)?.query_map([], machine)?.collect()
    }

    /// The machine of this name.
    pub(crate) fn machine(&self, name: &MachineName) -> rusqlite::Result<Option<Machine>> {
        let query = format!("SELECT {COLUMNS} FROM machine WHERE name = ?1");
        self.sql().prepare_cached(&query)?.query_row([name.as_str()], machine).optional()
    }

    /// Name of the machine with this boot NIC.
    pub(crate) fn name_of(&self, mac: Mac) -> rusqlite::Result<Option<MachineName>> {
        self.sql()
            .prepare_cached("SELECT name FROM machine WHERE mac = ?1")?
            .query_row([mac.to_string()], |row| parse(row, 0))
            .optional()
    }

    /// Adds a machine, or changes the one of this name: all but its AoE address.
    pub(crate) fn put_machine(&self, machine: &Machine, now_unix: u64) -> rusqlite::Result<()> {
        self.sql().execute(
            "INSERT INTO machine (name, mac, image, root, write_mode, shelf_slot, kernel_args, reset_disk, \
             added_unix, root_url) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (name) DO UPDATE SET mac = excluded.mac, image = excluded.image, \
             root = excluded.root, write_mode = excluded.write_mode, kernel_args = excluded.kernel_args, \
             reset_disk = excluded.reset_disk, root_url = excluded.root_url",
            params![
                machine.name.as_str(),
                machine.mac.to_string(),
                machine.image.as_ref().map(ImageName::as_str),
                machine.root.to_string(),
                machine.write_mode.to_string(),
                machine.shelf_slot.to_string(),
                machine.kernel_args.as_str(),
                machine.reset_disk,
                now_unix,
                machine.root_url.as_ref().map(RootUrl::to_string),
            ],
        )?;
        self.touch(Part::Machines);
        self.forget_hardware_of_strangers()
    }

    /// The machine's disk has been thrown away, as it was asked for.
    pub(crate) fn disk_was_reset(&self, name: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("UPDATE machine SET reset_disk = 0 WHERE name = ?1", [name.as_str()])?;
        self.touch(Part::Machines);
        Ok(())
    }

    /// Removes a machine, and what only machines have.
    pub(crate) fn delete_machine(&self, name: &MachineName) -> rusqlite::Result<()> {
        self.sql().execute("DELETE FROM machine WHERE name = ?1", [name.as_str()])?;
        self.touch(Part::Machines);
        self.touch(Part::Rescues);
        self.forget_hardware_of_strangers()
    }
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Machine> {
    Ok(Machine {
        name: parse(row, 0)?,
        mac: parse(row, 1)?,
        image: parse_optional(row, 2)?,
        root: parse(row, 3)?,
        root_url: parse_optional(row, 4)?,
        write_mode: parse(row, 5)?,
        shelf_slot: parse(row, 6)?,
        kernel_args: parse(row, 7)?,
        reset_disk: row.get(8)?,
    })
}
