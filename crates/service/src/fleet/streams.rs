//! Image versions that come from another server, or go there.

use crate::error::Error;
use crate::incoming::IncomingError;
use crate::jobs::{JobKind, JobState, NewJob, Worker};
use crate::people::Admin;
use crate::piped::{Coming, Leaving, Piece};
use bytes::Bytes;
use images::{Progress, ReceiveRequest, Received, SendRequest, Step, Stop, Store, StreamError};
use model::{ImageName, ImageVersion, VersionState};
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

/// Pieces of a stream that wait to be taken.
const PIECES_MAX: usize = 8;

/// Pieces in which it is sent.
const PIECE_BYTES: usize = 256 << 10;

/// Versions of an image of which a sender tells.
const OFFERED_MAX: usize = 1000;

/// What somebody would send.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Offer {
    /// BLAKE3 of the disk.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// Digests of versions from which he can tell differences, the best first.
    pub has: Vec<String>,
}

/// What is wanted of that.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// Nothing: this version has it already.
    pub known: Option<u32>,
    /// The first of his versions that is here.
    pub from: Option<String>,
    /// What is before that has come already.
    pub at_bytes: u64,
}

/// A version that has come.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Arrived {
    /// The version.
    #[serde(flatten)]
    pub version: ImageVersion,
    /// It was here already.
    pub is_known: bool,
    /// Files of it that were damaged, and are there again.
    pub put_back: Vec<String>,
}

/// A stream that somebody sends. One that is dropped before its end has broken off.
pub struct ReceivingStream {
    admin: Admin,
    pieces: mpsc::Sender<Piece>,
    work: JoinHandle<Result<Received, Error>>,
    _place: OwnedSemaphorePermit,
}

/// A stream that is sent.
pub struct SendingStream {
    pieces: mpsc::Receiver<Bytes>,
    work: JoinHandle<Result<(), StreamError>>,
}

impl Admin {
    /// What is wanted of a version that somebody would send.
    ///
    /// # Errors
    /// The store can't be read, or this process is ending.
    pub async fn wanted(&self, image: ImageName, offer: Offer) -> Result<Wanted, Error> {
        let store = Arc::clone(self.service().store());
        let look = move || {
            let known = store.known(&image, &offer.digest)?;
            let at_bytes = store.partial_bytes(&offer.digest, offer.size_bytes);
            let mut from = None;
            for digest in offer.has.into_iter().take(OFFERED_MAX) {
                if store.known(&image, &digest)?.is_some() {
                    from = Some(digest);
                    break;
                }
            }
            Ok(Wanted { known: known.map(|known| known.version), from, at_bytes })
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| Error::Stopping)?
    }

    /// Begins to receive a version of an image, as a job.
    ///
    /// # Errors
    /// Others are sending.
    pub fn receive_stream(
        &self,
        image: ImageName,
        state: VersionState,
    ) -> Result<ReceivingStream, Error> {
        let place = Arc::clone(self.service().uploads()).try_acquire_owned();
        let place = place.map_err(|_| IncomingError::TooMany)?;
        let (pieces, input) = Coming::new(PIECES_MAX);
        let (store, jobs) = (Arc::clone(self.service().store()), self.service().job_folder());
        let clock = self.service().options().clock.clone();
        let from = self.actor().address().map_or("here".to_owned(), |address| address.to_string());
        let new = NewJob {
            kind: JobKind::ImageReceive,
            what: format!("{image} from {from}"),
            by: self.actor().name().to_owned(),
        };
        let work = tokio::task::spawn_blocking(move || {
            let stop = Stop::default();
            let mut worker = jobs.begin(new, clock, &stop).ok();
            let request = ReceiveRequest { name: Some(image), state, keeps_partial: true };
            let mut progress = |it: Progress| {
                if let Some(worker) = &mut worker {
                    worker.on_progress(word(it.step), it.done_bytes, it.total_bytes);
                }
            };
            let received = store.receive(input, &request, &stop, &mut |_| (), &mut progress);
            if let Some(worker) = worker {
                note_end(worker, &stop, &received);
            }
            Ok(received?)
        });
        Ok(ReceivingStream { admin: self.clone(), pieces, work, _place: place })
    }

