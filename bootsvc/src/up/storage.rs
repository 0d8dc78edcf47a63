//! The storage server's process: started here, or found running.

use crate::boot_socket;
use crate::state_lock::Wait;
use anyhow::{Context, bail};
use model::{StorageHealth, StorageStarter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// How long the storage server may take to start; it restores its exports first.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long it may take to answer one question; then it is asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How long it may take to stop before it is killed; it finishes requests and flushes.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// How often it is looked whether a storage server serves already, or has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// How the storage server is started.
pub(super) struct Storage {
    pub(super) root: PathBuf,
    pub(super) verbose: u8,
    pub(super) socket: PathBuf,
    /// Where the boot server of this root answers.
    pub(super) boot_socket: PathBuf,
    /// What a storage server has that is the same program with the same settings.
    pub(super) identity: String,
}

/// A storage server that runs.
pub(super) enum Running {
    /// Ours: it ends with us.
    Child(Child),
    /// It ran before us, and goes on after us.
    Found(Found),
}

/// Who answers where the storage server does.
enum Serving {
    Nobody,
    Found(Found),
    /// The one of a `bootlace up` that lives; which, if that is known.
    OfUp(Option<Pid>),
}

/// A storage server that somebody else has started.
pub(super) struct Found {
    pid: Pid,
    process: OwnedFd,
    /// A `bootlace up` had started it and has died, so that nobody else looks after it.
    pub(super) is_left_over: bool,
    /// It is another program, or has other settings, than what we would start.
    pub(super) is_another: bool,
    version: String,
}

impl Storage {
    /// The storage server that serves, or one that is started now.
    ///
    /// # Errors
    /// It does not start, or another `bootlace up` has one.
    pub(super) async fn find_or_start(&self) -> anyhow::Result<Running> {
        match self.find().await? {
            Some(found) => Ok(Running::Found(found)),
            None => self.start().await.map(Running::Child),
        }
    }

    /// The one that serves. That of a `bootlace up` which was stopped ends with it: that is waited for.
    async fn find(&self) -> anyhow::Result<Option<Found>> {
        let mut wait = Wait::new();
        loop {
            let up = match self.look().await? {
                Serving::Nobody => return Ok(None),
                Serving::Found(found) => return Ok(Some(found)),
                Serving::OfUp(up) => name(up),
            };
            // Its boot server stops first.
            if wait.is_over() || boot_socket::is_answered(&self.boot_socket) {
                bail!("bootlace up is running already ({up})");
            }
            if wait.is_to_be_told() {
                tracing::warn!(up, "waiting for the bootlace up that was stopped");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn look(&self) -> anyhow::Result<Serving> {
        let Some((health, listener)) = self.ask().await else { return Ok(Serving::Nobody) };
        // One of an older release does not tell its process, which has opened the socket itself if not systemd has.
        let listener = listener.filter(|&pid| is_bootlace(pid));
        let pid = health.pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).or(listener);
        let pid = pid.with_context(|| {
            format!(
                "a storage server answers at {}, but not which process it is: stop it first",
                self.socket.display()
            )
        })?;
        let parent = parent(pid);
        let is_left_over = match health.started_by {
            Some(StorageStarter::Service) => false,
            Some(StorageStarter::DeadUp) => true,
            Some(StorageStarter::Up) => return Ok(Serving::OfUp(parent)),
            None if parent.is_some_and(is_bootlace) => return Ok(Serving::OfUp(parent)),
            None => true,
        };
        let process = pidfd_open(pid, PidfdFlags::empty()).with_context(|| {
            format!("can't look after the storage server ({})", name(Some(pid)))
        })?;
        let is_another = health.identity != self.identity;
        let version = health.version;
        Ok(Serving::Found(Found { pid, process, is_left_over, is_another, version }))
    }

    /// Starts the process and waits until it answers.
    pub(super) async fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("can't find this program")?;
        let mut command = Command::new(program);
        command.arg("--root").arg(&self.root).arg("storage");
        command.arg("--started-by-up").arg(std::process::id().to_string());
        command.args((0..self.verbose).map(|_| "-v"));
        // Sockets that somebody handed us are ours, not the child's.
        command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().context("can't start the storage server")?;
        let answers = async {
            while self.ask().await.is_none() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            ended = child.wait() => {
                bail!("the storage server did not start ({}); it says why above", ended?)
            }
            () = tokio::time::sleep(START_DEADLINE) => {
                bail!("the storage server did not answer within {} s", START_DEADLINE.as_secs())
            }
            () = answers => Ok(child),
        }
    }

    /// Which storage server serves, and who listens. Its socket alone says little: it is there before the ports are
    /// had, and stays after a crash.
    async fn ask(&self) -> Option<(StorageHealth, Option<Pid>)> {
        let ask = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let listener = stream.peer_cred()?.pid().and_then(Pid::from_raw);
            stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
            let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
            io::Result::Ok((serde_json::from_str(body)?, listener))
        };
        tokio::time::timeout(ANSWER_DEADLINE, ask).await.ok()?.ok()
    }
}

impl Running {
    /// Waits until it has died; how.
    pub(super) async fn died(&mut self) -> String {
        match self {
            Self::Child(child) => child
                .wait()
                .await
                .map_or_else(|error| error.to_string(), |status| status.to_string()),
            Self::Found(found) => {
                found.ended().await;
                "how is not known, as it ran before".to_owned()
            }
        }
    }

    /// Ends it, whoever has started it.
    pub(super) async fn end(self) -> io::Result<()> {
        match self {
            Self::Child(mut child) => {
                if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
                    let _ = rustix::process::kill_process(pid, Signal::TERM);
                }
                match tokio::time::timeout(STOP_DEADLINE, child.wait()).await {
                    Ok(_) => Ok(()),
                    Err(_) => {
                        tracing::warn!("the storage server did not stop in time; killing it");
                        child.kill().await
                    }
                }
            }
            Self::Found(found) => {
                let signal = |signal| pidfd_send_signal(&found.process, signal);
                signal(Signal::TERM)?;
                if tokio::time::timeout(STOP_DEADLINE, found.ended()).await.is_err() {
                    tracing::warn!("the storage server did not stop in time; killing it");
                    signal(Signal::KILL)?;
                    found.ended().await;
                }
                Ok(())
            }
        }
    }
}

