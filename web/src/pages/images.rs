//! All images.

use super::jobs::ShownJob;
use super::{Done, Failure, Frame, Page, When, render};
use crate::text;
use askama::Template;
use axum::extract::Query;
use axum::http::StatusCode;
use model::{ImageChoice, MachineName, RingEnd, RoomName, VersionState};
use service::{EditView, InitrdState, RingView, Viewer};

/// While an initrd is built, or an image imported.
const REFRESH_SECONDS: u32 = 3;

/// Machines for which there is a button that nobody waits for them.
const RING_BUTTONS_MAX: usize = 8;

struct Version {
    number: u32,
    /// Machines that follow what is released get it.
    is_current: bool,
    state: VersionState,
    size: String,
    os_name: String,
    kernel: String,
    digest: String,
    imported: When,
    initrd_class: &'static str,
    initrd: String,
    /// Why machines can't boot it.
    errors: Vec<String>,
    /// What was left out of its initrd.
    warnings: Vec<String>,
    note: Option<String>,
    n_running: usize,
}

impl Version {
    /// What it can become, and what the button says.
    fn actions(&self) -> &'static [(&'static str, &'static str)] {
        match self.state {
            VersionState::Draft => &[("released", "Release"), ("test", "Test")],
            VersionState::Test => {
                &[("released", "Release"), ("draft", "Draft again"), ("retired", "Retire")]
            }
            VersionState::Released => &[("retired", "Retire")],
            VersionState::Retired => &[("released", "Release"), ("test", "Test")],
        }
    }
}

struct Image {
    name: String,
    users: Vec<String>,
    /// To which version machines would go back.
    before: Option<u32>,
    /// Who runs another version than he gets next.
    behind: Vec<String>,
    /// What a room tries, or has tried last.
    ring: Option<ShownRing>,
    /// Where it is being changed.
    edits: Vec<EditView>,
    versions: Vec<Version>,
}

impl Image {
    /// Versions that a room could try: those newer than what all get.
    fn to_try(&self) -> impl Iterator<Item = u32> {
        let current = self.versions.iter().find(|version| version.is_current);
        let current = current.map_or(u32::MAX, |current| current.number);
        let others = self.versions.iter().filter(|it| it.state != VersionState::Released);
        others.map(|version| version.number).filter(move |number| *number > current)
    }
}

struct ShownRing {
    sentence: String,
    goes_on: bool,
    taken_back: bool,
    waits_for: Vec<MachineName>,
}

impl ShownRing {
    fn new(view: &RingView) -> Self {
        let waits_for = view.progress.waits_for.iter().take(RING_BUTTONS_MAX).cloned().collect();
        Self {
            sentence: view.sentence.clone(),
            goes_on: view.ring.end.is_none(),
            taken_back: view.ring.end == Some(RingEnd::TakenBack),
            waits_for,
        }
    }
}

