//! `bootlace job …`

use super::as_job::{Work, do_order};
use super::image::{build_ordered, import_now, publish_ordered, request};
use super::output::note;
use super::{number, say, table};
use crate::paths::Paths;
use crate::privileges::{become_command, give_up_capabilities};
use crate::site::{Site, connect};
use anyhow::bail;
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use model::Size;
use serde::Deserialize;
use serde_json::Value;
use service::incoming::Incoming;
use service::jobs::{ImportOrder, JobKind, JobState, Order};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

#[derive(Subcommand)]
pub(super) enum Job {
    /// List jobs, the newest first: all that run, and those that ended last
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how far a job is or how it ended, and its log
    Show {
        /// Its number, which bootlace job ls shows
        #[arg(value_parser = number)]
        number: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do what was ordered of the boot server, which calls this
    #[command(hide = true)]
    Run {
        /// Number of the job
        number: u64,
    },
    /// Have a job stop; nothing half done stays
    Cancel {
        /// Its number, which bootlace job ls shows
        #[arg(value_parser = number)]
        number: u64,
    },
}

/// A job, as far as it is printed.
#[derive(Deserialize)]
struct Printed {
    number: u64,
    state: JobState,
    kind: Option<JobKind>,
    what: String,
    by: String,
    begun_unix_ms: i64,
    ended_unix_ms: Option<i64>,
    told: Option<String>,
    cancelled_by: Option<String>,
    progress: Option<Progress>,
    #[serde(default)]
    log: String,
}

/// What is slower are no bytes, but packages.
const RATE_MIN: u64 = 1000;

/// How often it is looked how far a job is.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Deserialize)]
struct Progress {
    step: String,
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: Option<u64>,
    seconds_left: Option<u64>,
}

impl Progress {
    /// `copying 41 %, 210 MB/s, 23 s left`.
    fn in_words(&self) -> String {
        // Of what comes through a pipe nobody knows how much it will be.
        if self.total_bytes == 0 && self.done_bytes > 0 {
            return format!("{} {}", self.step, Size(self.done_bytes));
        }
        let percent = u128::from(self.done_bytes) * 100 / u128::from(self.total_bytes.max(1));
        let rate = self.bytes_per_second.filter(|rate| *rate >= RATE_MIN);
        let rate = rate.map(|rate| format!(", {}/s", Size(rate)));
        let left = self.seconds_left.map(|left| format!(", {left} s left"));
        format!("{} {percent} %{}{}", self.step, rate.unwrap_or_default(), left.unwrap_or_default())
    }
}

impl Printed {
    fn title(&self) -> String {
        let kind = self.kind.map_or("unknown", JobKind::title);
        format!("{kind} {}", self.what).trim_end().to_owned()
    }

    /// How far it is, or how it ended.
    fn in_words(&self) -> String {
        let progress = self.progress.as_ref().map(Progress::in_words);
        let told = progress.or_else(|| self.told.clone()).unwrap_or_default();
        match &self.cancelled_by {
            Some(who) if !self.state.has_ended() => format!("{told} (being cancelled by {who})"),
            _ => told,
        }
    }
}

impl Job {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Run { number } => run(paths, number),
            Self::Ls { json } => list(&Site::open(paths)?, json),
            Self::Show { number, json } => show(&Site::open(paths)?, number, json),
            Self::Cancel { number } => {
                let url = format!("/api/v1/jobs/{number}");
                let site = Site::open(paths)?;
                let job: Printed = site.send(Method::DELETE, &url, &Value::Null)?;
                say(format!("Job {number} ({}) is being cancelled.", job.title()));
                Ok(())
            }
        }
    }
}

/// Does what was ordered of the boot server, whose child this is.
fn run(paths: &Paths, number: u64) -> anyhow::Result<()> {
    become_command(paths)?;
    // It reads what others have sent.
    give_up_capabilities()?;
    do_order(paths, number, |order, work| match order {
        Order::Import(order) => import_ordered(paths, order, work),
        Order::Build(order) => build_ordered(paths, order, work),
        Order::Publish(order) => publish_ordered(paths, order, work),
    })
}

