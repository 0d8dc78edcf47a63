//! The part of the storage API that is about snapshots.

use crate::failure::{Failure, blocking};
use crate::table::Exports;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use images::{Block, EntryKind, Looked, open_files, write_changes};
use model::{
    DiskId, RollbackOrder, Snapshot, SnapshotFile, SnapshotFiles, SnapshotList, SnapshotOrder,
    SnapshotPath,
};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// So many look at snapshots at a time: each has the maps of a disk in memory.
const LOOKS_MAX: usize = 4;

/// So many entries of a folder are told.
const ENTRIES_MAX: usize = 2000;

/// Pieces of a file that wait for who fetches it.
const PIECES_MAX: usize = 4;

/// Who takes nothing of a file for so long has gone: while he has it, nothing is merged.
const TAKES_WITHIN: Duration = Duration::from_secs(30);

type Site = State<Arc<Exports>>;
type Answer<T> = Result<T, Failure>;

/// What of a snapshot is looked at by somebody.
#[derive(Clone)]
struct Looks(Arc<Semaphore>);

pub(crate) fn router() -> Router<Arc<Exports>> {
    Router::new()
        .route("/v1/disks/{disk}/snapshots", get(list).post(make))
        .route("/v1/disks/{disk}/snapshots/{number}", delete(remove))
        .route("/v1/disks/{disk}/rollback", put(roll_back).delete(withdraw))
        .route("/v1/disks/{disk}/snapshots/{number}/look", post(look))
        .route("/v1/disks/{disk}/snapshots/{number}/read", post(read))
        .route("/v1/disks/{disk}/snapshots/{number}/changes", get(changes))
        .layer(axum::Extension(Looks(Arc::new(Semaphore::new(LOOKS_MAX)))))
}

async fn list(State(exports): Site, Path(disk): Path<DiskId>) -> Answer<Json<SnapshotList>> {
    blocking(move || exports.snapshots(&disk)).await.map(Json)
}

async fn make(
    State(exports): Site,
    Path(disk): Path<DiskId>,
    Json(order): Json<SnapshotOrder>,
) -> Answer<Json<Option<Snapshot>>> {
    if order.note.as_deref().is_some_and(|note| !model::is_note(note)) {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "that is no note"));
    }
    blocking(move || exports.snapshot(&disk, order.note)).await.map(Json)
}

