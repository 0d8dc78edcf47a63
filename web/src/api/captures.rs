//! PCs that are captured.

use super::{Answer, Body, NamePath};
use crate::front::Front;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use model::{CaptureOrder, ImageChoice, ImageName, MachineName, VersionState};
use service::{Admin, CaptureView, NewCapture, Viewer};

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/captures", get(list).post(begin))
        .route("/captures/{name}", delete(cancel))
}

async fn list(service: Viewer) -> Json<Vec<CaptureView>> {
    Json(service.captures())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    image: ImageName,
    machine: MachineName,
    with: Option<ImageChoice>,
    order: CaptureOrder,
    note: Option<String>,
    #[serde(default)]
    state: VersionState,
    #[serde(default)]
    fixes: bool,
}

/// Has the next boot of a machine send what is on its own disks.
async fn begin(admin: Admin, body: Body<Begin>) -> Answer<(StatusCode, Json<CaptureView>)> {
    let Json(Begin { image, machine, with, order, note, state, fixes }) = body?;
    let wanted = NewCapture { image, machine, with, order, note, state, fixes };
    Ok((StatusCode::CREATED, Json(admin.begin_capture(wanted).await?)))
}

/// Has a machine boot as usual after all.
async fn cancel(admin: Admin, name: NamePath) -> Answer<Json<CaptureView>> {
    let Path(machine) = name?;
    Ok(Json(admin.cancel_capture(&machine).await?))
}
