//! Disks that machines have beside their roots.

use super::files::{SITE, choices_of, of_value, value_of};
use super::{Choice, Done, Failure, Frame, Page, When, render, see_other};
use crate::front::{Front, encoded};
use crate::text;
use askama::Template;
use axum::Form;
use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use model::{DiskPurpose, DiskWhat, DiskWrites, FilesOf, SiteDisk};
use service::{Admin, KeptBeside, MachineDisk, NewDisk, Viewer};

pub(crate) fn router() -> Router<Front> {
    Router::new()
        .route("/disks", get(show).post(put))
        .route("/disks/remove", post(remove))
        .route("/disks/reset", get(ask_reset).post(reset))
}

/// A disk as it is drawn.
pub(crate) struct ShownDisk {
    pub(crate) name: String,
    pub(crate) of: String,
    of_value: String,
    image: String,
    pub(crate) what: String,
    since: When,
    by: String,
}

impl ShownDisk {
    fn new(disk: &SiteDisk, viewer: &Viewer) -> Self {
        let of = disk.of();
        Self {
            name: disk.name.to_string(),
            of_value: value_of(&of),
            of: match of {
                FilesOf::Site => "site".to_owned(),
                of => of.to_string(),
            },
            image: disk.what.as_ref().map(|what| what.image.to_string()).unwrap_or_default(),
            what: disk.what.as_ref().map_or_else(|| "none".to_owned(), words),
            since: When::seconds(disk.changed_unix, viewer.now()),
            by: disk.changed_by.clone(),
        }
    }
}

fn words(what: &DiskWhat) -> String {
    let purpose = match &what.purpose {
        DiskPurpose::Mount(folder) => format!("mounted at {folder}"),
        DiskPurpose::Carry(folders) => format!("holds {}", folders.join(", ")),
        DiskPurpose::Swap => return "swap space".to_owned(),
    };
    let writes = match what.writes {
        DiskWrites::Refused => "read-only",
        DiskWrites::Forgotten => "forgotten with the boot",
        DiskWrites::Kept => "kept",
    };
    format!("{purpose}, {writes}")
}

/// A disk of one machine as it is drawn.
pub(crate) struct ShownBeside {
    pub(crate) disk: ShownDisk,
    /// `120 MB of 20 GB`.
    pub(crate) written: String,
    pub(crate) now: String,
}

impl ShownBeside {
    pub(crate) fn new(disk: &MachineDisk, viewer: &Viewer) -> Self {
        let size = disk.size_bytes.map(text::bytes);
        let written = match (disk.written_bytes.map(text::bytes), size) {
            (Some(written), Some(size)) => format!("{written} of {size}"),
            (None, Some(size)) => size,
            (written, None) => written.unwrap_or_default(),
        };
        let now = match (&disk.trouble, disk.is_used) {
            (Some(trouble), _) => trouble.clone(),
            (None, true) => "attached".to_owned(),
            (None, false) => "not attached".to_owned(),
        };
        Self { disk: ShownDisk::new(&disk.disk, viewer), written, now }
    }
}

/// What is written to a disk that is kept, as it is drawn.
struct ShownKept {
    disk: String,
    /// Where it can be thrown away.
    reset: String,
    began: String,
    written: String,
    now: String,
}

impl ShownKept {
    fn new(kept: KeptBeside) -> Self {
        Self {
            reset: format!("/disks/reset?disk={}", encoded(&kept.disk.to_string())),
            disk: kept.disk.to_string(),
            began: kept.stands_on.unwrap_or_default(),
            written: kept.written_bytes.map(text::bytes).unwrap_or_default(),
            now: match (kept.trouble, kept.is_wanted) {
                (Some(trouble), _) => trouble,
                (None, true) => String::new(),
                (None, false) => "the machine has no such disk any more".to_owned(),
            },
        }
    }
}

/// What somebody typed into the form, and what is wrong with it.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Typed {
    name: String,
    of: String,
    image: String,
    /// `mount`, `carry`, `swap` or `none`.
    kind: String,
    folders: String,
    writes: String,
    #[serde(skip)]
    error: String,
}

#[derive(Template)]
#[template(path = "disks.html")]
struct DisksPage {
    frame: Frame,
    done: Option<&'static str>,
    disks: Vec<ShownDisk>,
    kept: Vec<ShownKept>,
    whose: Vec<Choice>,
    images: Vec<Choice>,
    kinds: Vec<Choice>,
    writes: Vec<Choice>,
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
    let site = viewer.site();
    let kind = if typed.kind.is_empty() { "carry" } else { &typed.kind };
    let kinds = [
        ("carry", "folders of the root are on it, and last"),
        ("mount", "it is mounted at a folder"),
        ("swap", "swap space"),
        ("none", "nothing: they have no disk of this name"),
    ];
    let writes = [
        ("kept", "are kept"),
        ("ro", "there are none: all read the same"),
        ("forgotten", "are forgotten with the boot"),
    ];
    let data = site.by_image().filter(|versions| versions[0].is_data());
    let images = data.map(|versions| {
        let image = versions[0].image.to_string();
        let size = versions.last().map_or(0, |version| version.size_bytes);
        Choice::new(&image, format!("{image} ({})", text::bytes(size)), &typed.image)
    });
    let page = DisksPage {
        frame: Frame::new(viewer, "disks", "Disks"),
        done,
        disks: viewer.site_disks().iter().map(|disk| ShownDisk::new(disk, viewer)).collect(),
        kept: viewer.kept_disks().await.into_iter().map(ShownKept::new).collect(),
        whose: choices_of(viewer, if typed.of.is_empty() { SITE } else { &typed.of }),
        images: images.collect(),
        kinds: kinds.map(|(value, label)| Choice::new(value, label, kind)).into(),
        writes: writes.map(|(value, label)| Choice::new(value, label, &typed.writes)).into(),
        typed,
    };
    Ok(render(status, &page))
}