    /// Begins to send a version: as what differs from the version with this digest, and from this place of its disk on.
    ///
    /// # Errors
    /// There is no such version.
    pub async fn send_stream(
        &self,
        image: ImageName,
        version: u32,
        from: Option<String>,
        at_bytes: u64,
    ) -> Result<SendingStream, Error> {
        let store = Arc::clone(self.service().store());
        let named = image.clone();
        let look = move || {
            store.version(&named, version)?;
            let base = from.map(|digest| store.known(&named, &digest)).transpose()?;
            Ok::<_, Error>(base.flatten().map(|base| base.version))
        };
        let from = tokio::task::spawn_blocking(look).await.map_err(|_| Error::Stopping)??;
        let (leaving, pieces) = Leaving::new(PIECES_MAX);
        let store = Arc::clone(self.service().store());
        let work = tokio::task::spawn_blocking(move || {
            let request = SendRequest { image, version, from, at_bytes };
            let out = BufWriter::with_capacity(PIECE_BYTES, leaving);
            send(&store, &request, out)
        });
        Ok(SendingStream { pieces, work })
    }
}

fn send(store: &Store, request: &SendRequest, out: impl Write) -> Result<(), StreamError> {
    store.send(request, out, &Stop::default(), &mut |_| ()).map(|_| ())
}

impl ReceivingStream {
    /// How long it is waited for the next bytes.
    pub const SILENCE_MAX: Duration = super::incoming::SILENCE_MAX;

    /// The next bytes. `false`: nobody wants more of them, and [`finish`](Self::finish) tells why.
    pub async fn write(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// All was sent.
    pub async fn end(&self) {
        let _ = self.pieces.send(Piece::End).await;
    }

    /// What became of it.
    ///
    /// # Errors
    /// See [`StreamError`]; or the version can't be recorded.
    pub async fn finish(self) -> Result<Arrived, Error> {
        let Self { admin, pieces, work, _place } = self;
        drop(pieces);
        let received = work.await.map_err(|_| Error::Stopping)??;
        let (version, is_known, put_back) = match received {
            Received::New(version) => (version, false, Vec::new()),
            Received::Known(version) => (version, true, Vec::new()),
            Received::PutBack(version, files) => {
                (version, false, files.into_iter().map(str::to_owned).collect())
            }
        };
        let (version, _initrd) = admin.record_image_version(version.image, version.version).await?;
        Ok(Arrived { version, is_known, put_back })
    }
}

impl SendingStream {
    /// The next bytes; `None`: that was all.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if let Some(bytes) = self.pieces.recv().await {
            return Some(Ok(bytes));
        }
        match (&mut self.work).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error.into())),
            Err(_) => Some(Err(Error::Stopping)),
        }
    }
}

/// As people read it.
const fn word(step: Step) -> &'static str {
    match step {
        Step::Copy => "receiving",
        Step::Check | Step::Digest => "reading what is here",
        Step::Sync => "writing to disk",
    }
}

fn note_end(worker: Worker, stop: &Stop, received: &Result<Received, StreamError>) {
    match received {
        Ok(Received::New(it)) => {
            worker.end(JobState::Done, &format!("{}/v{} received", it.image, it.version));
        }
        Ok(Received::Known(it)) => {
            let told = format!("{}/v{} has exactly this content already", it.image, it.version);
            worker.end(JobState::Done, &told);
        }
        Ok(Received::PutBack(it, files)) => {
            let told =
                format!("{}/v{} was damaged: put back {}", it.image, it.version, files.join(", "));
            worker.end(JobState::Done, &told);
        }
        Err(_) if stop.is_stopping() => {
            let who = worker.cancelled_by().unwrap_or_else(|| "somebody".to_owned());
            worker.end(JobState::Cancelled, &format!("cancelled by {who}"));
        }
        Err(error) => worker.end(JobState::Failed, &wire::error_chain(error)),
    }
}
