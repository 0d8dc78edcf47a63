//! Long work of a command, which others see as a job.

use super::output::{unwritten, write_line};
use crate::paths::Paths;
use anyhow::Context as _;
use images::{Step, Stop};
use model::{Size, does_something};
use nix::unistd::{Uid, User, getuid};
use service::Clock;
use service::jobs::{JobState, Jobs, NewJob, Order, Worker};
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Of how much more each a terminal is told, if nobody knows how much it will be.
const SHOWN_BYTES: u64 = 10_000_000;

/// What shells call a program that Ctrl-C ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// Who runs this process, before it becomes another user.
pub(super) fn caller() -> String {
    let uid: Uid = getuid();
    let named = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let named = named.filter(|name| !name.chars().any(does_something));
    named.unwrap_or_else(|| format!("user {uid}"))
}

/// Work that is done.
pub(super) struct Work {
    /// Somebody wants it to end.
    pub(super) stop: Stop,
    /// `None`: nothing can be written where jobs are.
    worker: Option<Worker>,
    /// What the terminal shows of it.
    shown: Option<(String, u64)>,
    /// With what the process ends, as standard output could not be written: the work is done all the same.
    unwritten: Option<u8>,
    /// It hears signals.
    _runtime: Runtime,
}

/// Does the work as a job: it can be looked at and cancelled, and its end is kept, which is the sentence of `work` or its error. A
/// signal cancels it, too; the second one ends the program.
///
/// # Errors
/// Those of `work`.
pub(super) fn as_job(
    paths: &Paths,
    new: NewJob,
    work: impl FnOnce(&mut Work) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let (jobs, clock) = (Jobs::in_folder(paths.jobs()), Clock::system());
    let (stop, runtime) = stopped_by_signals()?;
    jobs.settle(clock.now());
    let worker = jobs.begin(new, clock, &stop).context("this is not shown as a job");
    let worker = worker.map_err(|error| writeln!(std::io::stderr(), "note: {error:#}")).ok();
    let doing = Work { stop, worker, shown: None, unwritten: None, _runtime: runtime };
    do_job(doing, IfStopped::Ends, work)
}

/// Does a job that somebody has ordered of the boot server, as [`as_job`]. A signal leaves it to be begun again.
///
/// # Errors
/// Those of `work`, or the job does not wait to be done.
pub(super) fn do_order(
    paths: &Paths,
    number: u64,
    work: impl FnOnce(Order, &mut Work) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let (jobs, clock) = (Jobs::in_folder(paths.jobs()), Clock::system());
    let (stop, runtime) = stopped_by_signals()?;
    let (worker, order) = jobs.take(number, clock, &stop)?;
    let doing =
        Work { stop, worker: Some(worker), shown: None, unwritten: None, _runtime: runtime };
    do_job(doing, IfStopped::BeginsAgain, |doing| work(order, doing))
}

/// What becomes of a job that a signal has stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfStopped {
    Ends,
    BeginsAgain,
}

fn do_job(
    mut doing: Work,
    if_stopped: IfStopped,
    work: impl FnOnce(&mut Work) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let done = work(&mut doing);
    doing.clear();
    let Work { stop, worker, unwritten, .. } = doing;
    if let Some(worker) = worker {
        note_end(worker, &stop, if_stopped, &done);
    }
    if let Some(code) = unwritten {
        std::process::exit(code.into());
    }
    done.map(drop)
}

fn note_end(worker: Worker, stop: &Stop, if_stopped: IfStopped, done: &anyhow::Result<String>) {
    match done {
        Ok(told) => worker.end(JobState::Done, told),
        Err(_) if stop.is_stopping() => match worker.cancelled_by() {
            Some(who) => {
                let told = format!("cancelled by {who}");
                let _ = writeln!(std::io::stderr(), "{}", super::plain(&told));
                worker.end(JobState::Cancelled, &told);
            }
            None if if_stopped == IfStopped::BeginsAgain => {}
            None => worker.end(JobState::Cancelled, "stopped by a signal, such as Ctrl-C"),
        },
        Err(error) => worker.end(JobState::Failed, &wire::error_chain(error.as_ref())),
    }
}

