//! Images that are changed by booting them.

use super::{Answer, Body, NamePath};
use crate::front::Front;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use model::{ImageName, MachineName, VersionState};
use service::jobs::Job;
use service::{Admin, EditView, NewEdit, Publication, Viewer};

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/edits", get(list).post(begin))
        .route("/edits/{name}", delete(discard))
        .route("/edits/{name}/publish", post(publish))
}

async fn list(service: Viewer) -> Json<Vec<EditView>> {
    Json(service.edits().await)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    image: ImageName,
    /// On which version; else on the newest that machines get.
    version: Option<u32>,
    machine: MachineName,
}

/// Has a machine change an image from its next boot on.
async fn begin(admin: Admin, body: Body<Begin>) -> Answer<(StatusCode, Json<EditView>)> {
    let Json(Begin { image, version, machine }) = body?;
    let begun = admin.begin_edit(NewEdit { image, version, machine }).await?;
    Ok((StatusCode::CREATED, Json(begun)))
}

/// Throws away what a machine has changed.
async fn discard(admin: Admin, name: NamePath) -> Answer<Json<EditView>> {
    let Path(machine) = name?;
    Ok(Json(admin.discard_edit(&machine).await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    note: Option<String>,
    #[serde(default)]
    state: VersionState,
    #[serde(default)]
    fixes: bool,
    #[serde(default)]
    anyway: bool,
}

/// Has the boot server make a version of what a machine has changed.
async fn publish(
    admin: Admin,
    name: NamePath,
    body: Body<Publish>,
) -> Answer<(StatusCode, Json<Job>)> {
    let (Path(machine), Json(Publish { note, state, fixes, anyway })) = (name?, body?);
    let wanted = Publication { machine, note, state, fixes, anyway };
    Ok((StatusCode::ACCEPTED, Json(admin.publish_edit(wanted).await?)))
}
