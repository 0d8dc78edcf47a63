//! Images, and disk files to make them of, in the JSON API.

use super::{Answer, Body};
use crate::front::Front;
use crate::upload::{Source, receive};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};
use model::{ImageName, ImageVersion, MachineName, RoomName, VersionNumber, VersionState};
use service::incoming::IncomingFile;
use service::jobs::Job;
use service::{
    Admin, FixChoice, InitrdState, LaidOver, NewBuild, NewImport, Recipe, Released, RingView,
    VersionChanges, VersionHarms, Viewer,
};
use std::collections::{BTreeMap, BTreeSet};

type FilePath = Result<Path<String>, PathRejection>;
type ImagePath = Result<Path<ImageName>, PathRejection>;
type VersionPath = Result<Path<(ImageName, VersionNumber)>, PathRejection>;

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/images", get(images).post(import))
        .route("/images/{image}/rollback", post(roll_back))
        .route("/images/{image}/ring", put(begin_ring).patch(change_ring).delete(stop_ring))
        .route("/images/{image}/ring/pass", post(pass_ring))
        .route("/rings", get(rings))
        .route("/images/{image}/{version}", patch(change_version).delete(remove_version))
        .route("/images/{image}/{version}/removal", get(removal))
        .route("/images/{image}/{version}/note", put(note))
        .route("/images/{image}/{version}/changes", get(changes))
        .route("/recipes", get(recipes))
        .route("/builds", post(build))
        .route("/images/{image}/{version}/harms", get(harms))
        .route("/images/{image}/{version}/laid-over", put(lay_over).delete(lay_nothing_over))
        .route("/incoming", get(incoming))
        .route("/incoming/{file}", put(send).delete(remove))
}

/// An image version with what the boot server made of it.
#[derive(serde::Serialize)]
struct Version {
    #[serde(flatten)]
    version: ImageVersion,
    /// For whom it is.
    state: VersionState,
    /// What people wanted to remember about it.
    note: Option<String>,
    /// What is wrong with its files.
    damage: Option<String>,
    /// `missing`, `building`, `ready` or `failed`.
    initrd: &'static str,
    initrd_bytes: Option<u64>,
    initrd_error: Option<String>,
    /// What was left out of the initrd, and why.
    initrd_warnings: Vec<String>,
}

