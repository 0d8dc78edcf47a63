//! A network namespace.

use crate::command::{run, text_of};
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Namespaces of one process and purpose; more than that are leaks.
const NAMESPACES_MAX: u32 = 256;

/// Ours are called `bootlace-PID-PURPOSE-N`.
const PREFIX: &str = "bootlace";

/// A network namespace, removed with all that runs in it when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with nothing but loopback in it. Removes those of former runs that died.
    ///
    /// # Errors
    /// Not root, or the kernel has no network namespaces.
    pub fn create(purpose: &str) -> Result<Self> {
        remove_orphans();
        let pid = std::process::id();
        for index in 0..NAMESPACES_MAX {
            let name = format!("{PREFIX}-{pid}-{purpose}-{index}");
            if Path::new("/run/netns").join(&name).exists() {
                continue;
            }
            match run(Command::new("ip").args(["netns", "add", &name])) {
                Ok(()) => {
                    let namespace = Self { name };
                    namespace.ip("link set lo up")?;
                    return Ok(namespace);
                }
                // Another thread was faster.
                Err(error) if error.to_string().contains("File exists") => {}
                Err(error) => return Err(error).context("can't make a network namespace"),
            }
        }
        bail!("there are {NAMESPACES_MAX} network namespaces {PREFIX}-{pid}-{purpose}-*")
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside. It gets `at_our_end` when the thread that starts it ends, so
    /// that nothing outlives a run that was killed.
    pub fn command(&self, program: impl AsRef<Path>, at_our_end: Signal) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", at_our_end.as_str().trim_start_matches("SIG")]);
        command.args(["ip", "netns", "exec", &self.name]);
        command.arg(program.as_ref());
        command
    }

    /// Does something in a thread that is inside. What it opens stays there.
    ///
    /// # Errors
    /// The namespace is gone, or the work fails.
    ///
    /// # Panics
    /// As the work does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let netns = Path::new("/run/netns").join(&self.name);
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` inside, with the words of `arguments`.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let words = arguments.split_ascii_whitespace();
        run(Command::new("ip").args(["-n", &self.name]).args(words))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    // All that runs in it was started by us: the namespace is ours.
    let listed = text_of(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in listed.lines().filter_map(|line| line.trim().parse().ok()) {
        // An error means that it has ended by now.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = run(Command::new("ip").args(["netns", "del", name]));
}

/// Removes namespaces whose process is gone.
fn remove_orphans() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut words = name.split('-');
        let is_ours = words.next() == Some(PREFIX);
        let pid = words.next().and_then(|word| word.parse::<u32>().ok());
        if let (true, Some(pid)) = (is_ours, pid)
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            remove(&name);
        }
    }
}