async fn show(viewer: Viewer, Query(options): Query<Options>) -> Page {
    page(&viewer, StatusCode::OK, Done::sentence(&options.done), Typed::default()).await
}

async fn put(admin: Admin, Form(typed): Form<Typed>) -> Page {
    let put = match new_disk(&typed) {
        Ok(new) => admin.put_site_disk(new).await,
        Err(error) => return wrong(&admin, typed, error).await,
    };
    match put {
        Ok(_) => Ok(see_other("/disks", Done::DiskPut)),
        Err(error) if error.is_wrong_input() || error.is_not_found() => {
            wrong(&admin, typed, error.chain()).await
        }
        Err(error) => Err(Failure::new(&admin, &error)),
    }
}

async fn wrong(admin: &Admin, typed: Typed, error: String) -> Result<Response, Failure> {
    page(admin, StatusCode::UNPROCESSABLE_ENTITY, None, Typed { error, ..typed }).await
}

fn new_disk(typed: &Typed) -> Result<NewDisk, String> {
    let name =
        typed.name.trim().parse().map_err(|error: model::ParseChoiceError| error.to_string())?;
    let (room, machine) = match of_value(&typed.of)? {
        FilesOf::Site => (None, None),
        FilesOf::Room(room) => (Some(room), None),
        FilesOf::Machine(machine) => (None, Some(machine)),
    };
    let none = typed.kind == "none";
    let image = Some(&typed.image).filter(|image| !image.is_empty() && !none);
    let image = image.map(|image| image.parse()).transpose();
    let image = image.map_err(|error: model::ParseChoiceError| error.to_string())?;
    let folders: Vec<String> = typed.folders.split_whitespace().map(ToOwned::to_owned).collect();
    let mount = match (typed.kind.as_str(), folders.as_slice()) {
        ("mount", [folder]) => Some(folder.clone()),
        ("mount", _) => return Err("name one folder where it is mounted".to_owned()),
        ("carry", []) => return Err("name the folders that last".to_owned()),
        _ => None,
    };
    let writes = Some(&typed.writes).filter(|writes| !writes.is_empty() && typed.kind == "mount");
    let writes = writes.map(|writes| writes.parse()).transpose();
    let writes = writes.map_err(|error: model::ParseChoiceError| error.to_string())?;
    let carry = if typed.kind == "carry" { folders } else { Vec::new() };
    let swap = typed.kind == "swap";
    Ok(NewDisk { room, machine, name, image, mount, carry, swap, none, writes })
}

#[derive(serde::Deserialize)]
struct Meant {
    #[serde(default)]
    of: String,
    #[serde(default)]
    name: String,
}

async fn remove(admin: Admin, Form(meant): Form<Meant>) -> Page {
    let not_found = |error: String| Failure::with(&admin, StatusCode::NOT_FOUND, error);
    let of = of_value(&meant.of).map_err(not_found)?;
    let name = meant.name.parse();
    let name = name.map_err(|error: model::ParseChoiceError| not_found(error.to_string()))?;
    let removed = admin.remove_site_disk(of, name).await;
    removed.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/disks", Done::DiskRemoved))
}

#[derive(serde::Deserialize)]
struct OfMachine {
    #[serde(default)]
    disk: String,
}

#[derive(Template)]
#[template(path = "disk_reset.html")]
struct ResetPage {
    frame: Frame,
    disk: String,
    machine: String,
}

async fn ask_reset(admin: Admin, Query(meant): Query<OfMachine>) -> Page {
    let disk: model::DiskId = parsed(&admin, &meant)?;
    let page = ResetPage {
        frame: Frame::new(&admin, "disks", "Disks"),
        machine: disk.machine.to_string(),
        disk: disk.to_string(),
    };
    Ok(render(StatusCode::OK, &page))
}

async fn reset(admin: Admin, Form(meant): Form<OfMachine>) -> Page {
    let disk = parsed(&admin, &meant)?;
    admin.reset_site_disk(disk).await.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/disks", Done::DiskThrownAway))
}

fn parsed(admin: &Admin, meant: &OfMachine) -> Result<model::DiskId, Failure> {
    let parsed = meant.disk.parse();
    parsed.map_err(|error: model::BadDiskId| {
        Failure::with(admin, StatusCode::NOT_FOUND, error.to_string())
    })
}