fn import_ordered(paths: &Paths, order: ImportOrder, work: &mut Work) -> anyhow::Result<String> {
    let ImportOrder { file, image, note, state, removes_file, fixes } = order;
    let incoming = Incoming::in_folder(paths.incoming());
    let request = request(&incoming.path(&file)?, image, note, state, fixes)?;
    let told = import_now(paths, connect(paths)?, &request, work)?;
    if removes_file && let Err(error) = incoming.remove(&file) {
        work.say(format!("note: {}", wire::error_chain(&error)));
    }
    Ok(told)
}

fn list(site: &Site, json: bool) -> anyhow::Result<()> {
    let jobs: Value = site.get("/api/v1/jobs")?;
    if json {
        say(serde_json::to_string_pretty(&jobs)?);
        return Ok(());
    }
    let jobs: Vec<Printed> = serde_json::from_value(jobs)?;
    if jobs.is_empty() {
        say("No jobs yet.");
        return Ok(());
    }
    let row = |job: &Printed| {
        let words = [job.state.word().to_owned(), job.title(), job.by.clone(), job.in_words()];
        let [state, title, by, told] = words;
        [job.number.to_string(), state, title, by, date(job.begun_unix_ms), told]
    };
    let rows: Vec<[String; 6]> = jobs.iter().map(row).collect();
    say(table(["JOB", "STATE", "WHAT", "BY", "BEGUN", "HOW"], &rows));
    Ok(())
}

fn show(site: &Site, number: u64, json: bool) -> anyhow::Result<()> {
    let job: Value = site.get(&format!("/api/v1/jobs/{number}"))?;
    if json {
        say(serde_json::to_string_pretty(&job)?);
        return Ok(());
    }
    let job: Printed = serde_json::from_value(job)?;
    say(format!("Job {number}: {}, {}", job.title(), job.state.word()));
    if !job.in_words().is_empty() {
        say(job.in_words());
    }
    let ended = job.ended_unix_ms.map(|ended| format!(", ended {}", date(ended)));
    let begun = date(job.begun_unix_ms);
    say(format!("begun {begun} by {}{}", job.by, ended.unwrap_or_default()));
    if !job.log.is_empty() {
        say(format!("\n{}", job.log.trim_end()));
    }
    Ok(())
}

/// Shows how far a job is that the boot server does, until it ends. Who is not patient leaves it running.
pub(super) fn follow(site: &Site, number: u64) -> anyhow::Result<()> {
    let url = format!("/api/v1/jobs/{number}");
    let is_terminal = io::stderr().is_terminal();
    if is_terminal {
        note(format!(
            "job {number} begins; Ctrl-C leaves it running, bootlace job cancel {number} stops it"
        ));
    }
    let mut n_shown = 0;
    loop {
        let job: Printed = site.get(&url)?;
        if is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        // Its last line may not be whole yet.
        let whole = job.log.rfind('\n').map_or(0, |end| end + 1);
        if let Some(new) = job.log.get(n_shown..whole) {
            new.lines().for_each(say);
            n_shown = whole.max(n_shown);
        }
        match job.state {
            JobState::Done => return Ok(()),
            state if state.has_ended() => {
                let told = job.told.clone().unwrap_or_else(|| state.word().to_owned());
                bail!("{told} (job {number}, {})", state.word());
            }
            _ => {}
        }
        if is_terminal && let Some(progress) = &job.progress {
            let _ = write!(io::stderr(), "{}", progress.in_words());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

fn date(unix_ms: i64) -> String {
    let time = Timestamp::from_second(unix_ms.div_euclid(1000));
    time.map_or_else(|_| unix_ms.to_string(), |time| time.to_string())
}
