//! Files that are laid over machines' roots.

use super::{Choice, Done, Failure, Frame, Page, When, render, see_other};
use crate::front::{Front, encoded};
use crate::problem::limited;
use crate::text;
use askama::Template;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, Query};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use model::{FilesOf, SiteFile, SiteFileKind};
use service::{Admin, LaidAt, NewFile, Viewer};

/// Longest form: the longest file, and what stands around it.
const FORM_BYTES_MAX: usize = 2 << 20;

pub(crate) fn router() -> Router<Front> {
    let form = limited(Router::new().route("/files", post(put)), FORM_BYTES_MAX);
    let others = Router::new().route("/files", get(show)).route("/files/edit", get(edit));
    form.merge(others.route("/files/remove", post(remove)))
}

/// Stands for the site among rooms and machines.
pub(super) const SITE: &str = "site";

/// A file as it is drawn.
pub(crate) struct ShownFile {
    pub(crate) of: String,
    /// The room or machine as a form names it.
    of_value: String,
    pub(crate) path: String,
    pub(crate) what: String,
    since: When,
    by: String,
    /// Where its content can be changed; none of a secret.
    edit: String,
}

impl ShownFile {
    pub(crate) fn new(file: SiteFile, viewer: &Viewer) -> Self {
        let of = file.of();
        let of_value = value_of(&of);
        let mut what = match file.kind {
            SiteFileKind::File => text::bytes(file.size_bytes.unwrap_or(0)),
            SiteFileKind::Link => {
                format!("link to {}", file.target.as_deref().unwrap_or_default())
            }
            SiteFileKind::Gone => "gone".to_owned(),
        };
        for more in [
            file.mode.map(|mode| mode.to_string()),
            file.owner.map(|owner| format!("owner {owner}")),
            file.template.then(|| "template".to_owned()),
            file.secret.then(|| "secret".to_owned()),
        ] {
            what.extend(more.map(|more| format!(", {more}")));
        }
        Self {
            edit: format!("/files/edit?of={}&path={}", encoded(&of_value), encoded(&file.path)),
            of: match of {
                FilesOf::Site => "site".to_owned(),
                of => of.to_string(),
            },
            of_value,
            path: file.path,
            what,
            since: When::seconds(file.changed_unix, viewer.now()),
            by: file.changed_by,
        }
    }
}

/// What is laid at a path of one machine.
pub(crate) struct ShownLaid {
    pub(crate) file: ShownFile,
    /// `site, room r101`.
    pub(crate) covers: String,
}

impl ShownLaid {
    pub(crate) fn new(laid: LaidAt, viewer: &Viewer) -> Self {
        let covers = laid.covers.iter().map(|file| match file.of() {
            FilesOf::Site => "site".to_owned(),
            of => of.to_string(),
        });
        let covers: Vec<String> = covers.collect();
        Self { covers: covers.join(", "), file: ShownFile::new(laid.file, viewer) }
    }
}

pub(super) fn value_of(of: &FilesOf) -> String {
    match of {
        FilesOf::Site => SITE.to_owned(),
        FilesOf::Room(room) => format!("room:{room}"),
        FilesOf::Machine(machine) => format!("machine:{machine}"),
    }
}

pub(super) fn of_value(value: &str) -> Result<FilesOf, String> {
    let of = match value.split_once(':') {
        None if value == SITE => Some(FilesOf::Site),
        Some(("room", room)) => room.parse().ok().map(FilesOf::Room),
        Some(("machine", machine)) => machine.parse().ok().map(FilesOf::Machine),
        _ => None,
    };
    of.ok_or_else(|| "choose on which machines it is laid".to_owned())
}

/// What somebody typed into the form, and what is wrong with it.
#[derive(Default)]
struct Typed {
    of: String,
    path: String,
    text: String,
    link: String,
    mode: String,
    owner: String,
    /// `file`, `link` or `gone`.
    kind: String,
    is_template: bool,
    is_secret: bool,
    error: String,
    is_open: bool,
}

#[derive(Template)]
#[template(path = "files.html")]
struct FilesPage {
    frame: Frame,
    done: Option<&'static str>,
    files: Vec<ShownFile>,
    whose: Vec<Choice>,
    kinds: Vec<Choice>,
    typed: Typed,
}

#[derive(serde::Deserialize)]
struct Options {
    #[serde(default)]
    done: String,
}

async fn page(
    viewer: &Viewer,
    status: StatusCode,
    done: Option<&'static str>,
    typed: Typed,
) -> Result<Response, Failure> {
    let files = viewer.site_files().await.map_err(|error| Failure::new(viewer, &error))?;
    let whose = choices_of(viewer, if typed.of.is_empty() { SITE } else { &typed.of });
    let kind = if typed.kind.is_empty() { "file" } else { &typed.kind };
    let kinds = vec![
        Choice::new("file", "a file", kind),
        Choice::new("link", "a symbolic link", kind),
        Choice::new("gone", "nothing: what the image has there is gone", kind),
    ];
    let page = FilesPage {
        frame: Frame::new(viewer, "files", "Files"),
        done,
        files: files.into_iter().map(|file| ShownFile::new(file, viewer)).collect(),
        whose,
        kinds,
        typed,
    };
    Ok(render(status, &page))
}

/// The site, rooms and machines to choose from.
pub(super) fn choices_of(viewer: &Viewer, chosen: &str) -> Vec<Choice> {
    let site = viewer.site();
    let mut whose = vec![Choice::new(SITE, "all machines", chosen)];
    for room in &site.rooms {
        let value = value_of(&FilesOf::Room(room.name.clone()));
        whose.push(Choice::new(&value, format!("room {}", room.name), chosen));
    }
    for machine in &site.machines {
        let value = value_of(&FilesOf::Machine(machine.name.clone()));
        whose.push(Choice::new(&value, format!("machine {}", machine.name), chosen));
    }
    whose
}

