//! Running the jobs side by side.

use super::job::{Job, Outcome};
use super::report;
use anyhow::Result;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};

/// Jobs that run at once. More than there are processors, since most of those with PCs wait: for a time to
/// pass, or for their turn to have a PC at work ([`lab::PcSlots`]).
const JOBS_MAX: usize = 7;

/// How many of these take short jobs first, which else would all begin when the last long one has.
const SHORT_JOBS_FIRST: usize = 1;

struct Queue {
    long: VecDeque<Job>,
    short: VecDeque<Job>,
}

impl Queue {
    fn next(&mut self, prefers_short: bool) -> Option<Job> {
        match prefers_short {
            true => self.short.pop_front().or_else(|| self.long.pop_front()),
            false => self.long.pop_front().or_else(|| self.short.pop_front()),
        }
    }
}

/// Runs all jobs, and says of each what came of it as soon as it has ended.
pub(crate) fn all(jobs: Vec<Job>, environment: &[(&str, &OsStr)]) -> Result<Vec<Outcome>> {
    let (long, short) = jobs.into_iter().partition(|job| job.is_long);
    let queue = Mutex::new(Queue { long, short });
    let work = |index: usize| -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        loop {
            let mut waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let next = waiting.next(index < SHORT_JOBS_FIRST);
            drop(waiting);
            let Some(job) = next else { return Ok(outcomes) };
            let outcome = job.run(environment)?;
            report::line(&outcome);
            outcomes.push(outcome);
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..JOBS_MAX).map(|index| scope.spawn(move || work(index))).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcomes.extend(done?);
        }
        Ok(outcomes)
    })
}
