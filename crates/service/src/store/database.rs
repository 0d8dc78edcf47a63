//! The one writer: a handle of the thread that owns the database connection.
//!
//! Changes that arrive together are stored in one transaction, so that a class room of PCs that asks
//! for addresses at once costs a few disk flushes and not one for each PC.

use super::place::Place;
use super::reserve::Reserve;
use super::transaction::{ChangeError, Transaction};
use super::view::View;
use super::writer::{Applied, Change, Locked, Room, State, Work, Writer, data_version, lock};
use super::{copies, damage, schema};
use crate::error::Error;
use rusqlite::Connection;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{oneshot, watch};

/// Changes that may wait for the disk: two of each PC that gets an address, which may be 2,000 a second, and the disk may be busy
/// for a second.
const WAITING_CHANGES_MAX: usize = 4096;

/// Handle of the writer. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Database {
    path: Arc<Path>,
    queue: SyncSender<Work>,
    view: watch::Receiver<Arc<View>>,
    /// Why the last change could not be stored.
    trouble: Arc<Mutex<Option<String>>>,
    state: Arc<Mutex<State>>,
    room: Arc<Room>,
}

impl Database {
    /// Opens the database and starts its writer.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = schema::open(path)?;
        let failed = damage::failed(path);
        let version = data_version(&connection).map_err(&failed)?;
        let view = View::load(&Transaction::new(&connection)).map_err(failed)?;
        let (publish, view) = watch::channel(Arc::new(view));
        let (queue, changes) = sync_channel(WAITING_CHANGES_MAX);
        let room = Arc::new(Room {
            reserve: Reserve::beside(path),
            is_kept: AtomicBool::new(false),
            is_disk_full: AtomicBool::new(false),
            is_claim_due: AtomicBool::new(false),
        });
        let state = Arc::<Mutex<State>>::default();
        let writer = Writer {
            place: Place::of(path),
            state: Arc::clone(&state),
            path: path.to_owned(),
            connection,
            publish,
            version,
            room: Arc::clone(&room),
            n_looks: 0,
        };
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer.run(&changes))
            .map_err(|source| Error::Io {
                action: "start a thread for",
                path: path.into(),
                source,
            })?;
        Ok(Self { path: path.into(), queue, view, trouble: Arc::default(), state, room })
    }

    /// The state as of the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Why the last change could not be stored; `None` if it was.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the open database is not the one of its name any more; `None`: it is.
    pub(crate) fn gone(&self) -> Option<Error> {
        Some(lock(&self.state).gone?.error(&self.path))
    }

    /// Another process keeps this one from writing.
    pub(crate) fn locked(&self) -> Option<Locked> {
        lock(&self.state).locked.clone()
    }

    /// Copies the database, as it is open here, into a new file.
    pub(crate) async fn copy(&self, to: &Path) -> Result<(), Error> {
        let (path, to) = (Arc::clone(&self.path), to.to_owned());
        let (sender, receiver) = oneshot::channel();
        // Through another connection, so that no change waits. That finds it by its name.
        if self.gone().is_none() {
            tokio::task::spawn_blocking(move || sender.send(copies::copy_in_use(&path, &to)));
        } else {
            let copy = move |connection: &Connection| {
                let _ = sender.send(copies::copy(connection, &path, &to));
            };
            self.queue.try_send(Work::Copy(Box::new(copy))).map_err(|_| Error::Busy)?;
        }
        receiver.await.map_err(|_| Error::Stopping)?
    }

    /// From now on this process keeps room on the disk for what is stored.
    pub(crate) fn keep_room(&self) {
        self.room.is_kept.store(true, Ordering::Relaxed);
    }

    /// Whether the disk is full, or the room that is kept there is in use, as far as this process looks.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.room.is_disk_full.load(Ordering::Relaxed)
    }

    /// Wakes up at each new state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Waits until the writer has ended though handles are left: a change has panicked, and nothing can be stored
    /// any more.
    pub(crate) async fn ended(&self) {
        let mut view = self.watch();
        while view.changed().await.is_ok() {}
    }

    /// Makes a change. When the future is `Ok`, it is on the disk and in the view.
    ///
    /// It is in the queue when this returns, behind all that were before: who must keep an order calls this
    /// in that order, and may wait for the futures in any. If the future is dropped, the change stands.
    pub(crate) fn write<T, C>(
        &self,
        change: C,
    ) -> impl Future<Output = Result<T, Error>> + Send + use<T, C>
    where
        T: Send + 'static,
        C: FnOnce(&Transaction<'_>) -> Result<T, ChangeError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (path, trouble) = (Arc::clone(&self.path), Arc::clone(&self.trouble));
        let room = Arc::clone(&self.room);
        let change: Change = Box::new(move |transaction| {
            let result = match transaction.map(change) {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(ChangeError::Refused(error))) => Err(error),
                Ok(Err(ChangeError::Sqlite(source))) => {
                    room.on_failure(&source);
                    Err(damage::refused(&path, source))
                }
                Err(why) => Err(why.error(&path)),
            };
            let is_kept = result.is_ok();
            let answer = Box::new(move |committed: Result<(), Error>| {
                let result = result.and_then(|value| committed.map(|()| value));
                let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                match &result {
                    Ok(_) => *trouble = None,
                    Err(error @ (Error::Database { .. } | Error::Unwritable { .. })) => {
                        *trouble = Some(error.chain());
                    }
                    // What makes no sense says nothing about the disk.
                    Err(_) => {}
                }
                drop(trouble);
                // The caller may have gone; the change stands.
                let _ = sender.send(result);
            });
            Applied { is_kept, answer }
        });
        let queued = self.queue.try_send(Work::Change(change)).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Stopping,
        });
        async move {
            queued?;
            receiver.await.map_err(|_| Error::Stopping)?
        }
    }

    /// Reads on a thread that may wait, past the view.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(gone) = self.gone() {
            return Err(gone);
        }
        let path = Arc::clone(&self.path);
        let result = tokio::task::spawn_blocking(move || {
            schema::open_reader(&path).and_then(|connection| query(&Transaction::new(&connection)))
        });
        let failed = |source| damage::refused(&self.path, source);
        result.await.map_err(|_| Error::Stopping)?.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_told_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("state.db")).unwrap();
        let pages = |n: u32| {
            let pragma = format!("PRAGMA max_page_count = {n}");
            database.write(move |tables| {
                tables.sql().query_row(&pragma, [], |_| Ok(()))?;
                Ok(())
            })
        };
        let fill = || {
            database.write(|tables| {
                let fill = "INSERT INTO seen (mac, firmware, host_name, first_unix, last_unix) \
                            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 100) \
                            SELECT n, 0, hex(zeroblob(2000)), 0, 0 FROM n";
                tables.sql().execute(fill, [])?;
                // Only whether there is room counts.
                tables.sql().execute("DELETE FROM seen", [])?;
                Ok(())
            })
        };
        assert_eq!(database.trouble(), None);
        // Not less than there is: SQLite makes that its limit.
        pages(1).await.unwrap();
        assert!(fill().await.is_err());
        let trouble = database.trouble().unwrap();
        assert!(trouble.contains("state.db"), "{trouble}");
        assert_eq!(trouble.matches("full").count(), 1, "{trouble}");
        pages(100_000).await.unwrap();
        fill().await.unwrap();
        assert_eq!(database.trouble(), None);
    }

    /// Something that is stored, or why not.
    async fn store(database: &Database) -> Result<(), Error> {
        let insert = "INSERT INTO declined_address VALUES (random(), 1)";
        database.write(move |tables| Ok(tables.sql().execute(insert, [])?)).await.map(drop)
    }

    /// Waits until it is so, which takes the writer a second or two.
    async fn until(what: impl Fn() -> bool) {
        for _ in 0..100 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it did not happen within 10 s");
    }

    #[tokio::test]
    async fn nothing_is_written_to_a_database_that_was_deleted_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("state.db"), folder.path().join("away"));
        let database = Database::open(&path).unwrap();
        store(&database).await.unwrap();
        for replace in [false, true] {
            std::fs::rename(&path, &away).unwrap();
            if replace {
                std::fs::copy(&away, &path).unwrap();
            }
            let before = std::fs::metadata(folder.path().join("state.db-wal")).unwrap().len();
            let error = store(&database).await.unwrap_err().to_string();
            let what = if replace { "another file in its place" } else { "it was deleted" };
            assert!(error.contains(what) && error.contains("backup create"), "{error}");
            let after = std::fs::metadata(folder.path().join("state.db-wal")).unwrap().len();
            assert_eq!(before, after);
            assert!(database.read(|_| Ok(())).await.is_err(), "another database was read");
            // What this process still has can be saved.
            let saved = folder.path().join("saved");
            database.copy(&saved).await.unwrap();
            assert_eq!(copies::check_database(&saved).unwrap(), 0);
            std::fs::remove_file(saved).unwrap();
            std::fs::rename(&away, &path).unwrap();
            store(&database).await.unwrap();
            assert!(database.gone().is_none(), "it is there again");
        }
        // It is noticed, too, if there is nothing to store.
        std::fs::remove_file(folder.path().join("state.db-wal")).unwrap();
        until(|| database.gone().is_some()).await;
        assert!(database.gone().unwrap().to_string().contains("state.db-wal"));
    }

    /// Locks that this process has on a file.
    fn n_locks(path: &Path) -> usize {
        use std::os::unix::fs::MetadataExt as _;
        let (own, inode) = (std::process::id(), std::fs::metadata(path).unwrap().ino());
        let ends = [format!(" {own} "), format!(":{inode} ")];
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().filter(|line| ends.iter().all(|end| line.contains(end))).count()
    }

    #[tokio::test]
    async fn a_copy_takes_no_lock_away_from_who_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let database = Database::open(&path).unwrap();
        store(&database).await.unwrap();
        let before = n_locks(&path);
        assert!(before > 0, "others would take themselves for the last ones");
        database.copy(&folder.path().join("saved")).await.unwrap();
        assert_eq!(n_locks(&path), before);
        drop(Database::open(&path).unwrap());
        assert_eq!(n_locks(&path), before);
        super::super::expected(&path).unwrap();
        assert_eq!(n_locks(&path), before);
    }

    /// Not a test by itself, but the program that others run to have a lock.
    #[test]
    fn another_process_that_has_the_lock() {
        let Ok(path) = std::env::var("BOOTLACE_TEST_LOCK") else { return };
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        println!("locked");
        std::thread::sleep(Duration::from_secs(60));
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a real process has a real lock for real time")]
    async fn a_lock_of_another_process_is_told_and_waited_for_once() {
        use std::io::Read as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let database = Database::open(&path).unwrap();
        let mut other = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "another_process_that_has_the_lock"])
            .env("BOOTLACE_TEST_LOCK", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = other.stdout.take().unwrap();
        while !said.contains("locked") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            said.push(byte[0].into());
        }
        let began = std::time::Instant::now();
        let all = futures_of(&database, 20).await;
        let error = all[0].as_ref().unwrap_err().to_string();
        let process = format!("(process {})", other.id());
        assert!(error.contains(&process) && error.contains("has locked"), "{error}");
        assert!(all.iter().all(Result::is_err));
        // The first waits as long as a writer of ours could take, and the others not once more each.
        assert!(began.elapsed() < schema::BUSY_TIMEOUT * 2, "{:?}", began.elapsed());
        let began = std::time::Instant::now();
        assert!(store(&database).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(database.locked().unwrap().by.unwrap().contains(&process));
        assert!(database.read(|tables| tables.leases()).await.is_ok(), "readers go on");
        Database::open(&path).expect("a server can start");
        other.kill().unwrap();
        other.wait().unwrap();
        until(|| database.locked().is_none()).await;
        store(&database).await.unwrap();
    }

    async fn futures_of(database: &Database, n: usize) -> Vec<Result<(), Error>> {
        let tasks = (0..n).map(|_| {
            let database = database.clone();
            tokio::spawn(async move { store(&database).await })
        });
        let mut results = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            results.push(task.await.unwrap());
        }
        results
    }
}
