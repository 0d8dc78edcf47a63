//! One version of an image: what in it hurts a diskless machine, and what is laid over it.

use super::versions::{named, nothing_here};
use super::{Done, Failure, Frame, Page, render, see_other};
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::{Form, extract::rejection::FormRejection};
use model::ImageName;
use service::{Admin, FixChoice, Harm, LaidFile, NotChecked, Severity, VersionHarms, Viewer};

/// Something that hurts, as it is shown.
struct ShownHarm {
    class: &'static str,
    /// How bad it is, with a sign.
    severity: String,
    check: String,
    place: String,
    what: String,
    effect: String,
    helps: String,
}

impl ShownHarm {
    fn new(harm: Harm, laid_over: &[LaidFile]) -> Self {
        let is_fixed =
            harm.can_be_fixed && laid_over.iter().any(|file| file.checks.contains(&harm.check));
        let Harm { check, severity, path, line, what, effect, dealt_with, fix, .. } = harm;
        let (class, sign) = match severity {
            _ if is_fixed || dealt_with.is_some() => ("ok", "●"),
            Severity::StopsBoot => ("fail", "✕"),
            Severity::CutsOff | Severity::Annoys => ("warn", "▲"),
        };
        let (severity, helps) = match dealt_with {
            Some(by) => (format!("{sign} dealt with"), format!("Bootlace deals with it: {by}.")),
            None if is_fixed => (format!("{sign} fixed"), format!("At each boot: {fix}.")),
            None => (format!("{sign} {severity}"), format!("What helps: {fix}.")),
        };
        let place = match (path, line) {
            (Some(path), Some(line)) => format!("{path}, line {line}"),
            (path, _) => path.unwrap_or_default(),
        };
        Self { class, severity, check, place, what, effect, helps }
    }
}

#[derive(Template)]
#[template(path = "version.html")]
struct Version {
    frame: Frame,
    done: Option<&'static str>,
    image: ImageName,
    version: u32,
    harms: Vec<ShownHarm>,
    /// What is dealt with anyway.
    dealt_with: Vec<ShownHarm>,
    not_checked: Vec<NotChecked>,
    laid_over: Vec<LaidFile>,
    /// Whether files that are laid over it would help against more.
    can_be_fixed: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    viewer: Viewer,
    Path((image, version)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Page {
    let (image, version) = named(&viewer, &image, &version)?;
    let looked = viewer.version_harms(&image, version).await;
    let looked = looked.map_err(|error| Failure::new(&viewer, &error))?;
    let VersionHarms { harms, not_checked, laid_over, .. } = looked;
    let (dealt_with, harms): (Vec<Harm>, Vec<Harm>) =
        harms.into_iter().partition(|harm| harm.dealt_with.is_some());
    let is_open = |harm: &Harm| {
        harm.can_be_fixed && laid_over.iter().all(|file| !file.checks.contains(&harm.check))
    };
    let can_be_fixed = harms.iter().any(is_open);
    let shown = |harms: Vec<Harm>| -> Vec<ShownHarm> {
        harms.into_iter().map(|harm| ShownHarm::new(harm, &laid_over)).collect()
    };
    let (harms, dealt_with) = (shown(harms), shown(dealt_with));
    let frame = Frame::new(&viewer, "images", format!("{image} v{version}"));
    let done = Done::sentence(&options.done);
    let page = Version {
        frame,
        done,
        image,
        version,
        harms,
        dealt_with,
        not_checked,
        laid_over,
        can_be_fixed,
    };
    Ok(render(StatusCode::OK, &page))
}

/// What a button says: `all` or `none`.
#[derive(serde::Deserialize)]
pub(crate) struct Wanted {
    what: String,
}

/// Lays files over a version, or none any more.
pub(crate) async fn fix(
    admin: Admin,
    Path((image, version)): Path<(String, String)>,
    form: Result<Form<Wanted>, FormRejection>,
) -> Page {
    let (image, version) = named(&admin, &image, &version)?;
    let choice = match form.map(|Form(wanted)| wanted.what).unwrap_or_default().as_str() {
        "all" => Some(FixChoice::default()),
        "none" => None,
        _ => return Err(nothing_here(&admin)),
    };
    let fixed = admin.fix_version(&image, version, choice).await;
    let fixed = fixed.map_err(|error| Failure::new(&admin, &error))?;
    if let Some(why) = fixed.initrd_error {
        return Err(Failure::with(&admin, StatusCode::INTERNAL_SERVER_ERROR, why));
    }
    Ok(see_other(&format!("/images/{image}/{version}"), Done::VersionFixed))
}
