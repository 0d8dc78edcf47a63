//! What a person should know.

use super::{Frame, Page, When, render};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Finding, Level, Subject};
use service::{Now, Service};

/// As often as the overview.
const REFRESH_SECONDS: u32 = 5;

/// A finding as pages show it.
pub(crate) struct FindingLine {
    pub(crate) glyph: &'static str,
    pub(crate) class: &'static str,
    pub(crate) level: &'static str,
    pub(crate) word: &'static str,
    pub(crate) subject: String,
    /// Where there is more about the subject; empty: nowhere.
    pub(crate) link: String,
    pub(crate) cause: String,
    pub(crate) remedy: String,
    pub(crate) since: When,
    pub(crate) last: When,
    pub(crate) count: u64,
}

impl FindingLine {
    pub(crate) fn new(finding: &Finding, now: Now) -> Self {
        let (glyph, class) = match finding.level {
            Level::Alarm => ("✕", "fail"),
            Level::Warning => ("▲", "warn"),
            Level::Notice => ("●", "busy"),
        };
        let link = match &finding.subject {
            Subject::Machine(name) => format!("/machines/{name}"),
            Subject::Version(..) => "/images".to_owned(),
            Subject::Pc(_) => "/discovered".to_owned(),
            Subject::Server | Subject::Address(_) => String::new(),
        };
        let subject = match &finding.subject {
            Subject::Server => String::new(),
            other => other.to_string(),
        };
        Self {
            glyph,
            class,
            level: finding.level.word(),
            word: finding.kind.word(),
            subject,
            link,
            cause: finding.cause.clone(),
            remedy: finding.remedy.clone(),
            since: When::ms(finding.since_unix_ms, now),
            last: When::ms(finding.last_unix_ms, now),
            count: finding.count,
        }
    }
}

#[derive(Template)]
#[template(path = "findings.html")]
struct Findings {
    frame: Frame,
    findings: Vec<FindingLine>,
    left_out: Vec<String>,
}

pub(crate) async fn show(State(service): State<Service>) -> Page {
    let now = service.now();
    let findings = service.findings().await;
    let findings = findings.iter().map(|finding| FindingLine::new(finding, now)).collect();
    let left_out = service.finding_counts().into_iter().filter(|count| count.n_left_out > 0);
    let left_out = left_out.map(|count| {
        let n = count.n_left_out;
        format!("{} was found {n} times more than can be kept.", count.kind)
    });
    let frame = Frame::new(&service, "findings", "Findings").refreshed(REFRESH_SECONDS);
    Ok(render(StatusCode::OK, &Findings { frame, findings, left_out: left_out.collect() }))
}
