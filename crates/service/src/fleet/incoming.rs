//! Disk files that people send, and imports of them.

use crate::clock::Now;
use crate::error::Error;
use crate::incoming::{Incoming, IncomingError, IncomingFile, Upload};
use crate::jobs::{ImportOrder, Job, Jobs, Order};
use crate::people::Admin;
use crate::service::Service;
use crate::store::{AuditEntry, FieldChange};
use bytes::Bytes;
use model::{ImageName, VersionState, is_note};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Who sends nothing of his file for so long has gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether an order waits that nobody has told of.
const ORDERS_INTERVAL: Duration = Duration::from_secs(5);

/// An import that somebody wants.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// Name of the file in the folder of incoming disks.
    pub file: String,
    /// The image of which it becomes a version.
    pub image: ImageName,
    /// What people want to remember about the version.
    pub note: Option<String>,
    /// For whom the version is.
    pub state: VersionState,
    /// Whether the file is removed when that is done.
    pub removes_file: bool,
    /// Whether files are laid over the version against what hurts in it.
    pub fixes: bool,
}

/// A file that somebody sends. One that is dropped before its end leaves nothing.
pub struct Receiving {
    admin: Admin,
    upload: Upload,
    _place: OwnedSemaphorePermit,
}

impl Admin {
    /// Disk files that wait to be imported, by name.
    ///
    /// # Errors
    /// This process is ending.
    pub async fn incoming(&self) -> Result<Vec<IncomingFile>, Error> {
        with_incoming(self.service(), |incoming| Ok(incoming.list())).await
    }

    /// Begins to receive a disk file of so many bytes, if that is known.
    ///
    /// # Errors
    /// It can't be called so, there is one of that name, there is no room, or others are sending.
    pub async fn receive(&self, name: String, size_bytes: Option<u64>) -> Result<Receiving, Error> {
        let place = std::sync::Arc::clone(self.service().uploads()).try_acquire_owned();
        let place = place.map_err(|_| IncomingError::TooMany)?;
        let begin = move |incoming: &Incoming| incoming.receive(&name, size_bytes);
        let upload = with_incoming(self.service(), begin).await?;
        Ok(Receiving { admin: self.clone(), upload, _place: place })
    }

    /// Removes a disk file.
    ///
    /// # Errors
    /// There is none of this name, or it can't be removed.
    pub async fn remove_incoming(&self, name: String) -> Result<(), Error> {
        let removed = name.clone();
        with_incoming(self.service(), move |incoming| incoming.remove(&removed)).await?;
        self.note("incoming.remove", &name).await
    }

    /// Has the boot server import a disk file, as soon as other imports are done.
    ///
    /// # Errors
    /// There is no such file, the note is none, or too many imports wait.
    pub async fn import(&self, wanted: NewImport) -> Result<Job, Error> {
        let NewImport { file, image, note, state, removes_file, fixes } = wanted;
        if !note.as_deref().is_none_or(is_note) {
            return Err(Error::BadNote);
        }
        let order = ImportOrder { file, image, note, state, removes_file, fixes };
        let named = order.file.clone();
        with_incoming(self.service(), move |incoming| incoming.path(&named)).await?;
        let changes = FieldChange::all(None, Some(&order));
        let (by, now) = (self.actor().name().to_owned(), self.now());
        let entry = self.actor().does("image.import", &order.image, changes, now.unix_ms);
        self.order(Order::Import(order), entry, &by, now).await
    }

    /// Has the boot server do something by a process of its own, as soon as others are done.
    pub(super) async fn order(
        &self,
        order: Order,
        entry: AuditEntry,
        by: &str,
        now: Now,
    ) -> Result<Job, Error> {
        let (jobs, by) = (self.service().job_folder(), by.to_owned());
        let ordered = self.service().database().write(move |tables| {
            tables.put_audit(&entry)?;
            jobs.order(order, &by, now).map_err(|error| Error::from(error).into())
        });
        let number = ordered.await?;
        self.service().ordered().notify_one();
        Ok(self.job(number).await?.0)
    }

    async fn note(&self, action: &str, subject: &str) -> Result<(), Error> {
        let entry = self.actor().does(action, subject, Vec::new(), self.now().unix_ms);
        self.service().database().write(move |tables| Ok(tables.put_audit(&entry)?)).await
    }
}

impl Receiving {
    /// How long it is waited for the next bytes.
    pub const SILENCE_MAX: Duration = SILENCE_MAX;

    /// The next bytes.
    ///
    /// # Errors
    /// There is no room any more, or they can't be written.
    pub async fn write(self, bytes: Bytes) -> Result<Self, Error> {
        let Self { admin, mut upload, _place } = self;
        let written = tokio::task::spawn_blocking(move || upload.write(&bytes).map(|()| upload));
        let upload = written.await.map_err(|_| Error::Stopping)??;
        Ok(Self { admin, upload, _place })
    }

    /// All was received.
    ///
    /// # Errors
    /// There is one of that name by now, or it can't be written.
    pub async fn finish(self) -> Result<IncomingFile, Error> {
        let Self { admin, upload, _place } = self;
        let name = upload.name().to_owned();
        let finished = tokio::task::spawn_blocking(move || upload.finish());
        let file = finished.await.map_err(|_| Error::Stopping)??;
        admin.note("incoming.add", &name).await?;
        Ok(file)
    }
}

impl Service {
    /// Waits until there is an order to be done, and none is being done.
    pub async fn next_order(&self) -> u64 {
        loop {
            if let Ok(Some(number)) = self.with_jobs(Jobs::next_order).await {
                return number;
            }
            let _ = tokio::time::timeout(ORDERS_INTERVAL, self.ordered().notified()).await;
        }
    }

    /// The process that was started for an order has ended, which had begun so often before. One that did not even begin counts,
    /// too: it would be started for ever.
    pub async fn after_order(&self, number: u64, n_begins_before: u32) {
        let noted = self.with_jobs(move |jobs| {
            if jobs.n_begins(number) == n_begins_before {
                let _ = jobs.note_begin(number);
            }
        });
        let _ = noted.await;
        self.settle_jobs_now().await;
    }

    /// How often the process of an order has begun.
    pub async fn n_begins(&self, number: u64) -> u32 {
        self.with_jobs(move |jobs| jobs.n_begins(number)).await.unwrap_or_default()
    }

    /// Makes ready to receive files.
    pub(super) async fn begin_incoming(&self) {
        let _ = with_incoming(self, |incoming| {
            incoming.begin();
            Ok(())
        })
        .await;
    }
}

async fn with_incoming<T: Send + 'static>(
    service: &Service,
    work: impl FnOnce(&Incoming) -> Result<T, IncomingError> + Send + 'static,
) -> Result<T, Error> {
    let incoming = Incoming::in_folder(service.options().incoming.clone());
    let done = tokio::task::spawn_blocking(move || work(&incoming));
    Ok(done.await.map_err(|_| Error::Stopping)??)
}
