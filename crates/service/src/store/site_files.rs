//! Rows of files that are laid over machines' roots.

use super::row::{parse, parse_optional, wrong};
use super::transaction::Transaction;
use model::{FilesOf, MachineName, RoomName, SiteFile, SiteFileKind};
use rusqlite::{OptionalExtension as _, Row, params};

const COLUMNS: &str = "room, machine, path, kind, CASE kind WHEN 'link' THEN CAST(content AS TEXT) END, \
    CASE kind WHEN 'file' THEN length(content) END, digest, mode, owner, is_template, is_secret, changed_unix, changed_by";

/// Whose a row is; `?1` and `?2` are room and machine.
const OF: &str =
    "coalesce(room, '') = coalesce(?1, '') AND coalesce(machine, '') = coalesce(?2, '')";

/// What a file holds; nothing if it is no file.
pub(crate) type FileContent = Option<Vec<u8>>;

/// How much is laid by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) of: FilesOf,
    pub(crate) n: u64,
    pub(crate) n_bytes: u64,
}

impl Transaction<'_> {
    /// All files that are laid, without what is in them: the site's, rooms', and machines', by path.
    pub(crate) fn site_files(&self) -> rusqlite::Result<Vec<SiteFile>> {
        let query = format!(
            "SELECT {COLUMNS} FROM site_file ORDER BY machine IS NOT NULL, machine, room IS NOT NULL, room, path"
        );
        self.sql().prepare_cached(&query)?.query_map([], site_file)?.collect()
    }

    /// Those that could be laid over a root of this machine, each with what is in it.
    pub(crate) fn site_files_for(
        &self,
        room: Option<&RoomName>,
        machine: &MachineName,
    ) -> rusqlite::Result<Vec<(SiteFile, FileContent)>> {
        let query = format!(
            "SELECT {COLUMNS}, CASE kind WHEN 'file' THEN content END FROM site_file \
             WHERE (room IS NULL AND machine IS NULL) OR room = ?1 OR machine = ?2"
        );
        self.sql()
            .prepare_cached(&query)?
            .query_map(params![room.map(RoomName::as_str), machine.as_str()], |row| {
                Ok((site_file(row)?, row.get(13)?))
            })?
            .collect()
    }

    /// Whether there is one for this machine.
    pub(crate) fn has_site_files(
        &self,
        room: Option<&RoomName>,
        machine: &MachineName,
    ) -> rusqlite::Result<bool> {
        self.sql()
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM site_file WHERE (room IS NULL AND machine IS NULL) \
                 OR room = ?1 OR machine = ?2)",
            )?
            .query_row(params![room.map(RoomName::as_str), machine.as_str()], |row| row.get(0))
    }

    /// The file of theirs at this path, and what is in it.
    pub(crate) fn site_file(
        &self,
        of: &FilesOf,
        path: &str,
    ) -> rusqlite::Result<Option<(SiteFile, FileContent)>> {
        let (room, machine) = place(of);
        let query = format!(
            "SELECT {COLUMNS}, CASE kind WHEN 'file' THEN content END FROM site_file WHERE {OF} AND path = ?3"
        );
        self.sql()
            .prepare_cached(&query)?
            .query_row(params![room, machine, path], |row| Ok((site_file(row)?, row.get(13)?)))
            .optional()
    }

    /// Lays a file, in place of the one of theirs at its path.
    pub(crate) fn put_site_file(
        &self,
        file: &SiteFile,
        content: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        self.delete_site_file(&file.of(), &file.path)?;
        let of = file.of();
        let (room, machine) = place(&of);
        let content = content.or(file.target.as_deref().map(str::as_bytes));
        self.sql()
            .prepare_cached(
                "INSERT INTO site_file (room, machine, path, kind, content, digest, mode, owner, is_template, is_secret, \
                 changed_unix, changed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                room,
                machine,
                file.path,
                match file.kind {
                    SiteFileKind::File => "file",
                    SiteFileKind::Link => "link",
                    SiteFileKind::Gone => "gone",
                },
                content,
                file.digest,
                file.mode.map(|mode| mode.to_string()),
                file.owner.map(|owner| owner.to_string()),
                file.template,
                file.secret,
                file.changed_unix,
                file.changed_by,
            ])
            .map(drop)
    }

    /// Lays nothing of theirs there any more; whether there was something.
    pub(crate) fn delete_site_file(&self, of: &FilesOf, path: &str) -> rusqlite::Result<bool> {
        let (room, machine) = place(of);
        let delete = format!("DELETE FROM site_file WHERE {OF} AND path = ?3");
        self.sql().execute(&delete, params![room, machine, path]).map(|n_rows| n_rows > 0)
    }

    /// How much each lays, if each entry needs so many bytes beside its path and content, and each placeholder of a template
    /// becomes so much longer.
    pub(crate) fn weights_of_site_files(
        &self,
        entry_bytes: u64,
        longer: u64,
    ) -> rusqlite::Result<Vec<Weight>> {
        self.sql()
            .prepare_cached(
                "SELECT room, machine, count(*), sum(?1 + length(CAST(path AS BLOB)) \
                 + coalesce(length(content), 0) + CASE WHEN is_template THEN ?2 * \
                   ((length(CAST(content AS TEXT)) - length(replace(CAST(content AS TEXT), '{{bootlace.', ''))) / 11) \
                   ELSE 0 END) FROM site_file GROUP BY room, machine",
            )?
            .query_map([entry_bytes, longer], |row| {
                let (room, machine) = (parse_optional(row, 0)?, parse_optional(row, 1)?);
                let of = match (room, machine) {
                    (_, Some(machine)) => FilesOf::Machine(machine),
                    (Some(room), None) => FilesOf::Room(room),
                    (None, None) => FilesOf::Site,
                };
                Ok(Weight { of, n: row.get(2)?, n_bytes: row.get(3)? })
            })?
            .collect()
    }
}

fn place(of: &FilesOf) -> (Option<&str>, Option<&str>) {
    (of.room().map(RoomName::as_str), of.machine().map(MachineName::as_str))
}

fn site_file(row: &Row<'_>) -> rusqlite::Result<SiteFile> {
    Ok(SiteFile {
        room: parse_optional(row, 0)?,
        machine: parse_optional(row, 1)?,
        path: row.get(2)?,
        kind: match row.get_ref(3)?.as_str()? {
            "file" => SiteFileKind::File,
            "link" => SiteFileKind::Link,
            "gone" => SiteFileKind::Gone,
            other => {
                let error = std::io::Error::other(format!("no kind of file: {other}"));
                return Err(wrong(3, error));
            }
        },
        target: row.get(4)?,
        size_bytes: row.get(5)?,
        digest: row.get(6)?,
        mode: parse_optional(row, 7)?,
        owner: parse_optional(row, 8)?,
        template: row.get(9)?,
        secret: row.get(10)?,
        changed_unix: row.get(11)?,
        changed_by: parse::<String>(row, 12)?,
    })
}
