//! Disks that machines have beside their roots, in the JSON API.

use super::{Answer, Body, NamePath};
use crate::front::Front;
use crate::problem::Problem;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use model::{DiskId, DiskTag, FilesOf, MachineName, RoomName, SiteDisk};
use service::{Admin, KeptBeside, MachineDisk, NewDisk, Viewer};

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/disks", get(disks).put(put))
        .route("/disks/disk", delete(remove))
        .route("/disks/kept", get(kept))
        .route("/disks/kept/{disk}", delete(reset))
        .route("/machines/{name}/disks", get(of_machine))
}

/// Which disk is meant.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Meant {
    #[serde(default)]
    room: Option<RoomName>,
    #[serde(default)]
    machine: Option<MachineName>,
    name: DiskTag,
}

async fn disks(service: Viewer) -> Json<Vec<SiteDisk>> {
    Json(service.site_disks())
}

/// Those that one machine has.
async fn of_machine(service: Viewer, name: NamePath) -> Answer<Json<Vec<MachineDisk>>> {
    let Path(name) = name?;
    Ok(Json(service.disks_of_machine(&name).await?))
}

/// What machines have written to disks that are kept.
async fn kept(service: Viewer) -> Json<Vec<KeptBeside>> {
    Json(service.kept_disks().await)
}

/// Throws away what a machine has written to one.
async fn reset(service: Admin, disk: Result<Path<DiskId>, PathRejection>) -> Answer<StatusCode> {
    let Path(disk) = disk?;
    service.reset_site_disk(disk).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives machines a disk, in place of the one of its name.
async fn put(service: Admin, body: Body<NewDisk>) -> Answer<(StatusCode, Json<SiteDisk>)> {
    let Json(body) = body?;
    let (disk, is_new) = service.put_site_disk(body).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(disk)))
}

async fn remove(service: Admin, meant: Result<Query<Meant>, QueryRejection>) -> Answer<StatusCode> {
    let Query(Meant { room, machine, name }) = meant?;
    let of = FilesOf::named(room, machine).ok_or_else(|| {
        let detail = service::DisksError::TwoOwners.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })?;
    service.remove_site_disk(of, name).await?;
    Ok(StatusCode::NO_CONTENT)
}
