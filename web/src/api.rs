//! The JSON API.

mod captures;
mod disks;
mod edits;
mod files;
mod images;
mod jobs;
mod leases;
mod people;
mod rooms;
mod snapshots;
mod streams;

pub(crate) use snapshots::download;

use crate::front::Front;
use crate::problem::{Problem, limited};
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use model::{
    Finding, ImageChoice, Machine, MachineName, RoomName, RootKind, RootUrl, Seat, StallVerb, Tag,
    WriteMode,
};
use service::{
    Admin, DamagedVersion, Discovered, FindingCount, Hardware, InitrdFile, KernelLog,
    MachineChange, MachineView, Operator, PowerState, Rescue, Status, UnknownVerb, Viewer,
    WrittenDisk,
};
use std::path::PathBuf;
use wire::Mac;

type Answer<T> = Result<T, Problem>;
type NamePath = Result<Path<MachineName>, PathRejection>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// What stands for a path that there is not, as against a machine that there is not.
pub const NOTHING_HERE: &str = "there is nothing here; try /api/v1/status";

/// Longest picture of a screen.
const SCREEN_BYTES_MAX: usize = 8 << 20;

pub(crate) fn router() -> Router<Front> {
    let screen = Router::new().route("/machines/{name}/screen", put(show_screen));
    let screen = limited(screen, SCREEN_BYTES_MAX);
    Router::new()
        .route("/status", get(status))
        .route("/findings", get(findings))
        .route("/machines", get(machines))
        .route("/machines/{name}", get(machine).put(put_machine).patch(patch).delete(remove))
        .route("/machines/{name}/log", get(kernel_log))
        .route("/machines/{name}/hardware", get(hardware))
        .route("/machines/{name}/disk", get(disk))
        .route("/machines/{name}/power", post(power))
        .route("/machines/{name}/stall", post(decide_stall))
        .route("/machines/{name}/rescue", put(want_rescue).delete(forget_rescue))
        .route("/images/damaged", get(damaged_images))
        .route("/initrds", get(initrds))
        .merge(screen)
        .merge(disks::router())
        .merge(files::router())
        .merge(captures::router())
        .merge(edits::router())
        .merge(images::router())
        .merge(jobs::router())
        .merge(leases::router())
        .merge(rooms::router())
        .merge(snapshots::router())
        .merge(streams::router())
        .merge(people::router())
        .route("/discovered", get(discovered))
        .route("/discovered/{mac}/adopt", post(adopt))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, NOTHING_HERE) })
}

async fn status(service: Viewer) -> Json<Status> {
    Json(service.status().await)
}

/// What a person should know, and how often what was found.
#[derive(serde::Serialize)]
struct Findings {
    /// The worst first.
    findings: Vec<Finding>,
    /// One for each kind that was found since the start.
    counts: Vec<FindingCount>,
}

async fn findings(service: Viewer) -> Json<Findings> {
    let findings = service.findings().await;
    let mut counts = service.finding_counts();
    counts.retain(|count| count.n_found > 0);
    Json(Findings { findings, counts })
}

async fn machines(service: Viewer) -> Json<Vec<MachineView>> {
    Json(service.machines().await)
}

async fn machine(service: Viewer, name: NamePath) -> Answer<Json<MachineView>> {
    let Path(name) = name?;
    Ok(Json(service.machine(&name).await?))
}

/// Adds a machine, or makes an existing one so: what the body leaves out is inherited, or gets its default.
async fn put_machine(
    service: Admin,
    name: NamePath,
    body: Body<MachineChange>,
) -> Answer<(StatusCode, Json<Machine>)> {
    let (Path(name), Json(body)) = (name?, body?);
    let is_new = service.site().machine(&name).is_none();
    let machine = service.set_machine(name, body.whole()).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(machine)))
}

/// Changes what the body names (RFC 7396), or adds the machine if there is none and the body has its MAC.
async fn patch(
    service: Admin,
    name: NamePath,
    body: Body<MachineChange>,
) -> Answer<(StatusCode, Json<Machine>)> {
    let (Path(name), Json(body)) = (name?, body?);
    let is_new = service.site().machine(&name).is_none();
    if is_new && body.mac.is_none() {
        let detail = service::Error::NoMac(name).chain();
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let machine = service.set_machine(name, body).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(machine)))
}

