//! `bootlace doctor`

use super::as_job::caller;
use super::count;
use super::output::say;
use super::status::{Group, Told, findings, groups};
use crate::check::{self, Verdict};
use crate::config::{Config, ConfigError};
use crate::doctor::{Area, Look, as_caller, as_servers};
use crate::paths::Paths;
use crate::privileges::become_command;
use crate::site::{Refused, Site};
use anyhow::bail;
use clap::Args;
use images::Stop;
use serde::Deserialize;
use service::Clock;
use service::jobs::{JobKind, JobState, Jobs, NewJob};
use std::time::{SystemTime, UNIX_EPOCH};

/// A job that ended longer ago is history.
const JOB_DAYS_MAX: i64 = 7;

/// How it ends if all is well.
const NOTHING_WRONG: &str = "Nothing is wrong";

/// Look at everything that can be wrong on this server, and say what to do
///
/// For somebody whose room does not boot. It changes nothing that stays, the servers may run or not, and it takes up to twenty
/// seconds. If the boot server runs, firmware of six kinds walks the whole way of a boot, in a network of its own.
/// Run it as root (sudo): others may not look at everything. What root has seen is on the pages, too, below Findings, for administrators.
///
///   ok     is as it should be
///   note   works, and should be looked at
///   WRONG  keeps machines from what is theirs, or will; begin with the first of them
///   ?      this user may not look at it
///
/// Ends with 1 if something is WRONG, or may not be looked at.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Doctor {
    /// Listen for other DHCP servers for 5 seconds; switch a PC on meanwhile
    #[arg(long)]
    listen: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let by = caller();
        let looks = examine(paths, self.listen);
        let lines = in_lines(&looks, paths);
        if self.json {
            say(serde_json::to_string_pretty(&in_json(&looks, paths))?);
        } else {
            lines.iter().for_each(say);
        }
        let has_seen_all = !looks.iter().any(|look| matches!(look.verdict, Verdict::Unseen(_)));
        if has_seen_all && has_state(paths) {
            keep(paths, by, &lines, result(&looks));
        }
        match result(&looks) {
            Some(told) => bail!(told),
            None => Ok(()),
        }
    }
}

/// Looks at all. Afterwards this process may be another user.
pub(super) fn examine(paths: &Paths, listens: bool) -> Vec<Look> {
    let loaded = Config::load(&paths.config());
    let config = loaded.as_ref().ok();
    // What needs root comes first.
    let mut looks = as_caller(paths, config, listens);
    let checked = check::run(paths);
    looks.extend(checked.into_iter().map(|verdict| Look::new(Area::Start, verdict)));
    looks.extend(as_servers(paths));
    let is_new = matches!(loaded, Err(ConfigError::Missing { .. }));
    if !is_new && has_state(paths) {
        looks.extend(site(paths).into_iter().map(|verdict| Look::new(Area::Machines, verdict)));
    }
    looks.extend(config.map(|config| Look::new(Area::Machines, alerts(config))));
    looks
}

/// Whether somebody has begun a site: one that nobody has begun has no machines, and is not to be made by a look at it.
fn has_state(paths: &Paths) -> bool {
    !matches!(paths.database().try_exists(), Ok(false))
}

/// Keeps what was seen for administrators who look at pages, without secrets: an error may quote a line of the configuration. Whoever looks now has seen it, so nothing is lost where that can't be written.
fn keep(paths: &Paths, by: String, lines: &[String], wrong: Option<String>) {
    let new = NewJob { kind: JobKind::Doctor, what: String::new(), by };
    let begun = become_command(paths).and_then(|()| {
        let jobs = Jobs::in_folder(paths.jobs());
        Ok(jobs.begin(new, Clock::system(), &Stop::default())?)
    });
    let Ok(mut worker) = begun else { return };
    let censor = crate::report::censor(paths);
    lines.iter().for_each(|line| worker.log(&censor.text(line)));
    worker.end(JobState::Done, &wrong.unwrap_or_else(|| NOTHING_WRONG.to_owned()));
}

/// What the boot server has found; if none runs, what the state shows.
fn site(paths: &Paths) -> Vec<Verdict> {
    let failed = |error: anyhow::Error| {
        let told = wire::error_chain(error.as_ref());
        match error.is::<Refused>() {
            true => Verdict::Unseen(format!("what the boot server has found: {told}")),
            false => {
                Verdict::Wrong(format!("what the boot server has found can't be told: {told}"))
            }
        }
    };
    let site = match Site::open(paths) {
        Ok(site) => site,
        Err(error) => return vec![failed(error)],
    };
    let mut verdicts = match findings(&site) {
        Ok(told) => found(&told),
        Err(error) => return vec![failed(error)],
    };
    match site.get::<Vec<Job>>("/api/v1/jobs") {
        Ok(list) => verdicts.extend(jobs(&list)),
        Err(error) => verdicts.push(failed(error)),
    }
    verdicts
}

fn found(told: &[Told]) -> Vec<Verdict> {
    if told.is_empty() {
        return vec![Verdict::Right(
            "the boot server has found nothing that needs attention".to_owned(),
        )];
    }
    let verdict = |Group { is_alarm, text }| {
        // They begin with what they are, which the verdict says.
        let text = text.split_once(": ").map_or(&*text, |(_, text)| text).replace(".\n  ", ". ");
        if is_alarm { Verdict::Wrong(text) } else { Verdict::Better(text) }
    };
    groups(told).into_iter().map(verdict).collect()
}

