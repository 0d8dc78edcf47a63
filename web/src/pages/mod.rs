//! Pages.

mod done;
mod refused;

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod building;
pub(crate) mod discovered;
pub(crate) mod disks;
pub(crate) mod edits;
pub(crate) mod files;
pub(crate) mod findings;
pub(crate) mod help;
pub(crate) mod images;
pub(crate) mod incoming;
pub(crate) mod jobs;
pub(crate) mod leases;
pub(crate) mod login;
pub(crate) mod machine;
pub(crate) mod machines;
pub(crate) mod overview;
pub(crate) mod users;
pub(crate) mod version;
pub(crate) mod versions;

use crate::front::RELOAD;
use crate::problem::status_of;
use crate::text;
use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use done::Done;
use model::{Follows, ImageChoice, Machine, MachineName, Origin, Right, RootKind, WriteMode};
use service::{Error, MachineState, Now, Viewer};

/// What the frame of every page shows.
pub(crate) struct Frame {
    pub(crate) title: String,
    /// Which entry of the menu is this page.
    pub(crate) here: &'static str,
    pub(crate) n_discovered: usize,
    pub(crate) n_findings: usize,
    /// Seconds until the page is loaded again; 0 is never.
    pub(crate) refresh_seconds: u32,
    /// By what address the browser asks for it then, which says that no person did.
    pub(crate) refresh_to: String,
    pub(crate) now: String,
    pub(crate) version: &'static str,
    /// Who looks at it.
    pub(crate) who: String,
    /// Whether he has an account of his own.
    pub(crate) has_account: bool,
    /// Whether he is logged in, and not a command.
    pub(crate) is_logged_in: bool,
    pub(crate) may_admin: bool,
}

impl Frame {
    fn new(viewer: &Viewer, here: &'static str, title: impl Into<String>) -> Self {
        let actor = viewer.actor();
        Self {
            title: title.into(),
            here,
            n_discovered: viewer.n_discovered(),
            n_findings: viewer.finding_counts().iter().map(|count| count.n_now).sum(),
            refresh_seconds: 0,
            refresh_to: format!("?{RELOAD}"),
            now: text::exact(viewer.now().unix_ms),
            version: env!("CARGO_PKG_VERSION"),
            who: actor.name().to_owned(),
            has_account: actor.has_account(),
            is_logged_in: actor.is_logged_in(),
            may_admin: actor.right() >= Right::Admin,
        }
    }

    fn refreshed(mut self, seconds: u32) -> Self {
        self.refresh_seconds = seconds;
        self
    }

    /// The page has this in its address, and is loaded again with it.
    fn refreshed_with(mut self, query: &str) -> Self {
        self.refresh_to = format!("?{query}&{RELOAD}");
        self
    }
}

/// A state as sign, word and color.
pub(crate) struct StateMark {
    pub(crate) glyph: &'static str,
    pub(crate) word: &'static str,
    pub(crate) class: &'static str,
    pub(crate) sentence: String,
}

impl From<&MachineState> for StateMark {
    fn from(state: &MachineState) -> Self {
        Self {
            glyph: text::glyph(state.word),
            word: state.word.word(),
            class: text::class(state.word),
            sentence: state.sentence.clone(),
        }
    }
}

/// A moment, roughly and exactly.
pub(crate) struct When {
    pub(crate) ago: String,
    pub(crate) exact: String,
}

impl When {
    fn ms(unix_ms: u64, now: Now) -> Self {
        Self { ago: text::ago(unix_ms, now), exact: text::exact(unix_ms) }
    }

    fn seconds(unix: u64, now: Now) -> Self {
        Self::ms(unix.saturating_mul(1000), now)
    }
}

/// An entry of a choice.
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) label: String,
    pub(crate) is_chosen: bool,
}

impl Choice {
    fn new(value: &str, label: impl Into<String>, chosen: &str) -> Self {
        Self { value: value.to_owned(), label: label.into(), is_chosen: value == chosen }
    }
}

/// Stands for no value of its own. No name has this character.
pub(crate) const INHERIT: &str = "=";

/// Before the others of `choices`: what is had without a value of one's own.
pub(crate) fn or_inherit(inherited: String, chosen: &str, mut choices: Vec<Choice>) -> Vec<Choice> {
    choices.insert(0, Choice::new(INHERIT, inherited, chosen));
    choices
}

/// From whom a machine has a setting, for people.
pub(crate) fn origin(machine: &Machine, origin: Origin) -> String {
    match (origin, &machine.room) {
        (Origin::Machine, _) => "set here".to_owned(),
        (Origin::Room, Some(room)) => format!("from the room {room}"),
        (Origin::Room, None) | (Origin::Default, _) => "default".to_owned(),
        (Origin::Site, _) => "from the site".to_owned(),
    }
}

