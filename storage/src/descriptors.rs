//! How many files and sockets the storage server may have open, and for what they are.
//!
//! A machine that is attached takes [two](PER_MACHINE): its connection, and its layer. One that is off takes none
//! or, if it was on, one. A disk with snapshots takes one more for each that was read, which is not in these sums: the units
//! allow 65,536. The rest is set aside for what passes.

use rustix::process::{Resource, getrlimit};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// For a machine with a disk over NBD: its connection, and the file with what it wrote. AoE needs the latter
/// only.
const PER_MACHINE: u64 = 2;

/// What does not grow with the machines: sockets that listen, requests of the boot server, files that are open
/// for a moment, clients that are in the handshake and about to open a disk, maps of layers.
const ASIDE: u64 = 192;

/// One of so many descriptors may be for telling a connection that its requests are done.
const WAKERS_SHARE: u64 = 16;

/// How often it is logged that something was refused.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The operating system allows too few descriptors for anybody to be let in.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may have only {limit} file descriptors, and needs {needed} for {n_disks} disks: allow it more \
     (LimitNOFILE= in systemd, ulimit -n)"
)]
pub struct TooFewDescriptors {
    limit: u64,
    needed: u64,
    n_disks: usize,
}

/// How many descriptors this process may have; `u64::MAX` is as many as there are.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many a storage server with so many disks needs, when all of their machines run.
pub fn descriptors_for(n_disks: u64) -> u64 {
    let for_disks = ASIDE + PER_MACHINE * n_disks;
    // What is left after the share of the wakers must do.
    for_disks + for_disks.div_ceil(WAKERS_SHARE - 1)
}

/// Whether a server with so many disks can be of use, and says if it can't serve all of them at once.
pub(crate) fn check(n_disks: usize) -> Result<(), TooFewDescriptors> {
    let (limit, needed) = (limit(), descriptors_for(n_disks as u64));
    if connection_number_max(limit) == 0 {
        return Err(TooFewDescriptors { limit, needed, n_disks });
    }
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            n_disks,
            "not all machines can be attached at once: this server may have too few file descriptors; allow it more \
             (LimitNOFILE= in systemd, ulimit -n)"
        );
    }
    Ok(())
}

/// A connection whose descriptor has a larger number would take what is set aside. A process always gets the
/// smallest number that is free, so this one tells how many are in use.
pub(crate) fn connection_number_max(limit: u64) -> i32 {
    let room = limit.saturating_sub(ASIDE + limit / WAKERS_SHARE);
    i32::try_from(room).unwrap_or(i32::MAX)
}

/// Descriptors by which requests that were done wake their connection.
#[derive(Debug)]
pub(crate) struct Wakers {
    in_use: AtomicUsize,
    max: usize,
}

impl Default for Wakers {
    fn default() -> Self {
        let max = usize::try_from(limit() / WAKERS_SHARE).unwrap_or(usize::MAX);
        Self { in_use: AtomicUsize::new(0), max }
    }
}

impl Wakers {
    /// Whether one more may be made. Give it back by [`returned`](Self::returned).
    pub(crate) fn take(&self) -> bool {
        let one_more = |in_use| (in_use < self.max).then_some(in_use + 1);
        self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    pub(crate) fn returned(&self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections that were refused.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    count: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Refused {
    /// One more, since there are no descriptors. The log tells of it now and then.
    pub(crate) fn count(&self, limit: u64) {
        if let Some(count) = self.count_silently() {
            tracing::error!(
                count,
                limit,
                "NBD connections are refused: this server has not enough file descriptors; allow it more (LimitNOFILE= \
                 in systemd, ulimit -n)"
            );
        }
    }

    /// One more; how many there are, if the log shall tell of it.
    pub(crate) fn count_silently(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        *logged = Some(now);
        Some(count)
    }

    /// How many so far.
    pub(crate) fn total(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_limit_is_enough_for_345_machines() {
        assert!(descriptors_for(345) <= 1024, "{}", descriptors_for(345));
        for n_disks in [1, 30, 345, 1000, 65_488] {
            let needed = descriptors_for(n_disks);
            let room = u64::try_from(connection_number_max(needed)).unwrap();
            assert!(room >= PER_MACHINE * n_disks, "{n_disks}: {needed} leave {room}");
        }
        assert_eq!((connection_number_max(0), connection_number_max(u64::MAX)), (0, i32::MAX));
    }
}
