//! Snapshots of a machine's disk, and the files in them.

use crate::api::download;
use crate::pages::{Done, Failure, Frame, Page, When, machine_name, render, see_other};
use askama::Template;
use axum::Form;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use model::{DiskId, Size, SnapshotInfo, SnapshotList, SnapshotOrder, SnapshotPath};
use service::{Admin, Viewer};

#[derive(Template)]
#[template(path = "snapshots.html")]
struct SnapshotsPage {
    frame: Frame,
    name: String,
    done: Option<&'static str>,
    snapshots: Vec<Row>,
    /// The disk goes back to one at the next boot.
    is_asked: bool,
    /// Why there is none of the last night.
    trouble: Option<String>,
}

struct Row {
    number: u32,
    when: When,
    why: &'static str,
    note: String,
    held: String,
    is_next: bool,
}

#[derive(serde::Deserialize)]
pub(super) struct Options {
    #[serde(default)]
    done: String,
}

pub(super) async fn show(
    service: Viewer,
    Path(name): Path<String>,
    Query(options): Query<Options>,
) -> Page {
    let name = DiskId::from(machine_name(&service, &name)?);
    let snapshots = service.snapshots(&name).await;
    let list = snapshots.map_err(|error| Failure::new(&service, &error))?;
    let SnapshotList { snapshots, trouble } = list;
    let now = service.now();
    let row = |info: &SnapshotInfo| Row {
        number: info.snapshot.number,
        when: When::seconds(info.snapshot.at_unix, now),
        why: info.snapshot.kind.in_words(),
        note: info.snapshot.note.clone().unwrap_or_default(),
        held: Size(info.held_bytes).to_string(),
        is_next: info.is_next,
    };
    let page = SnapshotsPage {
        frame: Frame::new(&service, "machines", format!("Snapshots of {name}")),
        done: Done::sentence(&options.done),
        is_asked: snapshots.iter().any(|info| info.is_next),
        snapshots: snapshots.iter().rev().map(row).collect(),
        name: name.to_string(),
        trouble,
    };
    Ok(render(StatusCode::OK, &page))
}

#[derive(serde::Deserialize)]
pub(super) struct Made {
    #[serde(default)]
    note: String,
}

/// Makes one.
pub(super) async fn make(service: Admin, Path(name): Path<String>, Form(form): Form<Made>) -> Page {
    let name = DiskId::from(machine_name(&service, &name)?);
    let note = form.note.trim();
    let order = SnapshotOrder { note: (!note.is_empty()).then(|| note.to_owned()) };
    let made = service.make_snapshot(&name, &order).await;
    let made = made.map_err(|error| Failure::new(&service, &error))?;
    let done = if made.is_some() { Done::SnapshotMade } else { Done::NothingWritten };
    Ok(see_other(&format!("/machines/{name}/snapshots"), done))
}

#[derive(serde::Deserialize)]
pub(super) struct Chosen {
    /// `rollback`, `withdraw` or `remove`.
    what: String,
    #[serde(default)]
    number: u32,
}

/// Does something with one of them. What can't be undone is only that one is deleted.
pub(super) async fn change(
    service: Admin,
    Path(name): Path<String>,
    Form(form): Form<Chosen>,
) -> Page {
    let name = DiskId::from(machine_name(&service, &name)?);
    let (changed, done) = match form.what.as_str() {
        "rollback" => (service.roll_back(&name, form.number).await, Done::RollbackAsked),
        "remove" => (service.remove_snapshot(&name, form.number).await, Done::SnapshotRemoved),
        _ => (service.withdraw_roll_back(&name).await.map(drop), Done::RollbackWithdrawn),
    };
    changed.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}/snapshots"), done))
}

#[derive(Template)]
#[template(path = "snapshot_remove.html")]
struct RemovePage {
    frame: Frame,
    name: String,
    number: u32,
}

/// Asks before one is deleted.
pub(super) async fn ask_remove(service: Admin, Path((name, number)): Path<(String, u32)>) -> Page {
    let name = machine_name(&service, &name)?.to_string();
    let frame = Frame::new(&service, "machines", format!("Delete snapshot {number} of {name}?"));
    Ok(render(StatusCode::OK, &RemovePage { frame, name, number }))
}

#[derive(Template)]
#[template(path = "snapshot_files.html")]
struct FilesPage {
    frame: Frame,
    name: String,
    number: u32,
    path: String,
    /// Link to the folder above.
    up: Option<String>,
    entries: Vec<FileRow>,
    is_cut: bool,
    partitions: Vec<PartitionLink>,
}

struct FileRow {
    name: String,
    kind: String,
    size: String,
    /// Where a click leads; `None`: nowhere, as it is a device or pipe.
    link: Option<String>,
}

struct PartitionLink {
    label: String,
    link: String,
    is_this: bool,
}

#[derive(serde::Deserialize)]
pub(super) struct Asked {
    path: Option<String>,
    partition: Option<u8>,
}

/// A path as a part of an address.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What is in a folder of a snapshot.
pub(super) async fn files(
    service: Admin,
    Path((name, number)): Path<(String, u32)>,
    Query(asked): Query<Asked>,
) -> Page {
    let name = DiskId::from(machine_name(&service, &name)?);
    let path = asked.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let asked = SnapshotPath { path, partition: asked.partition };
    let found = service.snapshot_files(&name, number, &asked).await;
    let found = found.map_err(|error| Failure::new(&service, &error))?;
    let partition = asked.partition.map_or_else(String::new, |it| format!("&partition={it}"));
    let at = |page: &str, path: &str| {
        format!("/machines/{name}/snapshots/{number}/{page}?path={}{partition}", escaped(path))
    };
    let folder = found.path.trim_end_matches('/');
    let row = |entry: &model::SnapshotFile| {
        // What a path leads to may be a file itself.
        let own =
            folder.rsplit('/').next() == Some(entry.name.as_str()) && found.entries.len() == 1;
        let path = if own && entry.kind == "file" {
            found.path.clone()
        } else {
            format!("{folder}/{}", entry.name)
        };
        let link = match entry.kind.as_str() {
            "file" => Some(at("file", &path)),
            "folder" | "link" => Some(at("files", &path)),
            _ => None,
        };
        let size = entry.size_bytes.map_or_else(String::new, |bytes| Size(bytes).to_string());
        FileRow { name: entry.name.clone(), kind: entry.kind.clone(), size, link }
    };
    let up =
        folder.rsplit_once('/').map(|(up, _)| at("files", if up.is_empty() { "/" } else { up }));
    let partitions = found.partitions.iter().map(|&one| PartitionLink {
        label: format!("Partition {one}"),
        link: format!("/machines/{name}/snapshots/{number}/files?partition={one}"),
        is_this: found.partition == Some(one),
    });
    let page = FilesPage {
        frame: Frame::new(&service, "machines", format!("Snapshot {number} of {name}")),
        partitions: partitions.collect(),
        entries: found.entries.iter().map(row).collect(),
        is_cut: found.is_cut,
        name: name.to_string(),
        number,
        up,
        path: found.path.clone(),
    };
    Ok(render(StatusCode::OK, &page))
}

/// A file of a snapshot, to be saved.
pub(super) async fn file(
    service: Admin,
    Path((name, number)): Path<(String, u32)>,
    Query(asked): Query<SnapshotPath>,
) -> Page {
    let name = DiskId::from(machine_name(&service, &name)?);
    let file = service.snapshot_file(&name, number, &asked).await;
    let file = file.map_err(|error| Failure::new(&service, &error))?;
    Ok(download(file, &asked.path))
}
