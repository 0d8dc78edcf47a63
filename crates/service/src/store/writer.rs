//! The thread that writes: it takes changes out of a queue and stores those that wait together in one transaction.

use super::damage::refused;
use super::lock_holder::lock_holder;
use super::place::{Gone, Place};
use super::reserve::{Reserve, claim, is_full};
use super::schema;
use super::transaction::{Part, Transaction};
use super::view::View;
use crate::error::Error;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Changes in one transaction, so that the first of them does not wait for too many others: they take 0.1 ms each, and a sync of
/// the disk takes 1 to 30 ms.
const GROUP_MAX: usize = 256;

/// How often it is looked for the changes of other processes, and whether the database is there and has room.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long changes wait once another process has kept the lock for longer than any of ours does.
const LOCKED_TIMEOUT: Duration = Duration::from_millis(50);

/// Room is made on the disk at the first look, and then at one of so many.
const ROOM_INTERVALS: u32 = 10;

/// What is known of the room on the disk.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) reserve: Reserve,
    /// This process sees to it that there is some.
    pub(super) is_kept: AtomicBool,
    pub(super) is_disk_full: AtomicBool,
    /// There is room that others would take if we don't.
    pub(super) is_claim_due: AtomicBool,
}

/// What else keeps changes from being stored.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) gone: Option<Gone>,
    pub(super) locked: Option<Locked>,
}

/// Another process has had the write lock for too long.
#[derive(Clone, Debug)]
pub(crate) struct Locked {
    /// Which, if it is known.
    pub(crate) by: Option<String>,
}

/// What the writer is asked for.
pub(super) enum Work {
    Change(Change),
    /// Reads through its connection.
    Copy(Box<dyn FnOnce(&Connection) + Send>),
}

/// Runs inside the transaction; or hears why there is none.
pub(super) type Change = Box<dyn FnOnce(Result<&Transaction<'_>, Unstored>) -> Applied + Send>;

/// Why nothing of a transaction is stored.
#[derive(Clone, Debug)]
pub(super) enum Unstored {
    Sqlite(Arc<rusqlite::Error>),
    Gone(Gone),
    Locked(Option<String>),
}

impl Unstored {
    pub(super) fn error(&self, path: &Path) -> Error {
        match self {
            Self::Sqlite(source) => refused(path, Arc::clone(source)),
            Self::Gone(gone) => gone.error(path),
            Self::Locked(by) => Error::DatabaseLocked { path: path.to_owned(), by: by.clone() },
        }
    }
}

impl From<rusqlite::Error> for Unstored {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

pub(super) struct Applied {
    /// Whether the change stands; else it is rolled back.
    pub(super) is_kept: bool,
    /// Tells the caller how it ended, after the commit.
    pub(super) answer: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) place: Place,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) connection: Connection,
    pub(super) publish: watch::Sender<Arc<View>>,
    /// Changes when another process has committed.
    pub(super) version: i64,
    pub(super) room: Arc<Room>,
    /// Looks while this process keeps room.
    pub(super) n_looks: u32,
}

impl Room {
    /// Gives the reserve up, if a full disk is why something could not be stored.
    pub(super) fn on_failure(&self, error: &rusqlite::Error) {
        if self.is_kept.load(Ordering::Relaxed) && is_full(error) && self.reserve.give_up() {
            self.is_disk_full.store(true, Ordering::Relaxed);
            self.is_claim_due.store(true, Ordering::Relaxed);
        }
    }
}

impl Writer {
    #[expect(clippy::disallowed_methods, reason = "a thread waits for real time")]
    pub(super) fn run(mut self, changes: &Receiver<Work>) {
        // However busy it is.
        let mut next_look = Instant::now() + LOOK_INTERVAL;
        loop {
            match changes.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                Ok(Work::Change(first)) => self.store(first, changes),
                Ok(Work::Copy(copy)) => copy(&self.connection),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_look {
                self.look_at_place();
                self.look_at_lock();
                self.publish(&BTreeSet::new());
                self.look_after_room();
                next_look = Instant::now() + LOOK_INTERVAL;
            }
        }
    }

    /// Stores the first change and those that wait behind it in one transaction.
    fn store(&mut self, first: Change, changes: &Receiver<Work>) {
        let mut applied = Vec::new();
        let mut next = None;
        let stored = self.transact(first, changes, &mut applied, &mut next);
        let failed = match stored {
            Ok(touched) => {
                self.unlocked();
                self.publish(&touched);
                None
            }
            Err(why) => {
                let error = why.error(&self.path).chain();
                tracing::error!(error, "changes could not be stored");
                if let Unstored::Sqlite(error) = &why {
                    self.room.on_failure(error);
                }
                // Those that have waited as long need not wait for the same once more.
                while matches!(why, Unstored::Locked(_)) && next.is_none() {
                    match changes.try_recv() {
                        Ok(Work::Change(change)) => applied.push(change(Err(why.clone()))),
                        Ok(copy) => next = Some(copy),
                        Err(_) => break,
                    }
                }
                Some(why)
            }
        };
        if self.room.is_claim_due.swap(false, Ordering::Relaxed) {
            self.claim();
        }
        for change in applied {
            (change.answer)(failed.as_ref().map_or(Ok(()), |why| Err(why.error(&self.path))));
        }
        if let Some(Work::Copy(copy)) = next {
            copy(&self.connection);
        }
    }

