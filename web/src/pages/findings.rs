//! What a person should know.

use super::{Frame, Page, When, render};
use askama::Template;
use axum::http::StatusCode;
use model::{Finding, Level, Subject};
use service::jobs::JobKind;
use service::{Now, Viewer};

/// As often as the overview.
const REFRESH_SECONDS: u32 = 5;

/// Subjects of one line; those beyond are counted.
const SUBJECTS_SHOWN_MAX: usize = 12;

/// Findings with one cause, as pages show them.
pub(crate) struct FindingLine {
    pub(crate) glyph: &'static str,
    pub(crate) class: &'static str,
    pub(crate) level: &'static str,
    pub(crate) word: &'static str,
    pub(crate) subjects: Vec<SubjectLink>,
    pub(crate) n_subjects_left_out: usize,
    pub(crate) cause: String,
    pub(crate) remedy: String,
    pub(crate) since: When,
    pub(crate) last: When,
    pub(crate) count: u64,
}

/// Whom it is about.
pub(crate) struct SubjectLink {
    pub(crate) name: String,
    /// Where there is more; empty: nowhere.
    pub(crate) link: String,
}

/// One line for each cause.
pub(crate) fn lines(findings: &[Finding], now: Now) -> Vec<FindingLine> {
    findings.chunk_by(Finding::is_like).map(|alike| FindingLine::new(alike, now)).collect()
}

impl SubjectLink {
    /// `None` for the servers, of which there is nothing to say.
    fn new(subject: &Subject) -> Option<Self> {
        let link = match subject {
            Subject::Server => return None,
            Subject::Machine(name) => format!("/machines/{name}"),
            Subject::Version(..) => "/images".to_owned(),
            Subject::Pc(_) => "/discovered".to_owned(),
            Subject::Address(_) => String::new(),
        };
        Some(Self { name: subject.to_string(), link })
    }
}

impl FindingLine {
    /// `alike` are not none.
    fn new(alike: &[Finding], now: Now) -> Self {
        let finding = &alike[0];
        let subjects = alike.iter().filter_map(|finding| SubjectLink::new(&finding.subject));
        let since = alike.iter().map(|finding| finding.since_unix_ms).min();
        let last = alike.iter().map(|finding| finding.last_unix_ms).max();
        // Of machines that lack the same each is there once.
        let count = alike.iter().map(|finding| finding.count).sum::<u64>();
        let count = if count == alike.len() as u64 { 1 } else { count };
        let (glyph, class) = match finding.level {
            Level::Alarm => ("✕", "fail"),
            Level::Warning => ("▲", "warn"),
            Level::Notice => ("●", "busy"),
        };
        Self {
            glyph,
            class,
            level: finding.level.word(),
            word: finding.kind.word(),
            subjects: subjects.take(SUBJECTS_SHOWN_MAX).collect(),
            n_subjects_left_out: alike.len().saturating_sub(SUBJECTS_SHOWN_MAX),
            cause: finding.cause.clone(),
            remedy: finding.remedy.clone(),
            since: When::ms(since.unwrap_or(finding.since_unix_ms), now),
            last: When::ms(last.unwrap_or(finding.last_unix_ms), now),
            count,
        }
    }
}

#[derive(Template)]
#[template(path = "findings.html")]
struct Findings {
    frame: Frame,
    findings: Vec<FindingLine>,
    left_out: Vec<String>,
    doctor: Option<DoctorSeen>,
}

/// What `bootlace doctor` saw last.
struct DoctorSeen {
    at: When,
    told: String,
    log: String,
}

/// `None`: it was not asked lately.
async fn doctor(viewer: &Viewer) -> Option<DoctorSeen> {
    let (job, log) = viewer.last_ended_job(JobKind::Doctor).await.ok()??;
    let at = When::ms(job.ended_unix_ms?, viewer.now());
    Some(DoctorSeen { at, told: job.told?, log })
}

pub(crate) async fn show(service: Viewer) -> Page {
    let now = service.now();
    let findings = service.findings().await;
    let findings = lines(&findings, now);
    let left_out = service.finding_counts().into_iter().filter(|count| count.n_left_out > 0);
    let left_out = left_out.map(|count| {
        let n = count.n_left_out;
        format!("{} was found {n} times more than can be kept.", count.kind)
    });
    let left_out = left_out.collect();
    let doctor = doctor(&service).await;
    let frame = Frame::new(&service, "findings", "Findings").refreshed(REFRESH_SECONDS);
    Ok(render(StatusCode::OK, &Findings { frame, findings, left_out, doctor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FindingKind;

    #[test]
    fn machines_with_one_cause_are_one_line() {
        let finding = |machine: &str, cause: &str| Finding {
            kind: FindingKind::MachineStuck,
            level: Level::Warning,
            subject: Subject::Machine(machine.parse().unwrap()),
            since_unix_ms: 5000,
            last_unix_ms: 9000,
            count: 1,
            cause: cause.to_owned(),
            remedy: "Look.".to_owned(),
        };
        let mut findings = vec![finding("lab-01", "No loader."), finding("lab-02", "No disk.")];
        findings.extend((3..18).map(|n| finding(&format!("lab-{n:02}"), "No disk.")));
        let now = Now { unix_ms: 10_000, moment: wire::Moment::default() };
        let lines = lines(&findings, now);
        let shape =
            |line: &FindingLine| (line.subjects.len(), line.n_subjects_left_out, line.count);
        assert_eq!(lines.iter().map(shape).collect::<Vec<_>>(), [(1, 0, 1), (12, 4, 1)]);
        assert_eq!(lines[1].subjects[0].link, "/machines/lab-02");
    }
}
