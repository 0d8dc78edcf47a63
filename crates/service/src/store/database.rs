//! The one writer: a thread that owns the database connection.
//!
//! Changes that arrive together are stored in one transaction, so that a class room of PCs that asks
//! for addresses at once costs a few disk flushes and not one for each PC.

use super::room::{Reserve, claim, is_full};
use super::schema;
use super::transaction::{ChangeError, Part, Transaction};
use super::view::View;
use crate::error::Error;
use rusqlite::{Connection, TransactionBehavior};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Changes that may wait for the disk. A hundred PCs that power on at once make about 300.
const WAITING_CHANGES_MAX: usize = 1024;

/// Changes in one transaction, so that the first of them does not wait for too many others.
const GROUP_MAX: usize = 64;

/// How often the changes of other processes are looked for.
const FOREIGN_CHANGES_INTERVAL: Duration = Duration::from_secs(1);

/// So many idle intervals lie between two looks at the room on the disk.
const ROOM_INTERVALS: u32 = 10;

/// Handle of the writer. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Database {
    path: Arc<Path>,
    queue: SyncSender<Change>,
    view: watch::Receiver<Arc<View>>,
    /// Why the last change could not be stored.
    trouble: Arc<Mutex<Option<String>>>,
    room: Arc<Room>,
}

/// What is known of the room on the disk.
#[derive(Debug)]
struct Room {
    reserve: Reserve,
    /// This process sees to it that there is some.
    is_kept: AtomicBool,
    is_disk_full: AtomicBool,
    /// There is room that others would take if we don't.
    is_claim_due: AtomicBool,
}

/// Runs inside the transaction; or hears why there is none.
type Change = Box<dyn FnOnce(Result<&Transaction<'_>, Arc<rusqlite::Error>>) -> Applied + Send>;

struct Applied {
    /// Whether the change stands; else it is rolled back.
    is_kept: bool,
    /// Tells the caller how it ended, after the commit.
    answer: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

impl Database {
    /// Opens the database and starts its writer.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = schema::open(path)?;
        let failed = |source| Error::database(path, source);
        let version = data_version(&connection).map_err(failed)?;
        let view = View::load(&Transaction::new(&connection)).map_err(failed)?;
        let (publish, view) = watch::channel(Arc::new(view));
        let (queue, changes) = sync_channel(WAITING_CHANGES_MAX);
        let room = Arc::new(Room {
            reserve: Reserve::beside(path),
            is_kept: AtomicBool::new(false),
            is_disk_full: AtomicBool::new(false),
            is_claim_due: AtomicBool::new(false),
        });
        let writer = Writer {
            path: path.to_owned(),
            connection,
            publish,
            version,
            room: Arc::clone(&room),
            n_idle: 0,
        };
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer.run(&changes))
            .map_err(|source| Error::Io {
                action: "start a thread for",
                path: path.into(),
                source,
            })?;
        Ok(Self { path: path.into(), queue, view, trouble: Arc::default(), room })
    }

    /// The state as of the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Why the last change could not be stored; `None` if it was.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            let failed = |source| Error::Database { path: path.to_path_buf(), source };
            let result = match transaction.map(change) {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(ChangeError::Refused(error))) => Err(error),
                Ok(Err(ChangeError::Sqlite(source))) => {
                    room.on_failure(&source);
                    Err(failed(Arc::new(source)))
                }
                Err(source) => Err(failed(source)),
            };
            let is_kept = result.is_ok();
            let answer = Box::new(move |committed: Result<(), Error>| {
                let result = result.and_then(|value| committed.map(|()| value));
                let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                match &result {
                    Ok(_) => *trouble = None,
                    Err(error @ Error::Database { .. }) => *trouble = Some(error.chain()),
                    // What makes no sense says nothing about the disk.
                    Err(_) => {}
                }
                drop(trouble);
                // The caller may have gone; the change stands.
                let _ = sender.send(result);
            });
            Applied { is_kept, answer }
        });
        let queued = self.queue.try_send(change).map_err(|error| match error {
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
        let path = Arc::clone(&self.path);
        let result = tokio::task::spawn_blocking(move || {
            schema::open_reader(&path).and_then(|connection| query(&Transaction::new(&connection)))
        });
        let failed = |source| Error::database(&self.path, source);
        result.await.map_err(|_| Error::Stopping)?.map_err(failed)
    }
}

struct Writer {
    path: PathBuf,
    connection: Connection,
    publish: watch::Sender<Arc<View>>,
    /// Changes when another process has committed.
    version: i64,
    room: Arc<Room>,
    /// Idle intervals since the last look at the room on the disk.
    n_idle: u32,
}

