//! A program with tests that runs once.

use crate::build::without_ours;
use anyhow::{Context, Result};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What hangs is ended after this time. The longest tests take 5 minutes on two busy processors.
const TIME_MAX: Duration = Duration::from_secs(20 * 60);

/// How often a running job is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Units of the processor times in `/proc` (proc_pid_stat(5); `USER_HZ` of all machines of today).
const TICKS_PER_SECOND: f64 = 100.0;

/// How a test that can't run here begins its only line; `lab::require` writes it.
const SKIPPED: &str = "skipped: ";

/// What to run.
#[derive(Debug)]
pub(crate) struct Job {
    /// For people: `tests boot::uefi_pc_boots`, or `wire unit tests`.
    pub(crate) name: String,
    /// The program, and what it shall run.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The package's folder: tests may look for files in it.
    pub(crate) folder: PathBuf,
    /// Whether most of its time passes in QEMU PCs.
    pub(crate) is_long: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) n_passed: u64,
    pub(crate) n_failed: u64,
    /// Tests that can't run here, with the reason.
    pub(crate) skipped: Vec<String>,
    /// All that it said.
    pub(crate) output: String,
    pub(crate) took: Duration,
    /// Time that it and its children were at work on a processor.
    pub(crate) at_work: Duration,
}

impl Job {
    /// Runs it to its end, or to [`TIME_MAX`].
    pub(crate) fn run(self, environment: &[(&str, &OsStr)]) -> Result<Outcome> {
        let file = tempfile::NamedTempFile::new()?;
        let started = Instant::now();
        let mut child = self.start(file.as_file(), environment)?;
        let id = Pid::from_raw(child.id().try_into()?);
        let has_ended = wait(id, started + TIME_MAX)?;
        if !has_ended {
            child.kill()?;
            wait(id, Instant::now() + TIME_MAX)?;
        }
        let (took, at_work) = (started.elapsed(), at_work(id));
        let has_passed = child.wait()?.success();
        let mut output = String::from_utf8_lossy(&std::fs::read(file.path())?).into_owned();
        if !has_ended {
            output += &format!("\nended after {} s, since it hangs\n", TIME_MAX.as_secs());
        }
        let (n_passed, n_failed) = count(&output, has_passed);
        let skipped: Vec<String> = output
            .lines()
            .filter_map(|line| line.strip_prefix(SKIPPED))
            .map(str::to_owned)
            .collect();
        let n_passed = n_passed.saturating_sub(skipped.len() as u64);
        Ok(Outcome { name: self.name, n_passed, n_failed, skipped, output, took, at_work })
    }

    fn start(&self, output: &File, environment: &[(&str, &OsStr)]) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder).envs(environment.iter().copied());
        // The documentation's tests are run by cargo.
        without_ours(&mut command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        command.spawn().with_context(|| format!("can't start {}", self.program.display()))
    }
}

/// Waits until the child has ended, and leaves it to be asked how. `false` if it is still there then.
fn wait(id: Pid, deadline: Instant) -> Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(id), flags)? == WaitStatus::StillAlive {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

/// Processor time of a child that has ended, and of its children; zero if the kernel does not tell.
fn at_work(id: Pid) -> Duration {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat"));
    ticks(&stat.unwrap_or_default())
        .map_or(Duration::ZERO, |ticks| Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

/// Sum of `utime`, `stime`, `cutime` and `cstime`.
fn ticks(stat: &str) -> Option<u64> {
    // The name before may contain anything, even parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let times: Vec<u64> =
        fields.split(' ').skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum())
}

/// How many tests have passed and failed, by the lines in which programs with tests (and `cargo test`, which
/// runs several) sum up. One that fails without saying so counts as a failed test.
fn count(output: &str, has_passed: bool) -> (u64, u64) {
    let (mut n_passed, mut n_failed) = (0, 0);
    for line in output.lines().filter(|line| line.starts_with("test result: ")) {
        let number = |word: &str| {
            let before = line.split(word).next().filter(|before| before.len() < line.len())?;
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        n_passed += number(" passed;").unwrap_or(0);
        n_failed += number(" failed;").unwrap_or(0);
    }
    (n_passed, n_failed.max(u64::from(!has_passed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let text = "test result: ok. 31 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(count(text, false), (33, 1));
        assert_eq!(count("Segmentation fault", false), (0, 1));
        assert_eq!(count("", true), (0, 0));
    }

    #[test]
    fn processor_times_include_those_of_children() {
        let stat = "77 (a) b) Z 1 77 77 0 -1 4228 9 8 7 6 100 20 3000 400 20 0 1 0 5 0 0\n";
        assert_eq!(ticks(stat), Some(3520));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_job_tells_what_was_skipped_and_how_long_it_worked() {
        let job = |script: &str| Job {
            name: "job".to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            folder: "/".into(),
            is_long: false,
        };
        let skipping =
            "echo 'skipped: boot: no root' >&2; echo 'test result: ok. 2 passed; 0 failed; '";
        let outcome = job(skipping).run(&[]).unwrap();
        assert_eq!((outcome.n_passed, outcome.n_failed), (1, 0));
        assert_eq!(outcome.skipped, ["boot: no root"]);
        let busy =
            job("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3").run(&[]).unwrap();
        assert_eq!((busy.n_passed, busy.n_failed), (0, 1));
        assert!(busy.at_work > Duration::ZERO && busy.at_work <= busy.took * 2, "{busy:?}");
    }
}
