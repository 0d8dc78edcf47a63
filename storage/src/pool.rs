//! Threads for work that waits for a disk.

use std::collections::VecDeque;
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
#[derive(Clone, Default)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    has_job: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    n_threads: usize,
    n_idle: usize,
}

impl Pool {
    /// Has the job done, if need be before it returns.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.jobs.len() >= QUEUE_MAX {
            drop(state);
            return job();
        }
        if state.n_idle <= state.jobs.len() && state.n_threads < THREADS_MAX {
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
        state.jobs.push_back(Box::new(job));
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
            if let Some(job) = state.jobs.pop_front() {
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
            if timeout.timed_out() && state.jobs.is_empty() {
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
            pool.submit(move || {
                std::thread::sleep(Duration::from_millis(20));
                assert!(index % 10 != 3, "a bug");
                done.send(()).unwrap();
            });
        }
        drop(done);
        assert_eq!(is_done.iter().count(), 90);
    }

    #[test]
    fn who_finds_the_queue_full_does_the_job_himself() {
        let pool = Pool::default();
        let (go, wait) = channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        while pool.shared.lock().jobs.len() < QUEUE_MAX {
            let wait = Arc::clone(&wait);
            pool.submit(move || wait.lock().unwrap().recv().unwrap_or(()));
        }
        let (done, is_done) = channel();
        pool.submit(move || done.send(()).unwrap());
        assert!(is_done.try_recv().is_ok(), "it was queued");
        drop(go);
    }
}