impl Room {
    /// Gives the reserve up, if a full disk is why something could not be stored.
    fn on_failure(&self, error: &rusqlite::Error) {
        if self.is_kept.load(Ordering::Relaxed) && is_full(error) && self.reserve.give_up() {
            self.is_disk_full.store(true, Ordering::Relaxed);
            self.is_claim_due.store(true, Ordering::Relaxed);
        }
    }
}

impl Writer {
    fn run(mut self, changes: &Receiver<Change>) {
        loop {
            match changes.recv_timeout(FOREIGN_CHANGES_INTERVAL) {
                Ok(first) => self.store(first, changes),
                Err(RecvTimeoutError::Timeout) => {
                    self.publish(&BTreeSet::new());
                    self.look_after_room();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Stores the first change and those that wait behind it in one transaction.
    fn store(&mut self, first: Change, changes: &Receiver<Change>) {
        let mut applied = Vec::new();
        let stored = self.transact(first, changes, &mut applied);
        let failed = match stored {
            Ok(touched) => {
                self.publish(&touched);
                None
            }
            Err(error) => {
                tracing::error!(%error, "changes could not be stored");
                self.room.on_failure(&error);
                Some(error)
            }
        };
        if self.room.is_claim_due.swap(false, Ordering::Relaxed) {
            self.claim();
        }
        for change in applied {
            (change.answer)(match &failed {
                None => Ok(()),
                Some(source) => {
                    Err(Error::Database { path: self.path.clone(), source: source.clone() })
                }
            });
        }
    }

    /// Returns what readers must see again.
    fn transact(
        &mut self,
        first: Change,
        changes: &Receiver<Change>,
        applied: &mut Vec<Applied>,
    ) -> Result<BTreeSet<Part>, Arc<rusqlite::Error>> {
        // Immediate: a transaction that begins by reading can't become a writer while another
        // process writes, whatever the timeout.
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let mut transaction = match begun.map_err(Arc::new) {
            Ok(transaction) => transaction,
            Err(error) => {
                applied.push(first(Err(Arc::clone(&error))));
                return Err(error);
            }
        };
        let mut touched = BTreeSet::new();
        let mut next = Some(first);
        while let Some(change) = next {
            let savepoint = match transaction.savepoint().map_err(Arc::new) {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    applied.push(change(Err(Arc::clone(&error))));
                    return Err(error);
                }
            };
            let tables = Transaction::new(&savepoint);
            let done = change(Ok(&tables));
            let parts = tables.into_touched();
            let is_kept = done.is_kept;
            applied.push(done);
            // A savepoint that is dropped is rolled back.
            if is_kept {
                savepoint.commit()?;
                touched.extend(parts);
            }
            next = if applied.len() < GROUP_MAX { changes.try_recv().ok() } else { None };
        }
        transaction.commit()?;
        Ok(touched)
    }

    /// Sees to it that there is room on the disk for what comes.
    fn look_after_room(&mut self) {
        if !self.room.is_kept.load(Ordering::Relaxed) {
            return;
        }
        self.n_idle += 1;
        if self.n_idle % ROOM_INTERVALS != 1 {
            return;
        }
        let reserve = &self.room.reserve;
        match reserve.make().and_then(|()| reserve.is_needed()) {
            Ok(is_needed) => self.room.is_disk_full.store(is_needed, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "no room could be kept on the disk"),
        }
        self.claim();
    }

    fn claim(&self) {
        if let Err(error) = claim(&self.connection, &self.path) {
            tracing::debug!(%error, "no room could be claimed on the disk");
        }
    }

    /// Shows the new state to readers.
    fn publish(&mut self, touched: &BTreeSet<Part>) {
        let loaded = (|| {
            let version = data_version(&self.connection)?;
            let is_foreign = version != self.version;
            if !is_foreign && touched.is_empty() {
                return Ok(None);
            }
            self.version = version;
            let tables = Transaction::new(&self.connection);
            if is_foreign {
                return View::load(&tables).map(Some);
            }
            let mut view = View::clone(&self.publish.borrow());
            for part in touched {
                view.load_part(&tables, *part)?;
            }
            Ok::<_, rusqlite::Error>(Some(view))
        })();
        match loaded {
            Ok(None) => {}
            Ok(Some(view)) => drop(self.publish.send_replace(Arc::new(view))),
            Err(error) => {
                // Load everything the next time.
                self.version = -1;
                tracing::error!(%error, "the database can't be read; the former state stays");
            }
        }
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(trouble.contains("state.db") && trouble.contains("full"), "{trouble}");
        pages(100_000).await.unwrap();
        fill().await.unwrap();
        assert_eq!(database.trouble(), None);
    }
}
