//! `bootlace up`: the storage server as a child process, and the boot server here.

use crate::config::Config;
use crate::paths::Paths;
use crate::serve;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long the storage server may take to start; it restores its exports first.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long it may take to answer one question; then it is asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How long it may take to stop before it is killed; it finishes requests and flushes.
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// Deaths of the storage server that the boot server was not told of yet.
const DEATHS_MAX: usize = 4;

/// Longest wait before a storage server that died is started again.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn run(
    paths: &Paths,
    config: &Config,
    root: &Path,
    verbose: u8,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let storage = Storage { root: root.to_owned(), verbose, socket: paths.storage_socket() };
    if storage.answers().await {
        bail!(
            "a storage server is already running at {}: stop it first, or start only the boot server with \
             bootlace serve",
            storage.socket.display()
        );
    }
    let child = storage.start().await?;
    // The boot server stops first, so that no boot begins without its disk.
    let storage_stop = CancellationToken::new();
    let (deaths, storage_deaths) = mpsc::channel(DEATHS_MAX);
    let keeper = tokio::spawn(keep(storage, child, deaths, storage_stop.clone()));
    let served = serve::run(paths, config, Some(storage_deaths), stop).await;
    storage_stop.cancel();
    keeper.await.context("the keeper of the storage server died")?;
    served
}

struct Storage {
    root: PathBuf,
    verbose: u8,
    socket: PathBuf,
}

impl Storage {
    /// Starts the process and waits until it answers.
    async fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("can't find this program")?;
        let mut command = Command::new(program);
        command.arg("--root").arg(&self.root).arg("storage");
        command.args((0..self.verbose).map(|_| "-v"));
        // Sockets that somebody handed us are ours, not the child's.
        command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().context("can't start the storage server")?;
        let answers = async {
            while !self.answers().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
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

    /// Whether a storage server serves. Its socket alone says little: it is there before the ports are
    /// had, and stays after a crash.
    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(b"GET /v1/health HTTP/1.0\r\n\r\n").await?;
            stream.read_u8().await
        };
        matches!(tokio::time::timeout(ANSWER_DEADLINE, ask).await, Ok(Ok(_)))
    }
}

/// Starts the storage server again whenever it dies, until `stop`; then stops it.
async fn keep(
    storage: Storage,
    mut child: Child,
    deaths: mpsc::Sender<String>,
    stop: CancellationToken,
) {
    let mut wait = Duration::from_secs(1);
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return end(child).await,
            ended = child.wait() => ended,
        };
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(status, "the storage server died; restarting it");
        // If so many wait to be told, one more is no news.
        let _ = deaths.try_send(status);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match storage.start().await {
                Ok(again) => {
                    child = again;
                    wait = Duration::from_secs(1);
                    break;
                }
                Err(error) => {
                    wait = (wait * 2).min(RESTART_WAIT_MAX);
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the storage server could not be restarted"
                    );
                }
            }
        }
    }
}

async fn end(mut child: Child) {
    if let Some(id) = child.id() {
        let id = nix::unistd::Pid::from_raw(id as i32);
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!("the storage server did not stop in time; killing it");
        let _ = child.kill().await;
    }
}
