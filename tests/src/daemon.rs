//! A server program in the background.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to stop on SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(50);

/// Lines of the log that errors show.
const TAIL_LINES: usize = 40;

/// A program that runs until it is dropped; what it says goes to a file.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the program. Its standard input stays as set in `command`.
    ///
    /// # Errors
    /// It can't be started, or the log can't be written.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        // Ctrl-C at the terminal is for us; we stop our servers in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("can't start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Starts a server that has no standard input.
    ///
    /// # Errors
    /// The program can't be started, or its log can't be written.
    pub fn start_detached(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        Self::start(name, command.stdin(Stdio::null()), log)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it ended by itself, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the log contains this.
    ///
    /// # Errors
    /// It does not in time, or the program ends; the error shows the end of the log.
    pub fn wait_for_log(&mut self, text: &str, timeout: Duration) -> Result<()> {
        self.wait_until(&format!("say {text:?}"), timeout, |daemon| daemon.log().contains(text))
    }

    /// Waits until `is_done`; `what` completes the sentence "the server does not …".
    ///
    /// # Errors
    /// It is not in time, or the program ends; the error shows the end of the log.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut is_done: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !is_done(self) {
            let name = &self.name;
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended ({status}). The log's end:\n{}", self.tail());
            }
            if Instant::now() > deadline {
                let seconds = timeout.as_secs();
                bail!("{name} did not {what} in {seconds} s. The log's end:\n{}", self.tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// It does not stop within 15 s (it is killed then), or fails.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        if !status.success() {
            bail!("{} failed ({status}). The log's end:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Kills it, as a crash or a power cut would: nothing is finished.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} does not stop. The log's end:\n{}", self.name, self.tail());
            }
            std::thread::sleep(POLL);
        }
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // In a test that fails, its log often has the reason.
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.tail());
        }
        let _ = self.end();
    }
}
