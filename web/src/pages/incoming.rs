//! Disk files that are sent, and imports of them.

use super::{Done, Failure, Frame, Page, render, see_other};
use crate::text;
use crate::upload::{Source, receive};
use askama::Template;
use axum::Form;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, Query};
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use model::{ImageName, InvalidName, VersionState};
use service::incoming::IncomingFile;
use service::{Admin, Error, NewImport};

/// Name of the form's field.
const FIELD: &str = "disk";

/// A disk file that waits to be imported.
struct File {
    name: String,
    size: String,
    is_chosen: bool,
}

/// What somebody typed into the form of an import, and what is wrong with it.
#[derive(Default)]
struct Typed {
    file: String,
    image: String,
    note: String,
    error: String,
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    frame: Frame,
    files: Vec<File>,
    typed: Typed,
    done: Option<&'static str>,
}

async fn page(
    admin: &Admin,
    status: StatusCode,
    done: Option<&'static str>,
    typed: Typed,
) -> Response {
    let files = admin.incoming().await.unwrap_or_default().into_iter();
    let files = files.map(|file| File {
        is_chosen: file.name == typed.file,
        name: file.name,
        size: text::bytes(file.size_bytes),
    });
    let files = files.collect();
    // Nothing is loaded again here, where somebody may be typing.
    let frame = Frame::new(admin, "images", "Import a disk");
    render(status, &ImportPage { frame, files, typed, done })
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(admin: Admin, Query(options): Query<Options>) -> Page {
    let done = Done::sentence(&options.done);
    Ok(page(&admin, StatusCode::OK, done, Typed::default()).await)
}

#[derive(serde::Deserialize)]
pub(crate) struct ImportForm {
    #[serde(default)]
    file: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    note: String,
    /// For whom the version is; all if nothing is said.
    #[serde(default)]
    state: VersionState,
    removes_file: Option<String>,
    fixes: Option<String>,
}

pub(crate) async fn import(admin: Admin, Form(form): Form<ImportForm>) -> Page {
    let imported = async {
        let image: ImageName =
            form.image.trim().parse().map_err(|error: InvalidName| error.to_string())?;
        let note = Some(form.note.trim().to_owned()).filter(|note| !note.is_empty());
        let (file, state) = (form.file.clone(), form.state);
        let (removes_file, fixes) = (form.removes_file.is_some(), form.fixes.is_some());
        let wanted = NewImport { file, image, note, state, removes_file, fixes };
        match admin.import(wanted).await {
            Ok(job) => Ok(Ok(see_other(&format!("/jobs/{}", job.number), Done::ImportOrdered))),
            Err(error) if error.is_wrong_input() || error.is_not_found() => Err(error.chain()),
            Err(error) => Ok(Err(Failure::new(&admin, &error))),
        }
    };
    match imported.await {
        Ok(done) => done,
        Err(error) => {
            let (file, image, note) = (form.file.clone(), form.image.clone(), form.note.clone());
            wrong(&admin, Typed { file, image, note, error }).await
        }
    }
}

pub(crate) async fn upload(
    admin: Admin,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Page {
    // With what stands around it in the form it is longer than the file, by so little that nobody minds.
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    match receive_form(&admin, length, form).await {
        Ok(Ok(_)) => Ok(see_other("/images/import", Done::FileReceived)),
        Ok(Err(error)) => {
            let typed = Typed { error: error.chain(), ..Typed::default() };
            let status = crate::problem::status_of(&error);
            Ok(page(&admin, status, None, typed).await)
        }
        Err(error) => wrong(&admin, Typed { error, ..Typed::default() }).await,
    }
}

/// The file in the form, or what is wrong with that.
async fn receive_form(
    admin: &Admin,
    length: Option<u64>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Result<IncomingFile, Error>, String> {
    let none = || "choose a file first".to_owned();
    let mut form = form.map_err(|_| none())?;
    let field = loop {
        match form.next_field().await {
            Ok(Some(field)) if field.name() == Some(FIELD) => break field,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Err(none()),
        }
    };
    // Some browsers give the path on their own computer.
    let name = field.file_name().unwrap_or_default();
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(none());
    }
    let receiving = match admin.receive(name, length).await {
        Ok(receiving) => receiving,
        Err(error) => return Ok(Err(error)),
    };
    Ok(receive(receiving, Source::Field(Box::new(field))).await)
}

#[derive(serde::Deserialize)]
pub(crate) struct RemoveForm {
    #[serde(default)]
    file: String,
}

pub(crate) async fn remove(admin: Admin, Form(form): Form<RemoveForm>) -> Page {
    match admin.remove_incoming(form.file).await {
        Ok(()) => Ok(see_other("/images/import", Done::FileRemoved)),
        Err(error) if error.is_wrong_input() => {
            wrong(&admin, Typed { error: error.chain(), ..Typed::default() }).await
        }
        Err(error) => Err(Failure::new(&admin, &error)),
    }
}

async fn wrong(admin: &Admin, typed: Typed) -> Result<Response, Failure> {
    Ok(page(admin, StatusCode::UNPROCESSABLE_ENTITY, None, typed).await)
}