/// A job, as far as it matters here.
#[derive(Deserialize)]
struct Job {
    number: u64,
    state: JobState,
    what: String,
    ended_unix_ms: Option<i64>,
    told: Option<String>,
}

fn jobs(list: &[Job]) -> Vec<Verdict> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let oldest = i64::try_from(now).unwrap_or(i64::MAX) - JOB_DAYS_MAX * 86_400_000;
    let is_bad = |job: &&Job| {
        matches!(job.state, JobState::Died | JobState::Failed | JobState::Unreadable)
            && job.ended_unix_ms.is_none_or(|ended| ended >= oldest)
    };
    let verdict = |job: &Job| {
        let (number, what) = (job.number, &job.what);
        let how = match (job.state, job.told.as_deref()) {
            (JobState::Died, _) => {
                "ended without a word: it was killed, perhaps for lack of memory".to_owned()
            }
            (JobState::Failed, Some(told)) => format!("failed: {told}"),
            (JobState::Failed, None) => "failed".to_owned(),
            _ => "has files that are not understood".to_owned(),
        };
        Verdict::Better(format!(
            "job {number} ({what}) {how}. bootlace job show {number} has its log"
        ))
    };
    let bad: Vec<Verdict> = list.iter().filter(is_bad).map(verdict).collect();
    match bad.is_empty() {
        true => vec![Verdict::Right(format!("no job has failed in the last {JOB_DAYS_MAX} days"))],
        false => bad,
    }
}

fn alerts(config: &Config) -> Verdict {
    match (&config.alerts.mail, &config.alerts.webhook) {
        (None, None) => Verdict::Better(
            "nobody is told when something breaks: set up mail or a webhook (bootlace help alerts)"
                .to_owned(),
        ),
        (mail, webhook) => {
            let ways = [mail.as_ref().map(|_| "mail"), webhook.as_ref().map(|_| "webhook")];
            let ways: Vec<&str> = ways.into_iter().flatten().collect();
            Verdict::Right(format!(
                "alerts are sent by {}; bootlace alert test sends one",
                ways.join(" and ")
            ))
        }
    }
}

/// For programs.
pub(super) fn in_json(looks: &[Look], paths: &Paths) -> serde_json::Value {
    let looks: Vec<_> = looks
        .iter()
        .map(|look| {
            let (verdict, text) = look.verdict.in_words();
            let text = paths.commands().complete(text);
            serde_json::json!({ "area": look.area, "verdict": verdict, "text": text })
        })
        .collect();
    serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "looks": looks })
}

/// For people.
fn in_lines(looks: &[Look], paths: &Paths) -> Vec<String> {
    let mut lines = Vec::new();
    for area in Area::ALL {
        let mut of_area = looks.iter().filter(|look| look.area == area).peekable();
        if of_area.peek().is_some() {
            lines.push(format!("{}:", area.title()));
        }
        for look in of_area {
            // Of some causes the end has lines of its own.
            let line = look.verdict.line().replace('\n', "\n        ");
            lines.push(paths.commands().complete(&format!("  {line}")));
        }
    }
    if result(looks).is_none() {
        lines.push(format!("{NOTHING_WRONG}."));
    }
    lines
}

/// Why this does not end well.
fn result(looks: &[Look]) -> Option<String> {
    let wrong: Vec<&str> = looks
        .iter()
        .filter_map(|look| match &look.verdict {
            Verdict::Wrong(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let n_unseen = looks.iter().filter(|look| matches!(look.verdict, Verdict::Unseen(_))).count();
    let begin = match wrong.as_slice() {
        [] => None,
        [_] => Some("1 thing is wrong: look for WRONG above".to_owned()),
        _ => Some(format!(
            "{} are wrong: look for WRONG above, and begin with the first, which may be the cause of others",
            count(wrong.len() as u64, "thing")
        )),
    };
    let unseen = (n_unseen > 0).then(|| {
        format!(
            "{} could not be looked at as this user: look as root (sudo)",
            count(n_unseen as u64, "thing")
        )
    });
    let told: Vec<String> = begin.into_iter().chain(unseen).collect();
    (!told.is_empty()).then(|| told.join(", and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_or_unseen_ends_it_with_an_error() {
        let looks = |verdicts: Vec<Verdict>| -> Vec<Look> {
            verdicts.into_iter().map(|it| Look::new(Area::Host, it)).collect()
        };
        let (right, better) = (|| Verdict::Right("a".into()), || Verdict::Better("b".into()));
        assert_eq!(result(&looks(vec![right(), better()])), None);
        let wrong = result(&looks(vec![right(), Verdict::Wrong("c".into())])).unwrap();
        assert!(wrong.starts_with("1 thing is wrong"), "{wrong}");
        let unseen = result(&looks(vec![Verdict::Unseen("d".into())])).unwrap();
        assert!(unseen.contains("as root"), "{unseen}");
    }

    #[test]
    fn jobs_that_died_are_told_and_old_ones_are_not() {
        let job = |state: &str, ended: i64| -> Job {
            serde_json::from_value(serde_json::json!({
                "number": 7, "state": state, "what": "debian-12", "ended_unix_ms": ended, "told": "no room",
            }))
            .unwrap()
        };
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis())
            .unwrap();
        let told = jobs(&[job("died", now), job("failed", now), job("done", now), job("died", 0)]);
        let texts: Vec<&str> = told.iter().map(|it| it.in_words().1).collect();
        assert!(
            texts.len() == 2 && texts[0].contains("job show 7") && texts[1].contains("no room"),
            "{texts:?}"
        );
        assert_eq!(jobs(&[])[0].in_words().0, "ok");
    }
}