async fn show(viewer: Viewer, Query(options): Query<Options>) -> Page {
    page(&viewer, StatusCode::OK, Done::sentence(&options.done), Typed::default()).await
}

#[derive(serde::Deserialize)]
struct Meant {
    #[serde(default)]
    of: String,
    #[serde(default)]
    path: String,
}

/// The form with a file that is laid, to be changed.
async fn edit(admin: Admin, Query(meant): Query<Meant>) -> Page {
    let of =
        of_value(&meant.of).map_err(|error| Failure::with(&admin, StatusCode::NOT_FOUND, error))?;
    let read = admin.site_file(of, meant.path).await;
    let (file, content) = read.map_err(|error| Failure::new(&admin, &error))?;
    let text = content.and_then(|content| String::from_utf8(content).ok());
    let typed = Typed {
        of: meant.of,
        path: file.path,
        text: text.unwrap_or_default(),
        link: file.target.unwrap_or_default(),
        mode: file.mode.map(|mode| mode.to_string()).unwrap_or_default(),
        owner: file.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        kind: match file.kind {
            SiteFileKind::File => "file",
            SiteFileKind::Link => "link",
            SiteFileKind::Gone => "gone",
        }
        .to_owned(),
        is_template: file.template,
        is_secret: file.secret,
        error: String::new(),
        is_open: true,
    };
    page(&admin, StatusCode::OK, None, typed).await
}

async fn put(admin: Admin, form: Result<Multipart, MultipartRejection>) -> Page {
    let (typed, sent) = match read_form(form).await {
        Ok(read) => read,
        Err(error) => (Typed { error, ..Typed::default() }, None),
    };
    let new =
        if typed.error.is_empty() { new_file(&typed, sent) } else { Err(typed.error.clone()) };
    let put = match new {
        Ok(new) => admin.put_site_file(new).await,
        Err(error) => return wrong(&admin, typed, error).await,
    };
    match put {
        Ok(_) => Ok(see_other("/files", Done::FileLaid)),
        Err(error) if error.is_wrong_input() || error.is_not_found() => {
            wrong(&admin, typed, error.chain()).await
        }
        Err(error) => Err(Failure::new(&admin, &error)),
    }
}

async fn wrong(admin: &Admin, typed: Typed, error: String) -> Result<Response, Failure> {
    // What is a secret does not come back.
    let text = if typed.is_secret { String::new() } else { typed.text };
    let typed = Typed { error, text, is_open: true, ..typed };
    page(admin, StatusCode::UNPROCESSABLE_ENTITY, None, typed).await
}

/// What the form says, and the file that was chosen in it.
async fn read_form(
    form: Result<Multipart, MultipartRejection>,
) -> Result<(Typed, Option<Vec<u8>>), String> {
    let cut = || "the form did not come whole; nothing was done".to_owned();
    let mut form = form.map_err(|_| cut())?;
    let (mut typed, mut sent) = (Typed::default(), None);
    while let Some(field) = form.next_field().await.map_err(|error| error.body_text())? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|error| error.body_text())?;
        if name == "file" {
            // Nothing was chosen, if it is empty.
            sent = Some(bytes.to_vec()).filter(|bytes| !bytes.is_empty());
            continue;
        }
        let value = String::from_utf8_lossy(&bytes).into_owned();
        match name.as_str() {
            "of" => typed.of = value,
            "path" => typed.path = value.trim().to_owned(),
            // Browsers end lines as HTTP does; no file of Linux does.
            "text" => typed.text = value.replace("\r\n", "\n"),
            "link" => typed.link = value.trim().to_owned(),
            "mode" => typed.mode = value.trim().to_owned(),
            "owner" => typed.owner = value.trim().to_owned(),
            "kind" => typed.kind = value,
            "template" => typed.is_template = true,
            "secret" => typed.is_secret = true,
            _ => {}
        }
    }
    Ok((typed, sent))
}

fn new_file(typed: &Typed, sent: Option<Vec<u8>>) -> Result<NewFile, String> {
    let of = of_value(&typed.of)?;
    let new = match typed.kind.as_str() {
        "link" => NewFile { link: Some(typed.link.clone()), ..NewFile::default() },
        "gone" => NewFile { gone: true, ..NewFile::default() },
        _ => {
            let parsed = |error: model::BadFileSetting| error.to_string();
            let mode = Some(&typed.mode).filter(|mode| !mode.is_empty());
            let owner = Some(&typed.owner).filter(|owner| !owner.is_empty());
            let file = match sent {
                Some(bytes) => NewFile::of_bytes("", &bytes),
                None => NewFile { text: Some(typed.text.clone()), ..NewFile::default() },
            };
            NewFile {
                mode: mode.map(|mode| mode.parse()).transpose().map_err(parsed)?,
                owner: owner.map(|owner| owner.parse()).transpose().map_err(parsed)?,
                template: typed.is_template,
                secret: typed.is_secret,
                ..file
            }
        }
    };
    let (room, machine) = match of {
        FilesOf::Site => (None, None),
        FilesOf::Room(room) => (Some(room), None),
        FilesOf::Machine(machine) => (None, Some(machine)),
    };
    Ok(NewFile { path: typed.path.clone(), room, machine, ..new })
}

async fn remove(admin: Admin, Form(meant): Form<Meant>) -> Page {
    let of =
        of_value(&meant.of).map_err(|error| Failure::with(&admin, StatusCode::NOT_FOUND, error))?;
    let removed = admin.remove_site_file(of, meant.path).await;
    removed.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/files", Done::FileLaidNoMore))
}