impl Found {
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// What it is, in comparison to us.
    pub(super) fn kind(&self) -> String {
        match (self.is_another, self.version.as_str()) {
            (false, _) => "the same program with the same settings".to_owned(),
            (true, "") => "of an older release".to_owned(),
            (true, env!("CARGO_PKG_VERSION")) => {
                "another program, or has other settings".to_owned()
            }
            (true, version) => format!("of release {version}"),
        }
    }

    /// Waits until the process has ended: then its descriptor can be read (pidfd_open(2)).
    async fn ended(&self) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut process = [PollFd::new(&self.process, PollFlags::IN)];
            if poll(&mut process, Some(&at_once)).is_ok_and(|n_ready| n_ready > 0) {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// What a storage server that is started with this has in common with others of the same program.
///
/// # Errors
/// The program can't be looked at.
pub(crate) fn identity(settings: &storage::Config) -> anyhow::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    // An upgrade puts another file in the place of the program, whatever its release is called.
    let program = std::fs::metadata("/proc/self/exe").context("can't look at this program")?;
    let file = (program.dev(), program.ino(), program.mtime(), program.mtime_nsec());
    let storage::Config { handed: _, who: _, images, layers, volatile, table, socket, .. } =
        settings;
    let storage::Config { nbd, nbd_tls, aoe_interfaces, aoe_meanwhile, .. } = settings;
    let storage::Config { aoe_mac, layer_max_bytes, .. } = settings;
    let places = (images, layers, volatile, table, socket);
    let served = (nbd, nbd_tls, aoe_interfaces, aoe_meanwhile, aoe_mac, layer_max_bytes);
    let all = format!("{} {file:?} {places:?} {served:?}", env!("CARGO_PKG_VERSION"));
    Ok(blake3::hash(all.as_bytes()).to_hex().to_string())
}

fn name(pid: Option<Pid>) -> String {
    pid.map_or("process unknown".to_owned(), |pid| format!("process {}", pid.as_raw_pid()))
}

fn parent(pid: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}

fn is_bootlace(pid: Pid) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()));
    name.is_ok_and(|name| name.trim() == "bootlace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    fn storage(root: &std::path::Path) -> Storage {
        Storage {
            root: root.to_owned(),
            verbose: 0,
            socket: root.join("storage.sock"),
            boot_socket: root.join("boot.sock"),
            identity: String::new(),
        }
    }

    /// Answers so often as the storage server of a `bootlace up` that lives.
    fn answer_of_up(socket: &std::path::Path, n_answers: usize) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let health = StorageHealth {
            pid: Some(std::process::id()),
            started_by: Some(StorageStarter::Up),
            ..StorageHealth::default()
        };
        let body = serde_json::to_string(&health).unwrap();
        std::thread::spawn(move || {
            for _ in 0..n_answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]).unwrap();
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
            }
        })
    }

    #[tokio::test]
    async fn an_up_that_ends_is_waited_for_and_one_that_serves_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path());
        let ending = answer_of_up(&storage.socket, 5);
        assert!(storage.find().await.unwrap().is_none());
        ending.join().unwrap();
        std::fs::remove_file(&storage.socket).unwrap();

        let serving = answer_of_up(&storage.socket, 1);
        let _boot = UnixListener::bind(&storage.boot_socket).unwrap();
        let error = storage.find().await.err().unwrap().to_string();
        assert!(error.starts_with("bootlace up is running already (process "), "{error}");
        serving.join().unwrap();
    }
}
