//! Long work.

use super::{Done, Failure, Frame, Page, When, render, see_other};
use crate::text;
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use service::jobs::{Job, JobKind, JobProgress, JobState};
use service::{Admin, Viewer};

/// While one runs.
const REFRESH_SECONDS: u32 = 2;

/// A job as it is drawn.
pub(crate) struct ShownJob {
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) class: &'static str,
    pub(crate) state: String,
    pub(crate) by: String,
    pub(crate) begun: Option<When>,
    pub(crate) ended: Option<When>,
    /// How it ended.
    pub(crate) told: String,
    /// Who wants it to stop, while it runs.
    pub(crate) cancelled_by: Option<String>,
    pub(crate) bar: Option<Bar>,
    pub(crate) is_running: bool,
}

/// How far it is.
pub(crate) struct Bar {
    pub(crate) percent: u64,
    /// `copying, 41 %, 210 MB/s, 23 s left`.
    pub(crate) words: String,
}

impl Bar {
    fn of(progress: &JobProgress) -> Self {
        let percent = progress.percent();
        let mut words = match (progress.done_bytes, progress.total_bytes) {
            // Of what comes through a pipe nobody knows how much it will be.
            (1.., 0) => format!("{}, {}", progress.step, text::bytes(progress.done_bytes)),
            _ => format!("{}, {percent} %", progress.step),
        };
        // What is slower are no bytes, but packages.
        if let Some(rate) = progress.bytes_per_second.filter(|rate| *rate >= 1000) {
            words += &format!(", {}/s", text::bytes(rate));
        }
        if let Some(seconds) = progress.seconds_left.filter(|&seconds| seconds > 0) {
            words += &format!(", {} left", text::duration_ms(seconds.saturating_mul(1000)));
        }
        Self { percent, words }
    }
}

impl ShownJob {
    pub(crate) fn new(job: Job, viewer: &Viewer) -> Self {
        let (glyph, class) = match job.state {
            JobState::Waiting => ("○", "busy"),
            JobState::Running => ("◐", "busy"),
            JobState::Done => ("●", "ok"),
            JobState::Failed => ("✕", "fail"),
            JobState::Died | JobState::Unreadable => ("▲", "warn"),
            JobState::Cancelled => ("○", "off"),
        };
        let is_running = !job.state.has_ended();
        let now = viewer.now();
        Self {
            number: job.number,
            title: match job.kind {
                Some(JobKind::ImageImport) => format!("Import {}", job.what),
                Some(JobKind::ImageBuild) => format!("Build {}", job.what),
                Some(JobKind::ImageCapture) => format!("Capture {}", job.what),
                Some(JobKind::ImagePublish) => format!("Publish {}", job.what),
                Some(JobKind::ImageVerify) => format!("Verify {}", job.what),
                Some(JobKind::ImageExport) => format!("Export {}", job.what),
                Some(JobKind::ImageSend) => format!("Send {}", job.what),
                Some(JobKind::ImageReceive) => format!("Receive {}", job.what),
                Some(JobKind::Doctor) => "Doctor".to_owned(),
                None => format!("Job {}, of which nothing can be read", job.number),
            },
            class,
            state: format!("{glyph} {}", job.state.word()),
            by: job.by,
            begun: (job.begun_unix_ms > 0).then(|| When::ms(job.begun_unix_ms, now)),
            ended: job.ended_unix_ms.map(|ms| When::ms(ms, now)),
            told: job.told.unwrap_or_default(),
            cancelled_by: job.cancelled_by.filter(|_| is_running),
            bar: job.progress.as_ref().map(Bar::of),
            is_running,
        }
    }
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    frame: Frame,
    jobs: Vec<ShownJob>,
}

pub(crate) async fn show_all(viewer: Viewer) -> Page {
    let jobs = viewer.jobs().await.map_err(|error| Failure::new(&viewer, &error))?;
    let jobs: Vec<ShownJob> = jobs.into_iter().map(|job| ShownJob::new(job, &viewer)).collect();
    let frame = Frame::new(&viewer, "jobs", "Jobs");
    let is_running = jobs.iter().any(|job| job.is_running);
    let frame = if is_running { frame.refreshed(REFRESH_SECONDS) } else { frame };
    Ok(render(StatusCode::OK, &JobsPage { frame, jobs }))
}

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    #[serde(default)]
    done: String,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    job: ShownJob,
    log: String,
    done: Option<&'static str>,
}

pub(crate) async fn show(
    viewer: Viewer,
    Path(number): Path<String>,
    Query(options): Query<Options>,
) -> Page {
    let read = viewer.job(number_of(&viewer, &number)?).await;
    let (job, log) = read.map_err(|error| Failure::new(&viewer, &error))?;
    let job = ShownJob::new(job, &viewer);
    let frame = Frame::new(&viewer, "jobs", format!("Job {}", job.number));
    let frame = if job.is_running { frame.refreshed(REFRESH_SECONDS) } else { frame };
    let done = Done::sentence(&options.done);
    Ok(render(StatusCode::OK, &JobPage { frame, job, log, done }))
}

pub(crate) async fn cancel(admin: Admin, Path(number): Path<String>) -> Page {
    let number = number_of(&admin, &number)?;
    let cancelled = admin.cancel_job(number).await;
    cancelled.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other(&format!("/jobs/{number}"), Done::JobCancelled))
}

fn number_of(viewer: &Viewer, text: &str) -> Result<u64, Failure> {
    let detail = || "There is no such job.".to_owned();
    text.parse().map_err(|_| Failure::with(viewer, StatusCode::NOT_FOUND, detail()))
}
