//! What a damaged database and a broken disk say, and what helps.

use super::copies::former_copies;
use crate::error::{Error, Unwritable};
use rusqlite::{Connection, ErrorCode};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What SQLite says. The source of its error says the same in other words, so this has none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SqliteError(pub(super) Arc<rusqlite::Error>);

/// SQLite refuses to use the database at `path`.
pub(super) fn refused(path: &Path, error: impl Into<Arc<rusqlite::Error>>) -> Error {
    let error = error.into();
    match unwritable(path, &error) {
        Some(why) => Error::Unwritable { path: path.to_owned(), why },
        None => Error::Database { path: path.to_owned(), source: Arc::new(SqliteError(error)) },
    }
}

/// What is said of an error of SQLite as the database is opened.
pub(super) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            damaged(path, source.to_string())
        }
        Some(ErrorCode::SystemIoFailure) => match refused(path, source) {
            Error::Database { path, source } => Error::DiskBroken { path, source },
            refused => refused,
        },
        _ => refused(path, source),
    }
}

/// Whether the disk is full or read-only, of which SQLite says the first clearly only if it has its log already.
fn unwritable(path: &Path, error: &rusqlite::Error) -> Option<Unwritable> {
    match error.sqlite_error_code()? {
        ErrorCode::DiskFull => Some(Unwritable::Full),
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly => {
            let folder = path.parent().unwrap_or(Path::new("."));
            Unwritable::of(write_something(folder).err()?.kind())
        }
        _ => None,
    }
}

/// Writes as much as SQLite needs to begin a log, and removes it.
fn write_something(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".probe-{}", std::process::id()));
    let written = fs::write(&path, [0; 64 << 10]);
    let _ = fs::remove_file(path);
    written
}

fn damaged(path: &Path, why: String) -> Error {
    let copies = former_copies(path);
    let copy = copies.first().map_or_else(String::new, |copy| {
        format!("; a copy from before the last upgrade is {}", copy.display())
    });
    Error::DatabaseDamaged { path: path.to_owned(), why, copy }
}

/// Looks at the whole database, of which a part may be missing.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), Error> {
    let first = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match first.map_err(failed(path))?.as_str() {
        "ok" => Ok(()),
        why => Err(damaged(path, why.replace('\n', " "))),
    }
}