#[derive(Template)]
#[template(path = "images.html")]
struct Images {
    frame: Frame,
    done: Option<&'static str>,
    images: Vec<Image>,
    /// Rooms that could try a version.
    rooms: Vec<RoomName>,
    /// What is so damaged that nothing else is known of it, and why.
    unreadable: Vec<(String, String)>,
    /// Imports that run or wait.
    jobs: Vec<ShownJob>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(service: Viewer, Query(options): Query<Options>) -> Page {
    let jobs = service.jobs().await.unwrap_or_default().into_iter();
    let jobs = jobs.filter(|job| !job.state.has_ended());
    let jobs: Vec<ShownJob> = jobs.map(|job| ShownJob::new(job, &service)).collect();
    let site = service.site();
    let machines = service.machines().await;
    let rings = service.rings().await.map_err(|error| Failure::new(&service, &error))?;
    let edits = service.edits().await;
    let mut images: Vec<Image> = Vec::new();
    let mut is_building = false;
    for version in site.images.iter().rev() {
        let state = service.initrd_state(&version.image, version.version);
        is_building |= state == InitrdState::Building;
        let choice = ImageChoice::from(version.image.clone());
        let is_current = site.chosen(&choice) == Some(version);
        let damage = service.version_trouble(&version.image, version.version);
        let number = version.version;
        let not_booted = |why: &str| format!("No machine can boot v{number}: {why}.");
        let mut errors: Vec<String> = damage
            .map(|damage| match damage.starts {
                false => not_booted(&damage.why),
                true => format!(
                    "v{number} is not what was imported: {}. Machines start with it all the same; import the same disk \
                     again, which puts it back.",
                    damage.why
                ),
            })
            .into_iter()
            .collect();
        let (initrd_class, initrd) = match state {
            InitrdState::Ready { size_bytes, .. } => {
                ("ok", format!("● ready, {}", text::bytes(size_bytes)))
            }
            InitrdState::Building => ("busy", "◐ being built".to_owned()),
            InitrdState::Missing if is_current => ("busy", "◐ not built yet".to_owned()),
            InitrdState::Missing => ("off", "○ not needed".to_owned()),
            InitrdState::Failed(why) => {
                errors.push(not_booted(&why));
                ("fail", "✕ can't be built".to_owned())
            }
        };
        let running = Some((version.image.clone(), version.version));
        let drawn = Version {
            number: version.version,
            is_current,
            state: site.state(version),
            size: text::bytes(version.size_bytes),
            os_name: version.os_name.clone().unwrap_or_else(|| match version.is_data() {
                true => "no system".to_owned(),
                false => "unnamed system".to_owned(),
            }),
            kernel: match version.is_data() {
                true => format!("a disk beside roots, {}", version.file_system),
                false => format!("{} for {}", version.kernel_version, version.architecture),
            },
            digest: version.digest.chars().take(12).collect(),
            imported: When::seconds(version.imported_unix, service.now()),
            initrd_class,
            initrd,
            errors,
            warnings: service.initrd_warnings(&version.image, version.version).await,
            note: service.image_note(version.image.clone(), version.version).await,
            n_running: machines
                .iter()
                .filter(|view| view.state.word == service::StateWord::Up)
                .filter(|view| view.boot.as_ref().is_some_and(|boot| boot.image == running))
                .count(),
        };
        match images.last_mut().filter(|image| image.name == version.image.as_str()) {
            Some(image) => image.versions.push(drawn),
            None => images.push(Image {
                name: version.image.to_string(),
                users: machines
                    .iter()
                    .filter(|view| view.machine.has_image(&version.image))
                    .map(|view| view.machine.name.to_string())
                    .collect(),
                before: site.released_before(&version.image).map(|before| before.version),
                behind: machines
                    .iter()
                    .filter(|view| view.machine.has_image(&version.image) && view.is_behind())
                    .map(|view| view.machine.name.to_string())
                    .collect(),
                ring: rings
                    .iter()
                    .find(|view| view.ring.image == version.image)
                    .map(ShownRing::new),
                edits: edits
                    .iter()
                    .filter(|view| view.edit.image == version.image)
                    .cloned()
                    .collect(),
                versions: vec![drawn],
            }),
        }
    }
    images.reverse();
    let damaged = service.damaged_images().await.into_iter();
    let unreadable = damaged.filter(|it| site.version(&it.image, it.version).is_none());
    let unreadable = unreadable.map(|it| (format!("{} v{}", it.image, it.version), it.why));
    let unreadable = unreadable.collect();
    let done = Done::sentence(&options.done);
    let frame = Frame::new(&service, "images", "Images");
    let refreshes = is_building || !jobs.is_empty();
    let frame = if refreshes { frame.refreshed(REFRESH_SECONDS) } else { frame };
    let rooms = site.rooms.iter().map(|room| room.name.clone()).collect();
    Ok(render(StatusCode::OK, &Images { frame, done, images, rooms, unreadable, jobs }))
}
