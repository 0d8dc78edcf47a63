//! What is asked of the storage server about snapshots.

use super::{StorageError, broken, call_within, connected, message, request};
use http_body_util::{BodyExt as _, Limited};
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use model::{RollbackOrder, Snapshot, SnapshotFiles, SnapshotList, SnapshotOrder, SnapshotPath};
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What a machine has written, and its server's memory holds, is written to the disk first.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// How long a file may be looked for.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// Longest message of an error.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// A file of a snapshot, as it comes.
pub struct SnapshotDownload {
    /// How large it is, if that is known.
    pub size_bytes: Option<u64>,
    /// What is in it; it ends with an error if it can't be read to its end.
    pub body: Incoming,
}

/// What snapshots there are of the machine's disk, the oldest first.
pub(crate) async fn list(
    socket: &Path,
    disk: impl fmt::Display,
) -> Result<SnapshotList, StorageError> {
    let path = format!("/v1/disks/{disk}/snapshots");
    ask(socket, Method::GET, &path, Vec::new(), LOOK_DEADLINE).await
}

/// Makes one. `None`: nothing was written since the last one.
pub(crate) async fn make(
    socket: &Path,
    disk: impl fmt::Display,
    order: &SnapshotOrder,
) -> Result<Option<Snapshot>, StorageError> {
    let body = serde_json::to_vec(order).map_err(StorageError::Answer)?;
    let path = format!("/v1/disks/{disk}/snapshots");
    ask(socket, Method::POST, &path, body, SNAPSHOT_DEADLINE).await
}

pub(crate) async fn remove(
    socket: &Path,
    disk: impl fmt::Display,
    number: u32,
) -> Result<(), StorageError> {
    let path = format!("/v1/disks/{disk}/snapshots/{number}");
    call_within(SNAPSHOT_DEADLINE, socket, Method::DELETE, &path, Vec::new()).await.map(drop)
}

/// Has the disk go back when the machine boots next.
pub(crate) async fn roll_back(
    socket: &Path,
    disk: impl fmt::Display,
    snapshot: u32,
) -> Result<(), StorageError> {
    let body = serde_json::to_vec(&RollbackOrder { snapshot }).map_err(StorageError::Answer)?;
    let path = format!("/v1/disks/{disk}/rollback");
    call_within(SNAPSHOT_DEADLINE, socket, Method::PUT, &path, body).await.map(drop)
}

/// It stays what it is after all; whether it was to go back.
pub(crate) async fn withdraw(socket: &Path, disk: impl fmt::Display) -> Result<bool, StorageError> {
    let path = format!("/v1/disks/{disk}/rollback");
    ask(socket, Method::DELETE, &path, Vec::new(), SNAPSHOT_DEADLINE).await
}

/// What is in a folder of a snapshot.
pub(crate) async fn look(
    socket: &Path,
    disk: impl fmt::Display,
    number: u32,
    asked: &SnapshotPath,
) -> Result<SnapshotFiles, StorageError> {
    let body = serde_json::to_vec(asked).map_err(StorageError::Answer)?;
    let path = format!("/v1/disks/{disk}/snapshots/{number}/look");
    ask(socket, Method::POST, &path, body, LOOK_DEADLINE).await
}

async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    deadline: Duration,
) -> Result<T, StorageError> {
    let answer = call_within(deadline, socket, method, path, body).await?;
    serde_json::from_slice(&answer).map_err(StorageError::Answer)
}

/// A file of a snapshot. It comes for as long as somebody takes it.
pub(crate) async fn read(
    socket: &Path,
    disk: impl fmt::Display,
    number: u32,
    asked: &SnapshotPath,
) -> Result<SnapshotDownload, StorageError> {
    let body = serde_json::to_vec(asked).map_err(StorageError::Answer)?;
    let path = format!("/v1/disks/{disk}/snapshots/{number}/read");
    download(socket, Method::POST, &path, body).await
}

/// What the machine has changed of the version below its disk, up to a snapshot: records of "rbd diff v1".
pub(crate) async fn changes(
    socket: &Path,
    disk: impl fmt::Display,
    number: u32,
) -> Result<SnapshotDownload, StorageError> {
    let path = format!("/v1/disks/{disk}/snapshots/{number}/changes");
    download(socket, Method::GET, &path, Vec::new()).await
}

async fn download(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<SnapshotDownload, StorageError> {
    let (mut sender, connection) = connected(socket).await?;
    // It ends with the body that it brings.
    tokio::spawn(connection);
    let request = request(method, path, body);
    let response = tokio::time::timeout(LOOK_DEADLINE, sender.send_request(request))
        .await
        .map_err(|_| StorageError::Late(LOOK_DEADLINE.as_secs()))?
        .map_err(broken)?;
    let status = response.status();
    if !status.is_success() {
        let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
        let body = body.map_err(StorageError::Broken)?.to_bytes();
        return Err(StorageError::Refused { status: status.as_u16(), message: message(&body) });
    }
    let length = response.headers().get(CONTENT_LENGTH);
    let size_bytes = length.and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(SnapshotDownload { size_bytes, body: response.into_body() })
}
