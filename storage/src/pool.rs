//! Threads for work that waits for a disk, which many share fairly.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads at once: what a disk or a RAID of them keeps busy.
const THREADS_MAX: usize = 32;

/// Jobs that wait. Whoever has one more does it himself.
const QUEUE_MAX: usize = 1024;

/// A thread that has had nothing to do for so long ends.
const IDLE_TIME: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The threads are made when they are needed.
#[derive(Clone)]
pub(crate) struct Pool {
    threads_max: usize,
    shared: Arc<Shared>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::of(THREADS_MAX)
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    has_job: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Jobs,
    n_threads: usize,
    n_idle: usize,
}

/// Jobs that wait, of each user in order.
#[derive(Default)]
struct Jobs {
    by_user: HashMap<usize, VecDeque<Job>>,
    /// Users with jobs, the next one first.
    turns: VecDeque<usize>,
    length: usize,
}

impl Jobs {
    fn push(&mut self, user: usize, job: Job) {
        let jobs = self.by_user.entry(user).or_default();
        if jobs.is_empty() {
            self.turns.push_back(user);
        }
        jobs.push_back(job);
        self.length += 1;
    }

    /// Each user in turn: who has a hundred jobs does not hold up who has one.
    fn pop(&mut self) -> Option<Job> {
        let user = self.turns.pop_front()?;
        let jobs = self.by_user.get_mut(&user)?;
        let job = jobs.pop_front()?;
        self.length -= 1;
        if jobs.is_empty() {
            self.by_user.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        Some(job)
    }
}

impl Pool {
    /// One with so many threads at most. With one, each user's jobs are done in order.
    pub(crate) fn of(threads_max: usize) -> Self {
        Self { threads_max, shared: Arc::default() }
    }

    /// Has the job done for this user, if need be before it returns.
    pub(crate) fn submit(&self, user: usize, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.jobs.length >= QUEUE_MAX {
            drop(state);
            return job();
        }
        if state.n_idle <= state.jobs.length && state.n_threads < self.threads_max {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new().name("disk".into()).spawn(move || {
                let _leaving = Leaving(&shared);
                shared.work();
            });
            match spawned {
                Ok(_) => state.n_threads += 1,
                Err(error) => {
                    tracing::warn!(%error, "no thread for waiting on a disk");
                    if state.n_threads == 0 {
                        drop(state);
                        return job();
                    }
                }
            }
        }
        state.jobs.push(user, Box::new(job));
        drop(state);
        self.shared.has_job.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside of the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.n_idle += 1;
            let waited = self.has_job.wait_timeout(state, IDLE_TIME);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state.n_idle -= 1;
            if timeout.timed_out() && state.jobs.length == 0 {
                return;
            }
        }
    }
}

/// Counts a thread down, whatever ends it.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().n_threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn jobs_run_side_by_side_and_a_panic_disturbs_none() {
        let pool = Pool::default();
        let (done, is_done) = channel();
        for index in 0..100 {
            let done = done.clone();
            pool.submit(1, move || {
                std::thread::sleep(Duration::from_millis(20));
                assert!(index % 10 != 3, "a bug");
                done.send(()).unwrap();
            });
        }
        drop(done);
        assert_eq!(is_done.iter().count(), 90);
    }

    #[test]
    fn who_has_one_job_does_not_wait_for_who_has_many() {
        let mut jobs = Jobs::default();
        let order = Arc::new(Mutex::new(Vec::new()));
        for user in [1, 1, 1, 1, 2, 2, 3] {
            let order = Arc::clone(&order);
            jobs.push(user, Box::new(move || order.lock().unwrap().push(user)));
        }
        while let Some(job) = jobs.pop() {
            job();
        }
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 2, 1, 1]);
        assert_eq!((jobs.length, jobs.by_user.len()), (0, 0));
    }

    #[test]
    fn who_finds_the_queue_full_does_the_job_himself() {
        let pool = Pool::default();
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        while pool.shared.lock().jobs.length < QUEUE_MAX {
            let wait = Arc::clone(&wait);
            pool.submit(1, move || wait.lock().unwrap().recv().unwrap_or(()));
        }
        let (done, is_done) = channel();
        pool.submit(1, move || done.send(()).unwrap());
        assert!(is_done.try_recv().is_ok(), "it was queued");
        drop(go);
    }
}
