//! Rows of disks that machines have beside their roots.

use super::row::{parse, parse_optional};
use super::transaction::{Part, Transaction};
use model::{DiskTag, DiskWhat, FilesOf, FurtherDisk, MachineName, RoomName, SiteDisk};
use rusqlite::{OptionalExtension as _, Row, params};

const COLUMNS: &str = "room, machine, name, image, told, changed_unix, changed_by";

impl Transaction<'_> {
    /// All of them: the site's, rooms', and machines', by name.
    pub(crate) fn site_disks(&self) -> rusqlite::Result<Vec<SiteDisk>> {
        let query = format!(
            "SELECT {COLUMNS} FROM site_disk ORDER BY machine IS NOT NULL, machine, room IS NOT NULL, room, name"
        );
        self.sql().prepare_cached(&query)?.query_map([], site_disk)?.collect()
    }

    /// Theirs of this name.
    pub(crate) fn site_disk(
        &self,
        of: &FilesOf,
        name: &DiskTag,
    ) -> rusqlite::Result<Option<SiteDisk>> {
        let query = format!(
            "SELECT {COLUMNS} FROM site_disk WHERE coalesce(room, '') = coalesce(?1, '') \
             AND coalesce(machine, '') = coalesce(?2, '') AND name = ?3"
        );
        let (room, machine) = place(of);
        self.sql()
            .prepare_cached(&query)?
            .query_row(params![room, machine, name.as_str()], site_disk)
            .optional()
    }

    /// They have this one, in place of theirs of its name.
    pub(crate) fn put_site_disk(&self, disk: &SiteDisk) -> rusqlite::Result<()> {
        let of = disk.of();
        self.delete_site_disk(&of, &disk.name)?;
        let (room, machine) = place(&of);
        let told = disk.what.as_ref().map(|what| what.as_told(&disk.name).to_string());
        self.sql()
            .prepare_cached(
                "INSERT INTO site_disk (room, machine, name, image, told, changed_unix, changed_by) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                room,
                machine,
                disk.name.as_str(),
                disk.what.as_ref().map(|what| what.image.to_string()),
                told,
                disk.changed_unix,
                disk.changed_by,
            ])
            .map(drop)
    }

    /// They have theirs of this name no more; whether there was one.
    pub(crate) fn delete_site_disk(&self, of: &FilesOf, name: &DiskTag) -> rusqlite::Result<bool> {
        self.touch(Part::Disks);
        let (room, machine) = place(of);
        let delete = "DELETE FROM site_disk WHERE coalesce(room, '') = coalesce(?1, '') \
                      AND coalesce(machine, '') = coalesce(?2, '') AND name = ?3";
        let n_rows = self.sql().execute(delete, params![room, machine, name.as_str()])?;
        Ok(n_rows > 0)
    }
}

fn place(of: &FilesOf) -> (Option<&str>, Option<&str>) {
    (of.room().map(RoomName::as_str), of.machine().map(MachineName::as_str))
}

fn site_disk(row: &Row<'_>) -> rusqlite::Result<SiteDisk> {
    let (image, told): (_, Option<FurtherDisk>) =
        (parse_optional(row, 3)?, parse_optional(row, 4)?);
    let what = Option::zip(image, told).map(|(image, told)| DiskWhat {
        image,
        writes: told.writes,
        purpose: told.purpose,
    });
    Ok(SiteDisk {
        room: parse_optional(row, 0)?,
        machine: parse_optional(row, 1)?,
        name: parse(row, 2)?,
        what,
        changed_unix: row.get(5)?,
        changed_by: row.get(6)?,
    })
}
