//! What is read of folders of jobs, whoever has written there.

use super::*;
use crate::clock::Clock;
use images::Stop;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::os::unix::fs::symlink;

fn jobs() -> (tempfile::TempDir, Jobs) {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::in_folder(folder.path().join("jobs"));
    (folder, jobs)
}

fn begin(jobs: &Jobs, what: &str) -> Worker {
    let new = NewJob { kind: JobKind::ImageImport, what: what.to_owned(), by: "root".to_owned() };
    jobs.begin(new, Clock::system(), &Stop::default()).unwrap()
}

fn states(jobs: &Jobs) -> Vec<(u64, JobState)> {
    jobs.list().into_iter().map(|job| (job.number, job.state)).collect()
}

#[test]
fn a_job_runs_as_long_as_its_process_and_keeps_its_end() {
    let (_folder, jobs) = jobs();
    assert!(jobs.list().is_empty());
    let (mut first, second) = (begin(&jobs, "a"), begin(&jobs, "b"));
    assert_eq!(states(&jobs), [(2, JobState::Running), (1, JobState::Running)]);
    first.on_progress("copying", 30, 100);
    let progress = jobs.get(1).unwrap().progress.unwrap();
    assert_eq!((progress.step.as_str(), progress.percent()), ("copying", 30));
    first.log("one\nline");
    assert_eq!(jobs.log(1), "one line\n");
    first.end(JobState::Done, "imported");
    // Killed, or switched off.
    drop(second);
    assert_eq!(states(&jobs), [(2, JobState::Died), (1, JobState::Done)]);
    let settled = jobs.settle(Clock::system().now());
    assert_eq!(settled.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
    assert!(jobs.settle(Clock::system().now()).is_empty(), "it is said once");
    let died = jobs.get(2).unwrap();
    assert!(died.told.unwrap().contains("without a word") && died.ended_unix_ms.is_some());
    assert!(matches!(jobs.get(3), Err(JobError::Missing(3))));
}

#[test]
fn how_long_it_takes_on_is_told_by_the_rate_of_its_step() {
    let read = |done_bytes, total_bytes, step_ms| {
        let step = "copying".to_owned();
        let progress = JobProgress::from(Progress { step, done_bytes, total_bytes, step_ms });
        (progress.percent(), progress.bytes_per_second, progress.seconds_left)
    };
    assert_eq!(read(1000, 3000, 2000), (33, Some(500), Some(4)));
    assert_eq!(read(0, 3000, 2000), (0, None, None));
    assert_eq!(read(5, 10, 0), (50, None, None));
    // What nobody has written who means well.
    assert_eq!(read(u64::MAX, 10, 1), (100, Some(10_000), Some(0)));
    assert_eq!(read(u64::MAX, u64::MAX, 1), (100, None, None));
    assert_eq!(read(3, 0, u64::MAX), (0, None, None));
}

#[test]
fn a_cancel_tells_who_works_and_another_one_changes_nothing() {
    let (_folder, jobs) = jobs();
    let stop = Stop::default();
    let new = NewJob { kind: JobKind::ImageVerify, what: String::new(), by: "x".to_owned() };
    let worker = jobs.begin(new, Clock::system(), &stop).unwrap();
    jobs.cancel(1, "anna").unwrap();
    jobs.cancel(1, "tom").unwrap();
    let is_told = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        stop.is_stopping()
    });
    assert!(is_told);
    assert_eq!(worker.cancelled_by().as_deref(), Some("anna"));
    worker.end(JobState::Cancelled, "cancelled by anna");
    assert!(matches!(jobs.cancel(1, "tom"), Err(JobError::HasEnded { number: 1, .. })));
    assert!(matches!(jobs.cancel(2, "tom"), Err(JobError::Missing(2))));
}

#[test]
fn only_the_newest_ends_are_kept_and_what_runs_is() {
    let (_folder, jobs) = jobs();
    let running = begin(&jobs, "runs");
    for _ in 0..ENDED_JOBS_MAX + 5 {
        begin(&jobs, "x").end(JobState::Done, "");
    }
    jobs.settle(Clock::system().now());
    let left = states(&jobs);
    assert_eq!(left.len(), ENDED_JOBS_MAX + 1);
    assert_eq!(left.last(), Some(&(1, JobState::Running)));
    assert_eq!(left[0].0, ENDED_JOBS_MAX as u64 + 6);
    drop(running);
}

#[test]
fn a_log_has_an_end() {
    let (_folder, jobs) = jobs();
    let mut worker = begin(&jobs, "x");
    for _ in 0..3000 {
        worker.log(&"x".repeat(99));
    }
    let log = jobs.log(1);
    assert!(log.len() > 60_000 && log.len() <= files::LOG_BYTES_MAX + files::LOG_END.len());
    assert!(log.ends_with(files::LOG_END));
}