async fn images(service: Viewer) -> Json<Vec<Version>> {
    let mut versions = Vec::new();
    // Else it is not known what is wrong with their files.
    service.damaged_images().await;
    let site = service.site();
    for version in site.images.clone() {
        let state = site.state(&version);
        let (image, number) = (version.image.clone(), version.version);
        let (initrd, initrd_bytes, initrd_error) = match service.initrd_state(&image, number) {
            InitrdState::Missing => ("missing", None, None),
            InitrdState::Building => ("building", None, None),
            InitrdState::Ready { size_bytes, .. } => ("ready", Some(size_bytes), None),
            InitrdState::Failed(why) => ("failed", None, Some(why)),
        };
        let initrd_warnings = service.initrd_warnings(&image, number).await;
        let damage = service.version_trouble(&image, number).map(|damage| damage.why);
        let note = service.image_note(image, number).await;
        versions.push(Version {
            version,
            state,
            note,
            damage,
            initrd,
            initrd_bytes,
            initrd_error,
            initrd_warnings,
        });
    }
    Json(versions)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionChange {
    state: VersionState,
}

/// Says for whom a version is.
async fn change_version(
    admin: Admin,
    path: VersionPath,
    body: Body<VersionChange>,
) -> Answer<Json<Released>> {
    let (Path((image, VersionNumber(version))), Json(change)) = (path?, body?);
    Ok(Json(admin.set_image_state(image, version, change.state).await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNote {
    note: String,
}

/// Says what people want to remember about a version.
async fn note(admin: Admin, path: VersionPath, body: Body<NewNote>) -> Answer<StatusCode> {
    let (Path((image, VersionNumber(version))), Json(NewNote { note })) = (path?, body?);
    admin.set_image_note(image, version, note).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    /// To which version; else to the one before.
    to: Option<u32>,
}

/// Makes an older version what machines get.
async fn roll_back(admin: Admin, path: ImagePath, body: Body<Back>) -> Answer<Json<Released>> {
    let (Path(image), Json(Back { to })) = (path?, body?);
    Ok(Json(admin.roll_back_image(image, to).await?))
}

/// Versions that a room tries before all get them.
async fn rings(service: Viewer) -> Answer<Json<Vec<RingView>>> {
    Ok(Json(service.rings().await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedRing {
    version: u32,
    room: RoomName,
    /// Machines that nobody waits for.
    #[serde(default)]
    without: BTreeSet<MachineName>,
}

/// Has a room try a version before all get it.
async fn begin_ring(
    admin: Admin,
    path: ImagePath,
    body: Body<WantedRing>,
) -> Answer<Json<RingView>> {
    let (Path(image), Json(WantedRing { version, room, without })) = (path?, body?);
    Ok(Json(admin.begin_ring(image, version, room, without).await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RingChange {
    without: BTreeSet<MachineName>,
}

/// Says for which machines of the room nobody waits.
async fn change_ring(
    admin: Admin,
    path: ImagePath,
    body: Body<RingChange>,
) -> Answer<Json<RingView>> {
    let (Path(image), Json(RingChange { without })) = (path?, body?);
    Ok(Json(admin.ring_without(image, without).await?))
}

/// Gives all what a room tries.
async fn pass_ring(admin: Admin, path: ImagePath) -> Answer<Json<RingView>> {
    let Path(image) = path?;
    Ok(Json(admin.end_ring(image, true).await?))
}

/// Has a room try nothing any more, or forgets how that has ended.
async fn stop_ring(admin: Admin, path: ImagePath) -> Answer<Json<RingView>> {
    let Path(image) = path?;
    Ok(Json(admin.end_ring(image, false).await?))
}

/// What a removal frees.
#[derive(serde::Serialize)]
struct Removal {
    frees_bytes: u64,
}

/// What a removal would free; or who needs the version.
async fn removal(admin: Admin, path: VersionPath) -> Answer<Json<Removal>> {
    let Path((image, VersionNumber(version))) = path?;
    Ok(Json(Removal { frees_bytes: admin.removable(&image, version).await? }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// With which version it is compared; else with the one before.
    since: Option<VersionNumber>,
    /// Whether files are compared, too.
    #[serde(default)]
    files: bool,
}

/// What differs between a version and an older one.
async fn changes(
    service: Viewer,
    path: VersionPath,
    query: Result<Query<Since>, QueryRejection>,
) -> Answer<Json<VersionChanges>> {
    let (Path((image, VersionNumber(version))), Query(Since { since, files })) = (path?, query?);
    let since = since.map(|since| since.0);
    Ok(Json(service.version_changes(&image, version, since, files).await?))
}

/// What in a version hurts a diskless machine, and what is laid over it.
async fn harms(service: Viewer, path: VersionPath) -> Answer<Json<VersionHarms>> {
    let Path((image, VersionNumber(version))) = path?;
    Ok(Json(service.version_harms(&image, version).await?))
}

/// Lays files over a version against what hurts in it.
async fn lay_over(
    admin: Admin,
    path: VersionPath,
    body: Body<FixChoice>,
) -> Answer<Json<LaidOver>> {
    let (Path((image, VersionNumber(version))), Json(choice)) = (path?, body?);
    Ok(Json(admin.fix_version(&image, version, Some(choice)).await?))
}

/// Has nothing laid over a version any more.
async fn lay_nothing_over(admin: Admin, path: VersionPath) -> Answer<Json<LaidOver>> {
    let Path((image, VersionNumber(version))) = path?;
    Ok(Json(admin.fix_version(&image, version, None).await?))
}

async fn remove_version(admin: Admin, path: VersionPath) -> Answer<Json<Removal>> {
    let Path((image, VersionNumber(version))) = path?;
    Ok(Json(Removal { frees_bytes: admin.remove_image_version(image, version).await? }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedImport {
    /// Name of a file in the folder of incoming disks.
    file: String,
    image: ImageName,
    note: Option<String>,
    #[serde(default)]
    state: VersionState,
    #[serde(default)]
    removes_file: bool,
    #[serde(default)]
    fixes: bool,
}

/// Has the boot server import a disk file.
async fn import(admin: Admin, body: Body<WantedImport>) -> Answer<(StatusCode, Json<Job>)> {
    let Json(WantedImport { file, image, note, state, removes_file, fixes }) = body?;
    let job = admin.import(NewImport { file, image, note, state, removes_file, fixes }).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// What images can be built of.
async fn recipes(_viewer: Viewer) -> Json<BTreeMap<&'static str, Recipe>> {
    Json(Recipe::ours().into_iter().collect())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedBuild {
    /// Name of a recipe that comes along.
    recipe: String,
    image: ImageName,
    #[serde(default)]
    set: BTreeMap<String, String>,
    note: Option<String>,
    #[serde(default)]
    state: VersionState,
}

/// Has the boot server have an image built.
async fn build(admin: Admin, body: Body<WantedBuild>) -> Answer<(StatusCode, Json<Job>)> {
    let Json(WantedBuild { recipe, image, set, note, state }) = body?;
    let job = admin.build(NewBuild { recipe, image, set, note, state }).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Disk files that wait to be imported.
async fn incoming(admin: Admin) -> Answer<Json<Vec<IncomingFile>>> {
    Ok(Json(admin.incoming().await?))
}

/// Receives a disk file, which is the body.
async fn send(
    admin: Admin,
    file: FilePath,
    request: Request,
) -> Answer<(StatusCode, Json<IncomingFile>)> {
    let Path(file) = file?;
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let receiving = admin.receive(file, length).await?;
    let received = receive(receiving, Source::Body(request.into_body())).await?;
    Ok((StatusCode::CREATED, Json(received)))
}

async fn remove(admin: Admin, file: FilePath) -> Answer<StatusCode> {
    let Path(file) = file?;
    admin.remove_incoming(file).await?;
    Ok(StatusCode::NO_CONTENT)
}