impl Work {
    /// A line for whoever has called, and for the job's log.
    pub(super) fn say(&mut self, line: impl Display) {
        self.clear();
        let line = line.to_string();
        if let Some(worker) = &mut self.worker {
            worker.log(&line);
        }
        if let Err(error) = write_line(line)
            && self.unwritten.is_none()
        {
            self.unwritten = Some(unwritten(&error));
        }
    }

    /// The same where standard output may be what was asked for.
    pub(super) fn note(&mut self, line: impl Display) {
        self.clear();
        let line = line.to_string();
        if let Some(worker) = &mut self.worker {
            worker.log(&line);
        }
        super::note(super::plain(&line));
    }

    /// How far it is: at a terminal, and as a job. `step` begins a line.
    pub(super) fn show(&mut self, step: &str, done_bytes: u64, total_bytes: u64) {
        if let Some(worker) = &mut self.worker {
            worker.on_progress(step, done_bytes, total_bytes);
        }
        let (share, words) = match total_bytes {
            // Of what comes through a pipe nobody knows how much it will be.
            0 => (done_bytes / SHOWN_BYTES, Size(done_bytes).to_string()),
            _ => {
                let percent = u128::from(done_bytes) * 100 / u128::from(total_bytes);
                let percent = u64::try_from(percent).unwrap_or(100);
                (percent, format!("{percent} %"))
            }
        };
        let is_shown = self.shown.as_ref().is_some_and(|(of, at)| of == step && *at == share);
        if std::io::stderr().is_terminal() && !is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{step} {words}");
            self.shown = Some((step.to_owned(), share));
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// What is done in a step of an import.
pub(super) const fn word(step: Step) -> &'static str {
    match step {
        Step::Copy => "copying",
        Step::Check => "checking its file systems",
        Step::Digest => "computing its digest",
        Step::Sync => "writing to disk",
    }
}

/// What signals stop, as long as the runtime lives.
fn stopped_by_signals() -> anyhow::Result<(Stop, Runtime)> {
    let (stop, runtime) = (Stop::default(), super::runtime()?);
    {
        let _in_runtime = runtime.enter();
        stop_by_signals(&stop)?;
    }
    Ok((stop, runtime))
}

/// The first signal stops the work, which then removes what it has made; the second ends the program, and what
/// stays is removed when the store is opened next.
fn stop_by_signals(stop: &Stop) -> std::io::Result<()> {
    // The last one is Ctrl-\, of which nobody wants a memory dump here.
    let ends = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    for kind in ends {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if stop.is_stopping() {
                    std::process::exit(ENDED_BY_SIGNAL);
                }
                stop.stop();
                let _ = writeln!(std::io::stderr(), "\nstopping; Ctrl-C again ends at once");
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};
    use service::jobs::JobKind;
    use std::time::Duration;

    #[test]
    fn each_signal_that_ends_programs_stops_an_import_first() {
        for end in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let (stop, _runtime) = stopped_by_signals().unwrap();
            raise(end).unwrap();
            let is_told = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                stop.is_stopping()
            });
            assert!(is_told, "{end}");
        }
    }

    #[test]
    fn work_is_a_job_with_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::under(folder.path());
        let new = |what: &str| NewJob {
            kind: JobKind::ImageVerify,
            what: what.to_owned(),
            by: "root".to_owned(),
        };
        as_job(&paths, new("one"), |work| {
            work.show("reading", 5, 10);
            Ok("all is well".to_owned())
        })
        .unwrap();
        as_job(&paths, new("two"), |_| anyhow::bail!("no such thing")).unwrap_err();
        let jobs = Jobs::in_folder(paths.jobs());
        // A cancel ends it, whoever waits for what.
        as_job(&paths, new("three"), |work| {
            jobs.cancel(3, "anna").unwrap();
            jobs.cancel(3, "tom").unwrap();
            while !work.stop.is_stopping() {
                std::thread::sleep(Duration::from_millis(10));
            }
            anyhow::bail!("stopped")
        })
        .unwrap_err();
        let ends: Vec<_> = jobs.list().into_iter().map(|it| (it.state, it.told.unwrap())).collect();
        let end = |state, told: &str| (state, told.to_owned());
        assert_eq!(
            ends,
            [
                end(JobState::Cancelled, "cancelled by anna"),
                end(JobState::Failed, "no such thing"),
                end(JobState::Done, "all is well"),
            ]
        );
        assert!(jobs.cancel(3, "tom").unwrap_err().to_string().contains("has ended"));
    }
}