#[test]
fn a_folder_may_hold_anything() {
    let (_folder, jobs) = jobs();
    let root = jobs.folder.clone();
    let pipe = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
    for (number, content) in
        [(1, &b""[..]), (2, b"{}"), (3, b"\xff\xfe"), (4, b"[[[[[[[[["), (5, &[b'1'; 40_000])]
    {
        let folder = root.join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        for file in [ABOUT, PROGRESS, END, LOG, CANCEL] {
            fs::write(folder.join(file), content).unwrap();
        }
    }
    // Pipes, at which one could wait for ever; links; folders in place of files.
    for file in [ABOUT, LOCK, PROGRESS, END, LOG] {
        fs::create_dir_all(root.join("6")).unwrap();
        pipe(&root.join("6").join(file)).unwrap();
        fs::create_dir_all(root.join("7").join(file)).unwrap();
        fs::create_dir_all(root.join("8")).unwrap();
        symlink("/etc/passwd", root.join("8").join(file)).unwrap();
    }
    // Names that are no numbers of ours.
    for name in ["007", "+9", "-1", "x", "18446744073709551615", "99999999999999999999"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    symlink("/etc", root.join("9")).unwrap();
    fs::write(root.join("10"), "").unwrap();
    fs::write(root.join("11"), "").unwrap();
    let unreadable: Vec<_> = (1..=8).rev().map(|number| (number, JobState::Unreadable)).collect();
    assert_eq!(states(&jobs), unreadable);
    for number in 1..=8 {
        jobs.log(number);
        jobs.cancel(number, "anna").unwrap_err();
    }
    assert!(jobs.settle(Clock::system().now()).is_empty());
    let worker = begin(&jobs, "fine");
    assert_eq!(worker.number(), 12, "what has the name already is passed over");
    // Ends that no job of ours has.
    for end in ["{\"state\":\"running\",\"at_unix_ms\":1,\"told\":\"x\"}", "garbage", ""] {
        let folder = root.join("12");
        fs::write(folder.join(END), end).unwrap();
        assert_eq!(states(&jobs)[0], (12, JobState::Running));
    }
    drop(worker);
    assert_eq!(states(&jobs)[0], (12, JobState::Died));
}

fn order(jobs: &Jobs, file: &str) -> u64 {
    let order = ImportOrder {
        file: file.to_owned(),
        image: "debian".parse().unwrap(),
        note: None,
        state: VersionState::Released,
        removes_file: false,
        fixes: false,
    };
    jobs.order(Order::Import(order), "anna", Clock::system().now()).unwrap()
}

#[test]
fn what_is_ordered_waits_and_is_begun_once_more_after_an_interruption() {
    let (_folder, jobs) = jobs();
    let (first, second) = (order(&jobs, "a"), order(&jobs, "b"));
    assert_eq!(states(&jobs), [(second, JobState::Waiting), (first, JobState::Waiting)]);
    assert_eq!(jobs.next_order(), Some(first));
    let take = |number| jobs.take(number, Clock::system(), &Stop::default());
    let (worker, taken) = take(first).unwrap();
    let Order::Import(taken) = taken else { panic!("{taken:?}") };
    assert_eq!((taken.file.as_str(), jobs.next_order()), ("a", None), "one after the other");
    take(first).unwrap_err();
    drop(worker);
    assert!(jobs.settle(Clock::system().now()).is_empty());
    assert_eq!(jobs.next_order(), Some(first));
    drop(take(first).unwrap());
    // Then it is said, and the next one's turn.
    assert_eq!(jobs.settle(Clock::system().now()).len(), 1);
    assert_eq!(jobs.next_order(), Some(second));
    take(first).unwrap_err();
    // One that waits ends at once when it is cancelled.
    jobs.cancel(second, "tom").unwrap();
    jobs.settle(Clock::system().now());
    assert_eq!(states(&jobs), [(second, JobState::Cancelled), (first, JobState::Died)]);
    assert_eq!(jobs.next_order(), None);
    take(second).unwrap_err();
    // One that does not even begin is not begun for ever.
    let third = order(&jobs, "c");
    (0..BEGINS_MAX).for_each(|_| jobs.note_begin(third).unwrap());
    assert_eq!(jobs.next_order(), None);
    // Nor one of which nobody knows how often it has.
    let fourth = order(&jobs, "d");
    fs::write(jobs.path(fourth).join(BEGINS), "-1").unwrap();
    assert_eq!(jobs.next_order(), None);
    // Not by whoever does not mean it for the boot server.
    drop(begin(&jobs, "of a command"));
    assert_eq!(states(&jobs)[0].1, JobState::Died);
}

#[test]
fn only_so_many_orders_wait() {
    let (_folder, jobs) = jobs();
    for _ in 0..WAITING_MAX {
        order(&jobs, "a");
    }
    let one_more = ImportOrder {
        file: "a".to_owned(),
        image: "debian".parse().unwrap(),
        note: None,
        state: VersionState::Released,
        removes_file: false,
        fixes: false,
    };
    let refused = jobs.order(Order::Import(one_more), "anna", Clock::system().now());
    assert!(matches!(refused, Err(JobError::TooMany)));
}
