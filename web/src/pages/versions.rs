//! What becomes of image versions: who gets them, and which are removed.

use super::{Done, Failure, Frame, Page, render, see_other};
use crate::text;
use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Form, extract::rejection::FormRejection};
use model::{ImageName, MachineName, RoomName, VersionNumber, VersionState};
use service::{Admin, Viewer};
use std::collections::BTreeSet;

const IMAGES: &str = "/images";

/// What a button says.
#[derive(serde::Deserialize)]
pub(crate) struct Wanted {
    what: String,
}

/// Changes a version: the field `what` is its new state, or `remove`.
pub(crate) async fn change(
    admin: Admin,
    Path((image, version)): Path<(String, String)>,
    form: Result<Form<Wanted>, FormRejection>,
) -> Page {
    let (image, version) = named(&admin, &image, &version)?;
    let what = form.map(|Form(wanted)| wanted.what).unwrap_or_default();
    let done = match (what.as_str(), what.parse()) {
        ("remove", _) => {
            admin.remove_image_version(image, version).await.map(|_| Done::VersionRemoved)
        }
        (_, Ok(state)) => {
            let done = match state {
                VersionState::Released => Done::VersionReleased,
                VersionState::Test => Done::VersionToTest,
                VersionState::Retired => Done::VersionRetired,
                VersionState::Draft => Done::VersionDraft,
            };
            admin.set_image_state(image, version, state).await.map(|_| done)
        }
        (_, Err(error)) => {
            return Err(Failure::with(&admin, StatusCode::UNPROCESSABLE_ENTITY, error.to_string()));
        }
    };
    Ok(see_other(IMAGES, done.map_err(|error| Failure::new(&admin, &error))?))
}

/// To which version: the one on the button, whatever has become of others since.
#[derive(serde::Deserialize)]
pub(crate) struct Back {
    to: u32,
}

/// Makes an older version what machines get.
pub(crate) async fn roll_back(
    admin: Admin,
    Path(image): Path<String>,
    form: Result<Form<Back>, FormRejection>,
) -> Page {
    let image = image.parse().map_err(|_| nothing_here(&admin))?;
    let Form(Back { to }) = form.map_err(|_| nothing_here(&admin))?;
    let done = admin.roll_back_image(image, Some(to)).await;
    done.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other(IMAGES, Done::RolledBack))
}

/// What becomes of the version that a room tries.
#[derive(serde::Deserialize)]
pub(crate) struct Ring {
    /// `begin`, `pass`, `stop`, or `without`.
    what: String,
    version: Option<u32>,
    room: Option<RoomName>,
    /// For whom nobody waits any more.
    machine: Option<MachineName>,
}

/// Has a room try a version before all get it, or ends that.
pub(crate) async fn ring(
    admin: Admin,
    Path(image): Path<String>,
    form: Result<Form<Ring>, FormRejection>,
) -> Page {
    let image: ImageName = image.parse().map_err(|_| nothing_here(&admin))?;
    let Form(wanted) = form.map_err(|_| nothing_here(&admin))?;
    let done = match wanted {
        Ring { what, version: Some(version), room: Some(room), .. } if what == "begin" => {
            let began = admin.begin_ring(image, version, room, BTreeSet::new()).await;
            began.map(|_| Done::RingBegun)
        }
        Ring { what, machine: Some(machine), .. } if what == "without" => {
            let rings = admin.rings().await.map_err(|error| Failure::new(&admin, &error))?;
            let ring = rings.into_iter().find(|view| view.ring.image == image);
            let mut without = ring.map(|view| view.ring.without).unwrap_or_default();
            without.insert(machine);
            admin.ring_without(image, without).await.map(|_| Done::RingWithout)
        }
        Ring { what, .. } if what == "pass" => {
            admin.end_ring(image, true).await.map(|_| Done::VersionReleased)
        }
        Ring { what, .. } if what == "stop" => {
            admin.end_ring(image, false).await.map(|_| Done::RingStopped)
        }
        _ => return Err(nothing_here(&admin)),
    };
    Ok(see_other(IMAGES, done.map_err(|error| Failure::new(&admin, &error))?))
}

#[derive(Template)]
#[template(path = "version_remove.html")]
struct AskRemove {
    frame: Frame,
    image: ImageName,
    version: u32,
    size: String,
}

/// Asks before a version is removed, or says who needs it.
pub(crate) async fn ask_remove(
    admin: Admin,
    Path((image, version)): Path<(String, String)>,
) -> Page {
    let (image, version) = named(&admin, &image, &version)?;
    let size = admin.removable(&image, version).await;
    let size = text::bytes(size.map_err(|error| Failure::new(&admin, &error))?);
    let frame = Frame::new(&admin, "images", format!("Remove {image} v{version}"));
    Ok(render(StatusCode::OK, &AskRemove { frame, image, version, size }))
}

pub(super) fn named(
    viewer: &Viewer,
    image: &str,
    version: &str,
) -> Result<(ImageName, u32), Failure> {
    let named = image.parse().ok().zip(version.parse().ok().map(|VersionNumber(it)| it));
    named.ok_or_else(|| nothing_here(viewer))
}

pub(super) fn nothing_here(viewer: &Viewer) -> Failure {
    Failure::with(viewer, StatusCode::NOT_FOUND, "There is no such image version.".to_owned())
}