async fn remove(service: Admin, name: NamePath) -> Answer<StatusCode> {
    let Path(name) = name?;
    service.remove_machine(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The kernel log of the last failed boot; `null` if none failed.
async fn kernel_log(service: Viewer, name: NamePath) -> Answer<Json<Option<KernelLog>>> {
    let Path(name) = name?;
    Ok(Json(service.kernel_log(&name).await?))
}

/// Takes a picture of the machine's screen, a PNG, which its page shows for some seconds.
async fn show_screen(service: Admin, name: NamePath, picture: Bytes) -> Answer<Json<()>> {
    let Path(name) = name?;
    match service.show_screen(name, picture)? {
        true => Ok(Json(())),
        false => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a picture of a screen is a PNG"))
        }
    }
}

/// The disk that the machine keeps; `null` if it keeps none.
async fn disk(service: Viewer, name: NamePath) -> Answer<Json<Option<WrittenDisk>>> {
    let Path(name) = name?;
    Ok(Json(service.written_disk(&name).await?))
}

/// The machine's hardware; `null` until it has reported it, in its first boot.
async fn hardware(service: Viewer, name: NamePath) -> Answer<Json<Option<Hardware>>> {
    let Path(name) = name?;
    Ok(Json(service.hardware(&name)?.map(|hardware| Hardware::clone(&hardware))))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerRequest {
    /// `reboot` or `poweroff`.
    verb: String,
}

/// Asks a running machine to stop; whether it obeys is then shown with the machine.
async fn power(
    service: Operator,
    name: NamePath,
    body: Body<PowerRequest>,
) -> Answer<(StatusCode, Json<PowerState>)> {
    let (Path(name), Json(body)) = (name?, body?);
    let verb = body.verb.parse().map_err(|error: UnknownVerb| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    })?;
    Ok((StatusCode::ACCEPTED, Json(service.order(&name, verb).await?)))
}

/// Decides what becomes of the machine's writes that are waiting for room, `"resume"` or `"fail"`; answers
/// how many there are.
async fn decide_stall(service: Admin, name: NamePath, body: Body<StallVerb>) -> Answer<Json<u32>> {
    let (Path(name), Json(verb)) = (name?, body?);
    Ok(Json(service.decide_stall(&name, verb).await?))
}

/// Lets the machine's next boot stop in a rescue shell.
async fn want_rescue(service: Admin, name: NamePath) -> Answer<Json<Rescue>> {
    let Path(name) = name?;
    Ok(Json(service.want_rescue(&name).await?))
}

/// Takes the order for a rescue shell back.
async fn forget_rescue(service: Admin, name: NamePath) -> Answer<StatusCode> {
    let Path(name) = name?;
    service.forget_rescue(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Image versions with which machines can't start; those that are no versions any more, too.
async fn damaged_images(service: Viewer) -> Json<Vec<DamagedVersion>> {
    Json(service.damaged_images().await)
}

/// An initrd of the cache, or an image version without one.
#[derive(serde::Serialize)]
struct Initrd {
    image: String,
    version: u32,
    /// Release of its kernel; `null` if the image version is gone.
    kernel: Option<String>,
    size_bytes: Option<u64>,
    path: Option<PathBuf>,
    /// `unused`, `missing`, `outdated` or `ready`.
    state: &'static str,
    /// What was left out of it, and why.
    warnings: Vec<String>,
}

async fn initrds(service: Viewer) -> Answer<Json<Vec<Initrd>>> {
    let files = service.initrd_files().await?;
    let describe = |file: InitrdFile| {
        let state = match (file.kernel.is_some(), file.size_bytes.is_some(), file.is_current) {
            (false, _, _) => "unused",
            (_, false, _) => "missing",
            (_, _, true) => "ready",
            (_, _, false) => "outdated",
        };
        let InitrdFile { image, version, kernel, path, size_bytes, is_current: _, warnings } = file;
        Initrd { image, version, kernel, size_bytes, path, state, warnings }
    };
    Ok(Json(files.into_iter().map(describe).collect()))
}

async fn discovered(service: Viewer) -> Json<Vec<Discovered>> {
    Json(service.discovered())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Adoption {
    name: MachineName,
    #[serde(default)]
    image: Option<ImageChoice>,
    #[serde(default)]
    root: Option<RootKind>,
    #[serde(default)]
    root_url: Option<RootUrl>,
    #[serde(default)]
    write_mode: Option<WriteMode>,
    #[serde(default)]
    room: Option<RoomName>,
    #[serde(default)]
    seat: Option<Seat>,
    #[serde(default)]
    tags: Option<Vec<Tag>>,
}

/// Makes a machine of a PC that asked; what the body leaves out is inherited, or gets its default.
async fn adopt(
    service: Admin,
    mac: Result<Path<Mac>, PathRejection>,
    body: Body<Adoption>,
) -> Answer<(StatusCode, Json<Machine>)> {
    let (Path(mac), Json(body)) = (mac?, body?);
    let is_known = service.site().machine_by_mac(mac).is_some()
        || service.discovered().iter().any(|pc| pc.seen.mac == mac);
    if !is_known {
        let detail = format!(
            "no PC has asked with the MAC {mac} lately; to add a machine that has not asked yet, PUT \
             /api/v1/machines/{}",
            body.name
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let change = MachineChange {
        mac: Some(mac),
        image: body.image.map(Some),
        root: body.root,
        root_url: body.root_url,
        write_mode: body.write_mode,
        room: body.room.map(Some),
        seat: body.seat.map(Some),
        tags: body.tags,
        ..MachineChange::default()
    };
    let machine = service.add_machine(body.name, change).await?;
    Ok((StatusCode::CREATED, Json(machine)))
}
