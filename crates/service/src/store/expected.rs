//! What the database says there must be elsewhere, for who only looks.

use super::row::parse;
use super::{Transaction, copies, damage, marker, schema};
use crate::error::{Error, io_error};
use model::MachineName;
use rusqlite::Connection;
use rustix::fs::Access;
use std::path::Path;

/// What is to be there beside a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// How many machines there are.
    pub n_machines: u64,
    /// How many accounts of administrators there are.
    pub n_admins: u64,
    /// Image versions, by name and number; those that were lost, too.
    pub images: Vec<(String, u32)>,
    /// Machines of which the storage server has a disk that they keep.
    pub disks: Vec<MachineName>,
}

/// What the database expects: nothing if there is none yet. All of it is looked at, and it is only read: no file is made,
/// and an older database stays as it is.
///
/// # Errors
/// A server would not start with it: it is gone, damaged, or of a newer Bootlace. Or this user may not read it.
pub fn expected(database: &Path) -> Result<Expected, Error> {
    marker::check(database)?;
    if !database.try_exists().map_err(io_error("find the database", database))? {
        return Ok(Expected::default());
    }
    schema::may(database, Access::READ_OK).map_err(io_error("read the database", database))?;
    let n_machines = copies::check_database(database)?;
    let failed = damage::failed(database);
    let connection = schema::open_reader(database).map_err(&failed)?;
    let images = images(&connection).map_err(&failed)?;
    let disks = disks(&connection).map_err(&failed)?;
    let n_admins = n_admins(&connection).map_err(failed)?;
    Ok(Expected { n_machines, n_admins, images, disks })
}

fn images(connection: &Connection) -> rusqlite::Result<Vec<(String, u32)>> {
    // Older releases forgot what was lost.
    let lost = match connection.table_exists(None, "lost_image_version")? {
        true => "UNION SELECT image, version FROM lost_image_version",
        false => "",
    };
    let mut query = connection.prepare(&format!(
        "SELECT image, version FROM image_version {lost} ORDER BY image, version"
    ))?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn n_admins(connection: &Connection) -> rusqlite::Result<u64> {
    // Older releases had no accounts.
    match connection.table_exists(None, "user")? {
        true => Transaction::new(connection).n_admins(),
        false => Ok(0),
    }
}

fn disks(connection: &Connection) -> rusqlite::Result<Vec<MachineName>> {
    // Older releases did not note them.
    if !connection.table_exists(None, "kept_disk")? {
        return Ok(Vec::new());
    }
    let mut query = connection.prepare(
        "SELECT name FROM machine JOIN kept_disk ON machine = name WHERE write_mode = 'persistent' AND reset_disk = 0 \
         ORDER BY name",
    )?;
    query.query_map([], |row| parse(row, 0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_there_is_told_by_a_database_of_any_release() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        assert_eq!(expected(&path).unwrap(), Expected::default());
        let connection = schema::open(&path).unwrap();
        let add = "INSERT INTO machine (name, mac, root, write_mode, shelf_slot, kernel_args, reset_disk, added_unix) \
                   VALUES (?1, ?1, 'nbd', ?2, ?1, '', ?3, 0)";
        for (name, mode, reset) in [
            ("a", "persistent", 0),
            ("b", "discard", 0),
            ("c", "persistent", 1),
            ("d", "persistent", 0),
        ] {
            connection.execute(add, (name, mode, reset)).unwrap();
        }
        let kept = "INSERT INTO kept_disk VALUES ('a'), ('b'), ('c')";
        connection.execute_batch(kept).unwrap();
        let image = "INSERT INTO image_version VALUES ('debian-12', 3, '', 1, NULL, '\"ext4\"', '', NULL, 0)";
        connection.execute_batch(image).unwrap();
        let found = expected(&path).unwrap();
        let disks = vec!["a".parse().unwrap()];
        let images = vec![("debian-12".into(), 3)];
        assert_eq!(found, Expected { n_machines: 4, n_admins: 0, images, disks });
        connection.execute_batch("DROP TABLE kept_disk").unwrap();
        assert_eq!(expected(&path).unwrap().disks, []);
    }
}