    /// Sees whether the database is still the one that its name means.
    fn look_at_place(&self) -> Option<Gone> {
        let gone = self.place.gone();
        let mut state = lock(&self.state);
        match (state.gone, gone) {
            (None, Some(gone)) => {
                let error = gone.error(&self.path).chain();
                tracing::error!(error, "the database is gone");
            }
            (Some(_), None) => tracing::info!("the database is back"),
            _ => {}
        }
        state.gone = gone;
        gone
    }

    /// Sees whether another process that had the lock for too long has it still.
    fn look_at_lock(&mut self) {
        if lock(&self.state).locked.is_some() {
            let begun = rusqlite::Transaction::new_unchecked(
                &self.connection,
                TransactionBehavior::Immediate,
            );
            if begun.is_ok() {
                drop(begun);
                self.unlocked();
            }
        }
    }

    /// Another process has the lock.
    fn locked(&self) -> Unstored {
        let by = lock_holder(&self.path);
        let mut state = lock(&self.state);
        let by = by.or_else(|| state.locked.take()?.by);
        state.locked = Some(Locked { by: by.clone() });
        // Whoever has it for so long may have it for ever.
        let _ = self.connection.busy_timeout(LOCKED_TIMEOUT);
        Unstored::Locked(by)
    }

    fn unlocked(&self) {
        if lock(&self.state).locked.take().is_some() {
            let _ = self.connection.busy_timeout(schema::BUSY_TIMEOUT);
            tracing::info!("the database can be written again");
        }
    }

    /// Returns what readers must see again.
    fn transact(
        &mut self,
        first: Change,
        changes: &Receiver<Work>,
        applied: &mut Vec<Applied>,
        behind: &mut Option<Work>,
    ) -> Result<BTreeSet<Part>, Unstored> {
        if let Some(gone) = self.look_at_place() {
            applied.push(first(Err(Unstored::Gone(gone))));
            return Err(Unstored::Gone(gone));
        }
        // Immediate: a transaction that begins by reading can't become a writer while another
        // process writes, whatever the timeout.
        let begun =
            rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let mut transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => {
                let why = match error.sqlite_error_code() {
                    Some(ErrorCode::DatabaseBusy) => self.locked(),
                    _ => Unstored::from(error),
                };
                applied.push(first(Err(why.clone())));
                return Err(why);
            }
        };
        let mut touched = BTreeSet::new();
        let mut next = Some(first);
        while let Some(change) = next {
            let savepoint = match transaction.savepoint().map_err(Unstored::from) {
                Ok(savepoint) => savepoint,
                Err(why) => {
                    applied.push(change(Err(why.clone())));
                    return Err(why);
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
            next = None;
            if applied.len() < GROUP_MAX && behind.is_none() {
                match changes.try_recv() {
                    Ok(Work::Change(change)) => next = Some(change),
                    Ok(copy) => *behind = Some(copy),
                    Err(_) => {}
                }
            }
        }
        transaction.commit()?;
        Ok(touched)
    }

    /// Sees to it that there is room on the disk for what comes.
    fn look_after_room(&mut self) {
        let is_useless = lock(&self.state).gone.is_some() || lock(&self.state).locked.is_some();
        if is_useless || !self.room.is_kept.load(Ordering::Relaxed) {
            return;
        }
        self.n_looks += 1;
        let reserve = &self.room.reserve;
        let is_due = self.n_looks % ROOM_INTERVALS == 1;
        if is_due && let Err(error) = reserve.make() {
            tracing::debug!(%error, "no room could be kept on the disk");
        }
        match reserve.is_needed() {
            Ok(is_needed) => self.room.is_disk_full.store(is_needed, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "it is not known how full the disk is"),
        }
        if is_due {
            self.claim();
        }
    }

    fn claim(&self) {
        if let Err(error) = claim(&self.connection, &self.path) {
            tracing::debug!(%error, "no room could be claimed on the disk");
        }
    }

    /// Shows the new state to readers.
    fn publish(&mut self, touched: &BTreeSet<Part>) {
        let loaded = (|| {
            // All of it as of one moment; and each statement by itself would take the locks of a transaction.
            let connection = rusqlite::Transaction::new_unchecked(
                &self.connection,
                TransactionBehavior::Deferred,
            )?;
            let version = data_version(&connection)?;
            let is_foreign = version != self.version;
            if !is_foreign && touched.is_empty() {
                return Ok(None);
            }
            self.version = version;
            let tables = Transaction::new(&connection);
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced as a whole, so they stay right whatever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
