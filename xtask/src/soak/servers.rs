//! Both servers: as `bootlace up`, or as `serve` and `storage`.

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Site, text_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;
use std::time::{Duration, Instant};

/// What each server takes at most, and how many descriptors.
const MEMORY_MAX: u64 = 128 << 20;
const DESCRIPTORS_MAX: usize = 256;

/// Longest time that an ended process, or a new storage server, is waited for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Nobody is there for so long, after which no copy of a frame is on its way any more.
pub(super) const AWAY: Duration = Duration::from_secs(1);

/// The servers of the soak.
pub(super) struct Servers<'a> {
    site: &'a Site,
    /// `up`, or `serve`.
    boot: Option<Daemon>,
    /// Only beside `serve`.
    storage: Option<Daemon>,
    /// The most that was seen: memory and descriptors of the boot server, and of the storage server.
    pub(super) most: [(u64, usize); 2],
}

impl<'a> Servers<'a> {
    /// Starts `up`.
    pub(super) fn start(site: &'a Site) -> Result<Self> {
        Ok(Self { site, boot: Some(site.up()?), storage: None, most: [(0, 0); 2] })
    }

    /// Ends the boot server, and starts it again.
    pub(super) fn end_boot(&mut self, signal: Signal) -> Result<()> {
        self.end_boot_only(signal)?;
        std::thread::sleep(AWAY);
        self.start_boot()
    }

    /// Ends the storage server, and has it started again.
    pub(super) fn end_storage(&mut self, signal: Signal) -> Result<()> {
        self.end_storage_only(signal)?;
        std::thread::sleep(AWAY);
        self.start_storage()
    }

    /// Ends both, does something, and starts them again.
    pub(super) fn end_both(
        &mut self,
        signal: Signal,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.end_boot_only(signal)?;
        self.end_storage_only(signal)?;
        std::thread::sleep(AWAY);
        meanwhile()?;
        self.start_storage()?;
        self.start_boot()
    }

    /// Stops both, and starts them in the other arrangement.
    pub(super) fn rearrange(&mut self) -> Result<()> {
        self.end_boot_only(Signal::SIGTERM)?;
        let was_up = self.storage.is_none();
        self.end_storage_only(Signal::SIGTERM)?;
        std::thread::sleep(AWAY);
        if was_up {
            self.storage = Some(self.site.storage()?);
            self.boot = Some(self.site.serve()?);
        } else {
            self.storage = None;
            self.boot = Some(self.site.up()?);
        }
        Ok(())
    }

    /// Stops both for good.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end_boot_only(Signal::SIGTERM)?;
        self.end_storage_only(Signal::SIGTERM)?;
        self.check_logs()
    }

    pub(super) fn arrangement(&self) -> &'static str {
        if self.storage.is_some() { "serve, storage" } else { "up" }
    }

    /// Nothing has panicked, both run, and take no more than they may.
    pub(super) fn check(&mut self) -> Result<()> {
        self.check_logs()?;
        let boot = self.boot.as_ref().context("no boot server")?.id();
        let deadline = Instant::now() + TIMEOUT;
        let storage = loop {
            if let Some(id) = self.storage_id()? {
                break id;
            }
            ensure!(Instant::now() < deadline, "there is no storage server:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        };
        for (index, (name, id)) in [("boot", boot), ("storage", storage)].into_iter().enumerate() {
            let memory = memory(id).with_context(|| format!("the {name} server is gone"))?;
            let descriptors = std::fs::read_dir(format!("/proc/{id}/fd"))?.count();
            ensure!(memory <= MEMORY_MAX, "the {name} server takes {} MiB", memory >> 20);
            ensure!(
                descriptors <= DESCRIPTORS_MAX,
                "the {name} server has {descriptors} descriptors"
            );
            let (most_memory, most_descriptors) = self.most[index];
            self.most[index] = (most_memory.max(memory), most_descriptors.max(descriptors));
        }
        Ok(())
    }

    /// The ends of both logs.
    pub(super) fn logs(&self) -> String {
        let tail = |(name, log): (&str, String)| {
            let lines: Vec<&str> = log.lines().collect();
            format!("{name}:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        self.all_logs().map(tail).join("\n")
    }

    fn all_logs(&self) -> [(&'static str, String); 2] {
        ["bootlace.log", "storage.log"].map(|name| {
            let log = std::fs::read(self.site.root().join(name)).unwrap_or_default();
            (name, String::from_utf8_lossy(&log).into_owned())
        })
    }

    fn check_logs(&self) -> Result<()> {
        for (name, log) in self.all_logs() {
            let panic = log.lines().skip_while(|line| !line.contains("panicked at"));
            let panic: Vec<&str> = panic.take(5).collect();
            ensure!(panic.is_empty(), "{name} tells of a panic: {}", panic.join("\n"));
        }
        Ok(())
    }

    fn start_boot(&mut self) -> Result<()> {
        let started = if self.storage.is_some() { self.site.serve() } else { self.site.up() };
        self.boot = Some(started?);
        Ok(())
    }

    fn start_storage(&mut self) -> Result<()> {
        // `up` does it itself.
        if self.storage.is_some() {
            self.storage = Some(self.site.storage()?);
        }
        Ok(())
    }

    fn end_boot_only(&mut self, signal: Signal) -> Result<()> {
        let Some(daemon) = self.boot.take() else { return Ok(()) };
        if signal == Signal::SIGKILL {
            daemon.kill()?
        } else {
            daemon.stop()?
        }
        self.check_logs()
    }

    fn end_storage_only(&mut self, signal: Signal) -> Result<()> {
        let Some(id) = self.storage_id()? else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(id)?);
        // It may have ended with `up`.
        let _ = kill(pid, signal);
        let deadline = Instant::now() + TIMEOUT;
        while self.storage_id()? == Some(id) {
            ensure!(Instant::now() < deadline, "the storage server does not end:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.check_logs()
    }

    /// The storage server's process, whoever has started it.
    fn storage_id(&self) -> Result<Option<u32>> {
        let pids = ["netns", "pids", self.site.lan().netns().name()];
        let pids = text_of(Command::new("ip").args(pids))?;
        let is_it = |id: &u32| {
            let said = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            said.split(|&byte| byte == 0).any(|word| word == b"storage")
        };
        Ok(pids.lines().filter_map(|line| line.trim().parse().ok()).find(is_it))
    }
}

/// What a process takes now.
fn memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}
