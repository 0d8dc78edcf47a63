//! Room on the disk that is the state's own: a full disk stops neither leases nor boots.
//!
//! The database and its log have free pages in them, so that what boots write needs no room of the file system. Beside
//! them lies a file that is given up if it needs some after all. The pages are taken from what becomes free then at once,
//! before others do.

use super::damage::SqliteError;
use crate::error::{Error, Unwritable};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Size of the file that is given up: twice what is claimed then, and as much for what else lies there.
const RESERVE_BYTES: u64 = 16 << 20;

/// Free pages in the database, and the length of its log: SQLite begins the log from its start again at this length.
const CLAIMED_BYTES: u64 = 4 << 20;

/// The file that is given up, beside a database.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn beside(database: &Path) -> Self {
        Self { path: database.with_extension("reserve") }
    }

    /// Whether it is there.
    pub(crate) fn is_kept(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == RESERVE_BYTES)
    }

    /// Whether the disk is full, or nearly.
    pub(crate) fn is_needed(&self) -> io::Result<bool> {
        Ok(!self.is_kept() || self.free_bytes()? < RESERVE_BYTES)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let told = rustix::fs::statvfs(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }

    /// Makes room. Returns whether it was there.
    pub(crate) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }

    /// Makes it, if it is not there and the disk has twice that room.
    pub(crate) fn make(&self) -> io::Result<()> {
        if self.is_kept() || self.free_bytes()? < 2 * RESERVE_BYTES {
            return Ok(());
        }
        let file = File::create(&self.path)?;
        let made =
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES);
        if let Err(error) = made {
            self.give_up();
            return Err(error.into());
        }
        file.sync_all()
    }
}

/// Whether this is what a full disk says.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    // A log that can't be made longer says only that it can't.
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    )
}

/// Whether a site could not be opened because its disk is full.
pub(crate) fn is_full_disk(error: &Error) -> bool {
    match error {
        Error::Database { source, .. } | Error::DiskBroken { source, .. } => {
            (**source).downcast_ref::<SqliteError>().is_some_and(|error| is_full(&error.0))
        }
        Error::Unwritable { why, .. } => *why == Unwritable::Full,
        _ => false,
    }
}

/// Sees to it that the database and its log have free pages.
pub(super) fn claim(connection: &Connection, database: &Path) -> rusqlite::Result<()> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let (n_free, page_bytes): (u64, u64) = (pragma("freelist_count")?, pragma("page_size")?);
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log_bytes = fs::metadata(log).map_or(0, |file| file.len());
    if n_free * page_bytes >= CLAIMED_BYTES / 2 && log_bytes >= CLAIMED_BYTES {
        return Ok(());
    }
    // Two transactions: pages that are freed in the one that takes them are never written.
    let taken = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    taken.execute_batch(&format!(
        "DROP TABLE IF EXISTS room; CREATE TABLE room (bytes BLOB); \
         INSERT INTO room VALUES (zeroblob({CLAIMED_BYTES}));"
    ))?;
    taken.commit()?;
    connection.execute_batch("DROP TABLE room")?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    #[test]
    fn claiming_pages_drops_no_table_of_the_site() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = crate::store::schema::open(&path).unwrap();
        let tables = || -> Vec<String> {
            let names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
            let mut query = connection.prepare(names).unwrap();
            let names = query.query_map([], |row| row.get(0)).unwrap();
            names.collect::<rusqlite::Result<_>>().unwrap()
        };
        let before = tables();
        claim(&connection, &path).unwrap();
        assert_eq!(tables(), before);
    }

    #[test]
    fn claimed_pages_take_what_is_written_without_the_file_growing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let connection = super::super::schema::open(&path).unwrap();
        claim(&connection, &path).unwrap();
        let lengths = || {
            let length = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
            (length("state.db"), length("state.db-wal"))
        };
        let claimed = lengths();
        assert!(claimed.0 > CLAIMED_BYTES && claimed.1 > CLAIMED_BYTES, "{claimed:?}");
        claim(&connection, &path).unwrap();
        assert_eq!(lengths(), claimed, "it is there already");
        for n in 0..500 {
            let write = "INSERT INTO seen (mac, firmware, host_name, first_unix, last_unix) VALUES (?1, 0, ?2, 0, 0)";
            connection.execute(write, (n, "x".repeat(1000))).unwrap();
        }
        assert_eq!(lengths(), claimed);
    }

    #[tokio::test]
    async fn the_reserve_is_given_up_once_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let reserve = Reserve::beside(&path);
        assert!(!reserve.give_up() && !reserve.is_kept());
        reserve.make().unwrap();
        assert!(reserve.is_kept() && !reserve.is_needed().unwrap());
        let database = Database::open(&path).unwrap();
        let full = || {
            database.write(|_| {
                let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
                Err::<(), _>(rusqlite::Error::SqliteFailure(error, None).into())
            })
        };
        assert!(full().await.is_err());
        assert!(reserve.is_kept(), "only who keeps room gives it up");
        database.keep_room();
        assert!(full().await.is_err());
        assert!(!reserve.is_kept() && database.is_disk_full());
        reserve.make().unwrap();
        assert!(reserve.is_kept());
    }

    #[tokio::test]
    async fn a_database_that_is_never_idle_keeps_room_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (database, reserve) = (Database::open(&path).unwrap(), Reserve::beside(&path));
        database.keep_room();
        let busy = async {
            while !reserve.is_kept() {
                database.write(|_| Ok(())).await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), busy).await.unwrap();
    }
}
