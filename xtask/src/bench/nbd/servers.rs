//! The NBD servers that are measured, all with the same file.

use crate::bench::processes::{cpu_seconds, with_children};
use anyhow::{Context, Result};
use lab::{Daemon, Netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PORT: &str = "10809";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bootlace,
    Nbdkit,
    QemuNbd,
    NbdServer,
}

impl Kind {
    pub(super) const ALL: [Self; 4] =
        [Self::Bootlace, Self::Nbdkit, Self::QemuNbd, Self::NbdServer];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bootlace => "bootlace",
            Self::Nbdkit => "nbdkit-file",
            Self::QemuNbd => "qemu-nbd",
            Self::NbdServer => "nbd-server",
        }
    }
}

/// What all servers share.
pub(super) struct Ground {
    pub(super) netns: Netns,
    pub(super) folder: PathBuf,
    pub(super) image: PathBuf,
    pub(super) bootlace: PathBuf,
}

/// A server that runs.
pub(super) struct Server {
    process: Process,
    pub(super) uri: String,
}

enum Process {
    Child(Daemon),
    /// nbd-server can't stay in the foreground.
    Background(u32),
}

impl Server {
    pub(super) fn start(ground: &Ground, kind: Kind, over_unix: bool) -> Result<Self> {
        let socket = ground.folder.join("socket");
        let _ = std::fs::remove_file(&socket);
        let mut command = match kind {
            Kind::Bootlace => bootlace(ground, over_unix, &socket),
            Kind::Nbdkit => nbdkit(ground, over_unix, &socket),
            Kind::QemuNbd => qemu_nbd(ground, over_unix, &socket),
            Kind::NbdServer => nbd_server(ground, over_unix, &socket)?,
        };
        let process = if kind == Kind::NbdServer {
            lab::run(&mut command)?;
            Process::Background(read_pid(&ground.folder.join("pid"))?)
        } else {
            let log = ground.folder.join("log");
            Process::Child(Daemon::start_detached(kind.name(), &mut command, &log)?)
        };
        let uri = match over_unix {
            true => format!("nbd+unix:///lab?socket={}", socket.display()),
            false => format!("nbd://127.0.0.1:{PORT}/lab"),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut probe = ground.netns.command("nbdinfo", Signal::SIGKILL);
        probe.args(["--size", &uri]);
        while let Err(error) = lab::run(&mut probe) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("{} does not serve", kind.name()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { process, uri })
    }

    /// Processor time that it and its children, those that ended too, used so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    /// Memory of it and its children, in megabytes.
    pub(super) fn resident_mb(&self) -> Result<f64> {
        let mut kib = 0;
        for process in with_children(self.id()) {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            // Without the file itself, which they map or not.
            let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let number = anonymous.and_then(|text| text.split_whitespace().next());
            kib += number.context("no RssAnon")?.parse::<u64>()?;
        }
        Ok(kib as f64 * 1024.0 / 1e6)
    }

    fn id(&self) -> u32 {
        match &self.process {
            Process::Child(daemon) => daemon.id(),
            Process::Background(id) => *id,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Background(id) = self.process {
            let _ = i32::try_from(id).map(|id| kill(Pid::from_raw(id), Signal::SIGTERM));
            let deadline = Instant::now() + Duration::from_secs(5);
            while Path::new(&format!("/proc/{id}")).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The number in a file that may be written a moment later.
fn read_pid(path: &Path) -> Result<u32> {
    for _ in 0..100 {
        if let Ok(pid) = std::fs::read_to_string(path).unwrap_or_default().trim().parse() {
            std::fs::remove_file(path)?;
            return Ok(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("nbd-server wrote no {}", path.display())
}

fn bootlace(ground: &Ground, over_unix: bool, socket: &Path) -> Command {
    let mut command = ground.netns.command(&ground.bootlace, Signal::SIGKILL);
    command.arg("share").arg(&ground.image).args(["--name", "lab"]);
    match over_unix {
        true => command.arg("--nbd-unix").arg(socket),
        false => command.args(["--nbd", &format!("127.0.0.1:{PORT}")]),
    };
    command
}

fn nbdkit(ground: &Ground, over_unix: bool, socket: &Path) -> Command {
    let mut command = ground.netns.command("nbdkit", Signal::SIGKILL);
    command.arg("--foreground");
    match over_unix {
        true => command.arg("--unix").arg(socket),
        false => command.args(["--ipaddr", "127.0.0.1", "--port", PORT]),
    };
    command.arg("file").arg(&ground.image);
    command
}

fn qemu_nbd(ground: &Ground, over_unix: bool, socket: &Path) -> Command {
    let mut command = ground.netns.command("qemu-nbd", Signal::SIGKILL);
    command.args(["--persistent", "--shared=64", "--format=raw", "--export-name=lab"]);
    match over_unix {
        true => command.arg("--socket").arg(socket),
        false => command.args(["--bind=127.0.0.1", "--port", PORT]),
    };
    command.arg(&ground.image);
    command
}

fn nbd_server(ground: &Ground, over_unix: bool, socket: &Path) -> Result<Command> {
    let address = match over_unix {
        true => format!("unixsock = {}", socket.display()),
        false => format!("listenaddr = 127.0.0.1\nport = {PORT}"),
    };
    let text = format!("[generic]\n{address}\n[lab]\nexportname = {}\n", ground.image.display());
    let config = ground.folder.join("nbd-server.conf");
    std::fs::write(&config, text)?;
    let mut command = ground.netns.command("nbd-server", Signal::SIGKILL);
    command.arg("-C").arg(config).arg("-p").arg(ground.folder.join("pid"));
    Ok(command)
}
