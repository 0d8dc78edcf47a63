//! Rooms, and what machines inherit.

use super::{Answer, Body};
use crate::front::Front;
use crate::problem::Problem;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use model::{Room, RoomName, Setting, Settings};
use service::{Admin, RoomChange, RoomView, SettingsChange, Viewer};

type NamePath = Result<Path<RoomName>, PathRejection>;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/rooms", get(rooms))
        .route("/rooms/{name}", get(room).put(put).patch(patch).delete(remove))
        .route("/site", get(settings).patch(set_settings))
}

async fn rooms(service: Viewer) -> Json<Vec<RoomView>> {
    Json(service.rooms())
}

async fn room(service: Viewer, name: NamePath) -> Answer<Json<RoomView>> {
    let Path(name) = name?;
    Ok(Json(service.room(&name)?))
}

/// Adds a room, or makes an existing one so: what the body leaves out is not said by the room.
async fn put(
    service: Admin,
    name: NamePath,
    body: Body<RoomChange>,
) -> Answer<(StatusCode, Json<Room>)> {
    let (Path(name), Json(body)) = (name?, body?);
    if body.name.as_ref().is_some_and(|new| *new != name) {
        let detail = "PUT does not rename a room: use PATCH";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let is_new = service.site().room(&name).is_none();
    let gives_root = body.root.is_some() || body.root_url.is_some();
    let left_out = Setting::left_out([
        body.image.is_some(),
        gives_root,
        body.write_mode.is_some(),
        body.menu.is_some(),
    ]);
    let whole = RoomChange {
        note: Some(body.note.unwrap_or_default()),
        size: Some(body.size.flatten()),
        kernel_args: Some(body.kernel_args.unwrap_or_default()),
        inherit: left_out.chain(body.inherit).collect(),
        ..body
    };
    let room = service.set_room(name, whole).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(room)))
}

/// Changes what the body names (RFC 7396).
async fn patch(service: Admin, name: NamePath, body: Body<RoomChange>) -> Answer<Json<Room>> {
    let (Path(name), Json(body)) = (name?, body?);
    service.room(&name)?;
    Ok(Json(service.set_room(name, body).await?))
}

async fn remove(service: Admin, name: NamePath) -> Answer<StatusCode> {
    let Path(name) = name?;
    service.remove_room(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What machines inherit whose room says nothing.
async fn settings(service: Viewer) -> Json<Settings> {
    Json(service.site().settings.clone())
}

/// Changes what the body names (RFC 7396).
async fn set_settings(service: Admin, body: Body<SettingsChange>) -> Answer<Json<Settings>> {
    let Json(body) = body?;
    Ok(Json(service.set_site_settings(body).await?))
}
