//! Images that are changed by booting them.

use super::versions::nothing_here;
use super::{Done, Failure, Frame, Page, When, render, see_other};
use crate::text;
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Form, extract::rejection::FormRejection};
use model::{Follows, ImageChoice, MachineName, VersionState};
use service::{Admin, EditView, NewEdit, Publication};

const EDITS: &str = "/images/edits";

/// What is changed on a machine.
struct Shown {
    machine: String,
    /// `debian-12 v4`.
    what: String,
    by: String,
    since: When,
    runs: bool,
    /// May be empty.
    written: String,
    /// Versions that were made since; may be empty.
    newer: String,
}

impl Shown {
    fn new(view: EditView, admin: &Admin) -> Self {
        let EditView { machine, edit, runs, written_bytes, newer } = view;
        let newer: Vec<String> = newer.iter().map(|newer| format!("v{newer}")).collect();
        Self {
            machine: machine.to_string(),
            what: format!("{} v{}", edit.image, edit.version),
            by: edit.by,
            since: When::seconds(edit.since_unix, admin.now()),
            runs,
            written: written_bytes.map_or_else(String::new, text::bytes),
            newer: newer.join(", "),
        }
    }
}

#[derive(Template)]
#[template(path = "edits.html")]
struct EditsPage {
    frame: Frame,
    done: Option<&'static str>,
    error: String,
    edits: Vec<Shown>,
    images: Vec<String>,
    /// Those that change nothing yet.
    machines: Vec<String>,
    image: String,
    machine: String,
}

/// What somebody typed, and what is wrong with it.
#[derive(Default)]
struct Typed {
    image: String,
    machine: String,
    error: String,
}

async fn page(
    admin: &Admin,
    status: StatusCode,
    done: Option<&'static str>,
    typed: Typed,
) -> Response {
    let edits = admin.edits().await.into_iter().map(|view| Shown::new(view, admin)).collect();
    let site = admin.site();
    let images = site.systems_by_image().map(|versions| versions[0].image.to_string()).collect();
    let free = site.machines.iter().filter(|machine| machine.edit.is_none());
    let machines = free.map(|machine| machine.name.to_string()).collect();
    let Typed { image, machine, error } = typed;
    let frame = Frame::new(admin, "images", "Change an image");
    let page = EditsPage { frame, done, error, edits, images, machines, image, machine };
    render(status, &page)
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
    #[serde(default)]
    image: String,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let Options { done, image } = options;
    let typed = Typed { image, ..Typed::default() };
    Ok(page(&admin, StatusCode::OK, Done::sentence(&done), typed).await)
}

#[derive(serde::Deserialize)]
pub(crate) struct Begin {
    #[serde(default)]
    image: String,
    #[serde(default)]
    machine: String,
}

/// Has a machine change an image from its next boot on.
pub(crate) async fn begin(admin: Admin, form: Result<Form<Begin>, FormRejection>) -> Page {
    let Form(Begin { image, machine }) = form.map_err(|_| nothing_here(&admin))?;
    let begun = async {
        let choice: ImageChoice =
            image.parse().map_err(|wrong: model::ParseChoiceError| wrong.to_string())?;
        let version = match choice.follows {
            Follows::Version(version) => Some(version),
            Follows::Released | Follows::Test => None,
        };
        let name: MachineName =
            machine.parse().map_err(|wrong: model::InvalidName| wrong.to_string())?;
        let wanted = NewEdit { image: choice.image, version, machine: name };
        match admin.begin_edit(wanted).await {
            Ok(_) => Ok(Ok(see_other(EDITS, Done::EditBegun))),
            Err(error) if error.is_wrong_input() || error.is_not_found() => Err(error.chain()),
            Err(error) => Ok(Err(Failure::new(&admin, &error))),
        }
    };
    match begun.await {
        Ok(done) => done,
        Err(error) => {
            let typed = Typed { image: image.clone(), machine: machine.clone(), error };
            Ok(page(&admin, StatusCode::UNPROCESSABLE_ENTITY, None, typed).await)
        }
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct Publish {
    #[serde(default)]
    note: String,
    #[serde(default)]
    state: VersionState,
    fixes: Option<String>,
    anyway: Option<String>,
}

/// Has the boot server make a version of what a machine has changed.
pub(crate) async fn publish(
    admin: Admin,
    Path(machine): Path<String>,
    form: Result<Form<Publish>, FormRejection>,
) -> Page {
    let machine: MachineName = machine.parse().map_err(|_| nothing_here(&admin))?;
    let Form(Publish { note, state, fixes, anyway }) = form.map_err(|_| nothing_here(&admin))?;
    let note = Some(note.trim().to_owned()).filter(|note| !note.is_empty());
    let (fixes, anyway) = (fixes.is_some(), anyway.is_some());
    let wanted = Publication { machine, note, state, fixes, anyway };
    match admin.publish_edit(wanted).await {
        Ok(job) => Ok(see_other(&format!("/jobs/{}", job.number), Done::PublishOrdered)),
        Err(error) if error.is_wrong_input() => {
            let typed = Typed { error: error.chain(), ..Typed::default() };
            Ok(page(&admin, crate::problem::status_of(&error), None, typed).await)
        }
        Err(error) => Err(Failure::new(&admin, &error)),
    }
}

#[derive(Template)]
#[template(path = "edit_discard.html")]
struct AskDiscard {
    frame: Frame,
    edit: Shown,
}

/// Asks before what was changed is thrown away.
pub(crate) async fn ask_discard(admin: Admin, Path(machine): Path<String>) -> Page {
    let found = admin.edits().await.into_iter().find(|view| view.machine.as_str() == machine);
    let edit = Shown::new(found.ok_or_else(|| nothing_here(&admin))?, &admin);
    let frame = Frame::new(&admin, "images", format!("Throw away what {machine} has changed"));
    Ok(render(StatusCode::OK, &AskDiscard { frame, edit }))
}

pub(crate) async fn discard(admin: Admin, Path(machine): Path<String>) -> Page {
    let machine: MachineName = machine.parse().map_err(|_| nothing_here(&admin))?;
    let discarded = admin.discard_edit(&machine).await;
    discarded.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other(EDITS, Done::EditDiscarded))
}