async fn remove(
    State(exports): Site,
    Path((disk, number)): Path<(DiskId, u32)>,
) -> Answer<StatusCode> {
    blocking(move || exports.remove_snapshot(&disk, number)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn roll_back(
    State(exports): Site,
    Path(disk): Path<DiskId>,
    Json(order): Json<RollbackOrder>,
) -> Answer<StatusCode> {
    blocking(move || exports.ask_roll_back(&disk, order.snapshot)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn withdraw(State(exports): Site, Path(disk): Path<DiskId>) -> Answer<Json<bool>> {
    blocking(move || exports.withdraw_roll_back(&disk)).await.map(Json)
}

impl Looks {
    fn begin(&self) -> Answer<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let text = "others are looking at snapshots: try again in a minute";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }
}

async fn look(
    State(exports): Site,
    axum::Extension(looks): axum::Extension<Looks>,
    Path((disk, number)): Path<(DiskId, u32)>,
    Json(asked): Json<SnapshotPath>,
) -> Answer<Json<SnapshotFiles>> {
    let permit = looks.begin()?;
    let found = blocking(move || {
        let _permit = permit;
        let disk: Arc<dyn Block> = Arc::new(exports.view(&disk, number)?);
        Ok(open_files(&disk, asked.partition).and_then(|(files, partitions, partition)| {
            let Looked { path, entries, is_cut } = files.look(&asked.path, ENTRIES_MAX)?;
            let entries = entries.into_iter().map(|(entry, size_bytes)| {
                let kind = match entry.kind {
                    EntryKind::File => "file",
                    EntryKind::Folder => "folder",
                    EntryKind::Link => "link",
                    EntryKind::Special => "special",
                };
                SnapshotFile { name: entry.name, kind: kind.to_owned(), size_bytes }
            });
            let entries = entries.collect();
            Ok(SnapshotFiles { path, entries, is_cut, partitions, partition })
        }))
    });
    found.await?.map(Json).map_err(|error| Failure::of_files(&error))
}

/// Sends a file in pieces, as fast as it is taken.
async fn read(
    State(exports): Site,
    axum::Extension(looks): axum::Extension<Looks>,
    Path((disk, number)): Path<(DiskId, u32)>,
    Json(asked): Json<SnapshotPath>,
) -> Answer<Response> {
    let permit = looks.begin()?;
    sent(move |sending| {
        let _permit = permit;
        let opened = exports.view(&disk, number).map_err(Failure::from).and_then(|disk| {
            let disk: Arc<dyn Block> = Arc::new(disk);
            open_files(&disk, asked.partition)
                .and_then(|(files, ..)| files.open_file(&asked.path))
                .map_err(|error| Failure::of_files(&error))
        });
        let mut file = match opened {
            Ok(file) => file,
            Err(failure) => return sending.refuse(failure),
        };
        let Some(mut sending) = sending.begin(Some(file.left_bytes())) else { return };
        loop {
            match file.piece() {
                Ok(Some(piece)) => {
                    if !sending.send(piece) {
                        return sending.abort(ErrorKind::TimedOut.into());
                    }
                }
                Ok(None) => return,
                // The client sees that it is not all.
                Err(error) => return sending.abort(std::io::Error::other(error)),
            }
        }
    })
    .await
}

/// Sends what the machine has changed up to a snapshot, as fast as it is taken.
async fn changes(
    State(exports): Site,
    axum::Extension(looks): axum::Extension<Looks>,
    Path((disk, number)): Path<(DiskId, u32)>,
) -> Answer<Response> {
    let permit = looks.begin()?;
    sent(move |sending| {
        let _permit = permit;
        let disk = match exports.view(&disk, number) {
            Ok(disk) => disk,
            Err(error) => return sending.refuse(error.into()),
        };
        let Some(mut sending) = sending.begin(None) else { return };
        let gone = || std::io::Error::from(ErrorKind::TimedOut);
        let told = write_changes(&disk, |piece| sending.send(piece).then_some(()).ok_or_else(gone));
        if let Err(error) = told {
            sending.abort(error);
        }
    })
    .await
}

/// An answer that has not begun.
struct Sending {
    told: oneshot::Sender<Result<Option<u64>, Failure>>,
    sender: Sender<Bytes, std::io::Error>,
    runtime: Handle,
}

/// An answer that has.
struct Begun {
    sender: Sender<Bytes, std::io::Error>,
    runtime: Handle,
}

impl Sending {
    fn refuse(self, failure: Failure) {
        drop(self.told.send(Err(failure)));
    }

    /// It will have so many bytes, if that is known; `None`: nobody waits for it any more.
    fn begin(self, size_bytes: Option<u64>) -> Option<Begun> {
        let Self { told, sender, runtime } = self;
        told.send(Ok(size_bytes)).ok()?;
        Some(Begun { sender, runtime })
    }
}

impl Begun {
    /// Whether somebody takes it.
    fn send(&mut self, piece: Vec<u8>) -> bool {
        let sending = self.sender.send_data(Bytes::from(piece));
        matches!(self.runtime.block_on(tokio::time::timeout(TAKES_WITHIN, sending)), Ok(Ok(())))
    }

    fn abort(self, error: std::io::Error) {
        self.sender.abort(error);
    }
}

/// The answer that a thread of its own sends.
async fn sent(send: impl FnOnce(Sending) + Send + 'static) -> Answer<Response> {
    let (sender, body) = Channel::<Bytes, std::io::Error>::new(PIECES_MAX);
    let (told, is_told) = oneshot::channel();
    let sending = Sending { told, sender, runtime: Handle::current() };
    let _runs = tokio::task::spawn_blocking(move || send(sending));
    match is_told.await {
        Ok(Ok(Some(size_bytes))) => {
            Ok(([(CONTENT_LENGTH, size_bytes.to_string())], Body::new(body)).into_response())
        }
        Ok(Ok(None)) => Ok(Body::new(body).into_response()),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "it can't be read")),
    }
}
