//! Copies of the database.

use super::{damage, marker, schema};
use crate::error::{Error, io_error};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::Access;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Copies from before an upgrade that are kept.
const COPIES_MAX: usize = 3;

/// How long a copy waits for whoever has locked the whole database.
const LOCKED_WAIT: Duration = Duration::from_millis(50);

/// Copies a database, which other processes may use, into a new file that is its owner's only. What is in its log is in the copy.
///
/// # Errors
/// There is none, it is damaged, or the copy can't be written.
pub fn copy_database(from: &Path, to: &Path) -> Result<(), Error> {
    match copy_in_use(from, to) {
        // It can't begin a log there. Where nothing can be written nobody writes.
        Err(error) if error.is_unwritable() => copy_files(from, to),
        copied => copied,
    }
}

/// The same of one that this process may use, too: it is opened by SQLite only.
///
/// # Errors
/// As [`copy_database`], and where no log can be begun.
pub(super) fn copy_in_use(from: &Path, to: &Path) -> Result<(), Error> {
    marker::check(from)?;
    match fs::metadata(from) {
        Ok(file) if file.len() == 0 => return Err(Error::NoDatabase { path: from.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoDatabase { path: from.to_owned() });
        }
        Err(error) => return Err(io_error("find the database", from)(error)),
    }
    schema::may(from, Access::READ_OK).map_err(io_error("read the database", from))?;
    let connection = schema::open_reader(from).map_err(damage::failed(from))?;
    copy(&connection, from, to)
}

/// Copies a database that nobody writes to, byte for byte: reading it through SQLite would want to write a log beside it.
/// What is in its log is in the copy, too.
pub(crate) fn copy_files(from: &Path, to: &Path) -> Result<(), Error> {
    marker::check(from)?;
    if !from.try_exists().map_err(io_error("find the database", from))? {
        return Err(Error::NoDatabase { path: from.to_owned() });
    }
    let copied = (|| {
        copy_file(from, to)?;
        let (log, log_copy) = (with_suffix(from, "-wal"), with_suffix(to, "-wal"));
        if log.try_exists().map_err(io_error("find", &log))? {
            copy_file(&log, &log_copy)?;
        }
        let failed = damage::failed(to);
        let connection = Connection::open(to).map_err(&failed)?;
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failed)
    })();
    if copied.is_err() {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(to, suffix));
        }
    }
    copied
}

fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let mut source = File::open(from).map_err(io_error("read", from))?;
    let new = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to);
    let mut new = new.map_err(io_error("make", to))?;
    io::copy(&mut source, &mut new).map(drop).map_err(io_error("write", to))
}

/// The same through a connection.
pub(super) fn copy(connection: &Connection, from: &Path, to: &Path) -> Result<(), Error> {
    let new = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to);
    let file = new.map_err(io_error("make", to))?;
    let copied = copy_into(connection, to).map_err(damage::failed(from));
    let copied = copied.and_then(|()| file.sync_all().map_err(io_error("write", to)));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

fn copy_into(connection: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut target = Connection::open(to)?;
    // If it can't be made durable as a whole it is deleted.
    target.execute_batch("PRAGMA synchronous = OFF")?;
    let backup = Backup::new(connection, &mut target)?;
    loop {
        // All at once: what others write meanwhile would make it begin again.
        match backup.step(-1)? {
            StepResult::Done => break,
            StepResult::Busy | StepResult::Locked => std::thread::sleep(LOCKED_WAIT),
            _ => {}
        }
    }
    drop(backup);
    // One file, without a log beside it.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
}

/// Checks each page of a database that nobody uses; how many machines it has.
///
/// # Errors
/// It is damaged, or of a newer Bootlace.
pub fn check_database(path: &Path) -> Result<u64, Error> {
    let failed = damage::failed(path);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = connection.map_err(&failed)?;
    let found = schema::format(&connection).map_err(&failed)?;
    if found > schema::KNOWN {
        return Err(Error::NewerDatabase { path: path.to_owned(), found, known: schema::KNOWN });
    }
    damage::check(&connection, path)?;
    if found == 0 {
        return Err(Error::NoDatabase { path: path.to_owned() });
    }
    let count = |row: &rusqlite::Row<'_>| row.get(0);
    connection.query_row("SELECT count(*) FROM machine", [], count).map_err(failed)
}

/// Keeps the database as it is before its format changes, beside it.
pub(super) fn keep_former(
    connection: &Connection,
    database: &Path,
    found: u32,
) -> Result<(), Error> {
    let path = with_suffix(database, &format!(".before-format-{}", schema::KNOWN));
    let new = with_suffix(database, ".before-format.new");
    let pages = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let size = pages("page_count").and_then(|n: u64| Ok(n * pages("page_size")?));
    let size_bytes: u64 = size.map_err(damage::failed(database))?;
    let folder = database.parent().unwrap_or(Path::new("."));
    let told = rustix::fs::statvfs(folder)
        .map_err(|error| io_error("see the room in", folder)(error.into()))?;
    let free_bytes = told.f_bavail.saturating_mul(told.f_frsize);
    // The change itself needs as much.
    if free_bytes < 2 * size_bytes {
        return Err(Error::NoRoomForCopy { path, needed_bytes: 2 * size_bytes, free_bytes });
    }
    let _ = fs::remove_file(&new);
    let reader = schema::open_reader(database).map_err(damage::failed(database))?;
    copy(&reader, database, &new)?;
    fs::rename(&new, &path).map_err(io_error("make", &path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))?;
    tracing::info!(copy = %path.display(), format = found, "the database is kept as it was before the upgrade");
    for old in former_copies(database).into_iter().skip(COPIES_MAX) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

/// Copies from before an upgrade, the newest first.
pub(super) fn former_copies(database: &Path) -> Vec<PathBuf> {
    let prefix = with_suffix(database, ".before-format-");
    let (Some(folder), Some(prefix)) = (database.parent(), prefix.file_name()) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut copies: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(prefix.to_str()?)?.parse().ok()?, entry.path()))
        })
        .collect();
    copies.sort_unstable_by(|a, b| b.cmp(a));
    copies.into_iter().map(|(_, path)| path).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
