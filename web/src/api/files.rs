//! Files that are laid over machines' roots, in the JSON API.

use super::{Answer, Body, NamePath};
use crate::front::Front;
use crate::problem::{Problem, limited};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use model::{FilesOf, MachineName, RoomName, SiteFile};
use service::{Admin, FileRead, LaidAt, NewFile, Viewer};

/// Longest body: the longest file in Base64, or as text with each byte escaped twice, and what stands around it.
const FILE_BYTES_MAX: usize = 3 << 20;

pub(super) fn router() -> Router<Front> {
    let router = Router::new()
        .route("/files", get(files).put(put))
        .route("/files/file", get(file).delete(remove))
        .route("/machines/{name}/files", get(on_machine));
    limited(router, FILE_BYTES_MAX)
}

/// Which file is meant.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Meant {
    #[serde(default)]
    room: Option<RoomName>,
    #[serde(default)]
    machine: Option<MachineName>,
    path: String,
}

impl Meant {
    fn of(self) -> Answer<(FilesOf, String)> {
        let of = FilesOf::named(self.room, self.machine).ok_or_else(|| {
            let detail = service::FilesError::TwoOwners.to_string();
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        })?;
        Ok((of, self.path))
    }
}

type MeantQuery = Result<Query<Meant>, QueryRejection>;

async fn files(service: Viewer) -> Answer<Json<Vec<SiteFile>>> {
    Ok(Json(service.site_files().await?))
}

/// What is laid over the root of one machine, and what of the site and its room is covered by that.
async fn on_machine(service: Viewer, name: NamePath) -> Answer<Json<Vec<LaidAt>>> {
    let Path(name) = name?;
    Ok(Json(service.files_on_machine(&name).await?))
}

/// A file, with what is in it unless that is a secret.
async fn file(service: Admin, meant: MeantQuery) -> Answer<Json<FileRead>> {
    let Query(meant) = meant?;
    let (of, path) = meant.of()?;
    let (file, content) = service.site_file(of, path).await?;
    Ok(Json(FileRead::new(file, content)))
}

/// Lays a file, in place of the one that is at its path.
async fn put(service: Admin, body: Body<NewFile>) -> Answer<(StatusCode, Json<SiteFile>)> {
    let Json(body) = body?;
    let (file, is_new) = service.put_site_file(body).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(file)))
}

async fn remove(service: Admin, meant: MeantQuery) -> Answer<StatusCode> {
    let Query(meant) = meant?;
    let (of, path) = meant.of()?;
    service.remove_site_file(of, path).await?;
    Ok(StatusCode::NO_CONTENT)
}
