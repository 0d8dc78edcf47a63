//! The one writer: a thread that owns the database connection.
//!
//! Changes that arrive together are stored in one transaction, so that a class room of PCs that asks
//! for addresses at once costs a few disk flushes and not one for each PC.

use crate::error::Error;
use crate::store::schema;
use crate::store::view::{Part, View, load_all, load_part};
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Changes that may wait for the disk. A hundred PCs that power on at once make about 300.
const WAITING_CHANGES_MAX: usize = 1024;

/// Changes in one transaction, so that the first of them does not wait for too many others.
const GROUP_MAX: usize = 64;

/// How often the changes of other processes are looked for.
const FOREIGN_CHANGES_INTERVAL: Duration = Duration::from_secs(1);

/// Handle of the writer. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Database {
    path: Arc<Path>,
    queue: SyncSender<Change>,
    view: watch::Receiver<Arc<View>>,
}

/// Runs inside the transaction; or hears why there is none.
type Change = Box<dyn FnOnce(Result<&Connection, Arc<rusqlite::Error>>) -> Applied + Send>;

struct Applied {
    /// What readers must see anew; `None` if the change is to be rolled back.
    part: Option<Part>,
    /// Tells the caller how it ended, after the commit.
    answer: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

impl Database {
    /// Opens the database and starts its writer.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = schema::open(path)?;
        let failed = |source| Error::Database { path: path.to_owned(), source: Arc::new(source) };
        let version = data_version(&connection).map_err(failed)?;
        let view = load_all(&connection).map_err(failed)?;
        let (publish, view) = watch::channel(Arc::new(view));
        let (queue, changes) = sync_channel(WAITING_CHANGES_MAX);
        let writer = Writer { path: path.to_owned(), connection, publish, version };
        std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer.run(&changes))
            .map_err(|source| Error::Io {
                action: "start a thread for",
                path: path.into(),
                source,
            })?;
        Ok(Self { path: path.into(), queue, view })
    }

    /// The state as of the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Wakes up at each new state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Makes a change. When this returns `Ok`, it is on the disk and in the view.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<(Part, T), ChangeError> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let change: Change = Box::new(move |connection| {
            let failed = |source| Error::Database { path: path.to_path_buf(), source };
            let (part, result) = match connection.map(change) {
                Ok(Ok((part, value))) => (Some(part), Ok(value)),
                Ok(Err(ChangeError::Refused(error))) => (None, Err(error)),
                Ok(Err(ChangeError::Sqlite(source))) => (None, Err(failed(Arc::new(source)))),
                Err(source) => (None, Err(failed(source))),
            };
            let answer = Box::new(move |committed: Result<(), Error>| {
                // The caller may have gone; the change stands.
                let _ = sender.send(result.and_then(|value| committed.map(|()| value)));
            });
            Applied { part, answer }
        });
        self.queue.try_send(change).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Stopping,
        })?;
        receiver.await.map_err(|_| Error::Stopping)?
    }

    /// Reads on a thread that may wait, past the view.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let path = Arc::clone(&self.path);
        let result = tokio::task::spawn_blocking(move || {
            schema::open_reader(&path).and_then(|connection| query(&connection))
        });
        let failed =
            |source| Error::Database { path: self.path.to_path_buf(), source: Arc::new(source) };
        result.await.map_err(|_| Error::Stopping)?.map_err(failed)
    }
}

/// Why a change is rolled back.
pub(crate) enum ChangeError {
    /// It makes no sense.
    Refused(Error),
    /// SQLite can't.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

struct Writer {
    path: PathBuf,
    connection: Connection,
    publish: watch::Sender<Arc<View>>,
    /// Changes when another process has committed.
    version: i64,
}

impl Writer {
    fn run(mut self, changes: &Receiver<Change>) {
        loop {
            match changes.recv_timeout(FOREIGN_CHANGES_INTERVAL) {
                Ok(first) => self.store(first, changes),
                Err(RecvTimeoutError::Timeout) => self.publish(&[]),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Stores the first change and those that wait behind it in one transaction.
    fn store(&mut self, first: Change, changes: &Receiver<Change>) {
        let mut applied = Vec::new();
        let failed = self.transact(first, changes, &mut applied).err();
        if let Some(error) = &failed {
            tracing::error!(%error, "changes could not be stored");
        } else {
            let parts: Vec<Part> = applied.iter().filter_map(|change| change.part).collect();
            self.publish(&parts);
        }
        for change in applied {
            (change.answer)(match &failed {
                None => Ok(()),
                Some(source) => {
                    Err(Error::Database { path: self.path.clone(), source: Arc::clone(source) })
                }
            });
        }
    }

    fn transact(
        &mut self,
        first: Change,
        changes: &Receiver<Change>,
        applied: &mut Vec<Applied>,
    ) -> Result<(), Arc<rusqlite::Error>> {
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
        let mut next = Some(first);
        while let Some(change) = next {
            let savepoint = match transaction.savepoint().map_err(Arc::new) {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    applied.push(change(Err(Arc::clone(&error))));
                    return Err(error);
                }
            };
            let done = change(Ok(&savepoint));
            // A savepoint that is dropped is rolled back.
            let kept = if done.part.is_some() { savepoint.commit() } else { Ok(()) };
            applied.push(done);
            kept?;
            next = if applied.len() < GROUP_MAX { changes.try_recv().ok() } else { None };
        }
        Ok(transaction.commit()?)
    }

    /// Shows the new state to readers.
    fn publish(&mut self, parts: &[Part]) {
        let loaded = (|| {
            let version = data_version(&self.connection)?;
            let is_foreign = version != self.version;
            if !is_foreign && parts.is_empty() {
                return Ok(None);
            }
            self.version = version;
            if is_foreign {
                return load_all(&self.connection).map(Some);
            }
            let mut view = View::clone(&self.publish.borrow());
            for part in parts {
                load_part(&self.connection, *part, &mut view)?;
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
