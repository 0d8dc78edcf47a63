//! Snapshots of machines' disks, and files of them.

use super::{Answer, Body};
use crate::front::Front;
use crate::problem::Problem;
use axum::Json;
use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, put};
use model::{
    DiskId, RollbackOrder, Snapshot, SnapshotFiles, SnapshotList, SnapshotOrder, SnapshotPath,
};
use service::{Admin, SnapshotDownload, Viewer};

/// A machine's name means its root, `lab-07+home` a disk beside that.
type DiskPath = Result<Path<DiskId>, PathRejection>;
type SnapshotName = Result<Path<(DiskId, u32)>, PathRejection>;
type FileName = Result<Query<SnapshotPath>, QueryRejection>;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/machines/{name}/snapshots", get(list).post(make))
        .route("/machines/{name}/snapshots/{number}", delete(remove))
        .route("/machines/{name}/snapshots/{number}/files", get(files))
        .route("/machines/{name}/snapshots/{number}/file", get(file))
        .route("/machines/{name}/rollback", put(roll_back).delete(withdraw))
}

async fn list(service: Viewer, name: DiskPath) -> Answer<Json<SnapshotList>> {
    let Path(name) = name?;
    Ok(Json(service.snapshots(&name).await?))
}

/// Makes one; `null`: nothing was written since the last one.
async fn make(
    service: Admin,
    name: DiskPath,
    body: Body<SnapshotOrder>,
) -> Answer<Json<Option<Snapshot>>> {
    let (Path(name), Json(order)) = (name?, body?);
    Ok(Json(service.make_snapshot(&name, &order).await?))
}

async fn remove(service: Admin, name: SnapshotName) -> Answer<StatusCode> {
    let Path((name, number)) = name?;
    service.remove_snapshot(&name, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the disk go back when the machine boots next.
async fn roll_back(
    service: Admin,
    name: DiskPath,
    body: Body<RollbackOrder>,
) -> Answer<StatusCode> {
    let (Path(name), Json(order)) = (name?, body?);
    service.roll_back(&name, order.snapshot).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has it stay what it is; whether it was to go back.
async fn withdraw(service: Admin, name: DiskPath) -> Answer<Json<bool>> {
    let Path(name) = name?;
    Ok(Json(service.withdraw_roll_back(&name).await?))
}

/// What is in a folder.
async fn files(service: Admin, name: SnapshotName, asked: FileName) -> Answer<Json<SnapshotFiles>> {
    let (Path((name, number)), Query(asked)) = (name?, asked.map_err(|error| no_path(&error))?);
    Ok(Json(service.snapshot_files(&name, number, &asked).await?))
}

async fn file(service: Admin, name: SnapshotName, asked: FileName) -> Answer<Response> {
    let (Path((name, number)), Query(asked)) = (name?, asked.map_err(|error| no_path(&error))?);
    Ok(download(service.snapshot_file(&name, number, &asked).await?, &asked.path))
}

fn no_path(rejection: &QueryRejection) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.body_text())
}

/// The file as something that a browser saves and never shows: a machine's user has written it.
pub(crate) fn download(file: SnapshotDownload, path: &str) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+ ".contains(letter);
    let name: String = name.chars().map(|it| if is_plain(it) { it } else { '_' }).collect();
    let mut response = axum::body::Body::new(file.body).into_response();
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (key, value) in fixed {
        headers.insert(key, HeaderValue::from_static(value));
    }
    let disposition = format!("attachment; filename=\"{name}\"");
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if let Some(size_bytes) = file.size_bytes {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size_bytes));
    }
    response
}