/// Versions of an image that a machine can be told to stay on, the newest: more would hide the images.
const PINNED_MAX: usize = 5;

/// The images to choose from, after `none`. An image that is gone stays visible as the choice it is.
pub(crate) fn image_choices(viewer: &Viewer, chosen: &str) -> Vec<Choice> {
    let site = viewer.site();
    let choice = |value: &str, label| Choice::new(value, label, chosen);
    let mut choices = vec![choice("", "none: it waits in the loader".to_owned())];
    for of_image in site.systems_by_image() {
        let image = &of_image[0].image;
        let means = |follows| {
            let meant = ImageChoice { image: image.clone(), follows };
            let version = site.chosen(&meant).map(|version| version.version);
            (meant.to_string(), version)
        };
        let (value, released) = means(Follows::Released);
        let told = |version: Option<u32>| {
            version
                .map_or_else(|| "no version yet".to_owned(), |version| format!("version {version}"))
        };
        choices.push(choice(&value, format!("{image} ({})", told(released))));
        let (value, tested) = means(Follows::Test);
        if tested != released || value == chosen {
            choices.push(choice(&value, format!("{value} ({}, to be tested)", told(tested))));
        }
        for (index, version) in of_image.iter().rev().enumerate() {
            let (value, _) = means(Follows::Version(version.version));
            if index < PINNED_MAX || value == chosen {
                let label = format!("{value} (always this version)");
                choices.push(choice(&value, label));
            }
        }
    }
    let is_known = chosen == INHERIT || choices.iter().any(|choice| choice.value == chosen);
    if !is_known {
        choices.push(choice(chosen, format!("{chosen} (missing)")));
    }
    choices
}

/// How a root may reach a machine.
pub(crate) fn root_choices(chosen: &str) -> Vec<Choice> {
    choices_of_roots(|_| true, chosen)
}

/// How the root of a new machine may reach it: where a foreign server has it nobody knows yet.
pub(crate) fn own_root_choices(chosen: &str) -> Vec<Choice> {
    choices_of_roots(|kind| !kind.is_foreign(), chosen)
}

fn choices_of_roots(is_offered: impl Fn(RootKind) -> bool, chosen: &str) -> Vec<Choice> {
    let kinds = RootKind::ALL.into_iter().filter(|&kind| is_offered(kind));
    let label = |kind: RootKind| format!("{}: {}", kind.title(), kind.reach());
    kinds.map(|kind| Choice::new(kind.word(), label(kind), chosen)).collect()
}

pub(crate) fn write_mode_choices(chosen: &str) -> Vec<Choice> {
    WriteMode::ALL.map(|mode| Choice::new(mode.word(), mode.title(), chosen)).into()
}

/// A page, or why there is none.
pub(crate) type Page = Result<Response, Failure>;

/// A page that says what is wrong.
pub(crate) struct Failure {
    frame: Box<Frame>,
    status: StatusCode,
    detail: String,
}

impl Failure {
    fn new(viewer: &Viewer, error: &Error) -> Self {
        Self::with(viewer, status_of(error), error.chain())
    }

    fn with(viewer: &Viewer, status: StatusCode, detail: String) -> Self {
        let title = match status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            _ => "That did not work",
        };
        Self { frame: Box::new(Frame::new(viewer, "", title)), status, detail }
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    frame: &'a Frame,
    detail: &'a str,
    /// Somebody may ask himself whether a part of it was done.
    was_tried: bool,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let was_tried = !matches!(self.status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN);
        render(self.status, &FailurePage { frame: &self.frame, detail: &self.detail, was_tried })
    }
}

pub(crate) fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page can't be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "This page can't be rendered.\n").into_response()
        }
    }
}

/// Another page comes now, with a line that says what was done.
fn see_other(path: &str, done: Done) -> Response {
    let location = format!("{path}?done={}", done.word());
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// The machine that an address names.
fn machine_name(viewer: &Viewer, name: &str) -> Result<MachineName, Failure> {
    name.parse().map_err(|error: model::InvalidName| {
        Failure::with(viewer, StatusCode::NOT_FOUND, error.to_string())
    })
}

/// The style sheet.
pub(crate) async fn style() -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, include_str!("../../assets/app.css"))
}

pub(crate) async fn not_found(viewer: Viewer) -> Failure {
    let detail = "There is no such page. The menu shows all there are.";
    Failure::with(&viewer, StatusCode::NOT_FOUND, detail.to_owned())
}
