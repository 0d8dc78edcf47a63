//! `bootlace up`: the storage server as a child process, and the boot server here.

mod storage;

pub(crate) use storage::identity;

use crate::config::Config;
use crate::net::Handed;
use crate::paths::Paths;
use crate::serve;
use ::storage::Config as StorageConfig;
use anyhow::Context;
use std::path::Path;
use std::time::Duration;
use storage::{Running, Storage};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Deaths of the storage server that the boot server was not told of yet.
const DEATHS_MAX: usize = 4;

/// First and longest wait before a storage server that died is started again.
const RESTART_WAIT: Duration = Duration::from_secs(1);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn run(
    paths: &Paths,
    config: &Config,
    settings: &StorageConfig,
    (root, verbose): (&Path, u8),
    handed: Vec<Handed>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let identity = identity(settings)?;
    let socket = paths.storage_socket();
    let boot_socket = paths.boot_socket();
    let storage = Storage { root: root.to_owned(), verbose, socket, boot_socket, identity };
    let running = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        running = storage.find_or_start() => running?,
    };
    if let Running::Found(found) = &running {
        let (pid, kind) = (found.pid(), found.kind());
        tracing::info!(pid, "a storage server runs already, and is used; it is {kind}");
    }
    // The boot server stops first, so that no boot begins without its disk.
    let storage_stop = CancellationToken::new();
    let (deaths, storage_deaths) = mpsc::channel(DEATHS_MAX);
    let (ready, serves) = oneshot::channel();
    let keeper = tokio::spawn(keep(storage, running, serves, deaths, storage_stop.clone()));
    let ready = || {
        let _ = ready.send(());
    };
    let served = serve::run(paths, config, (handed, Some(storage_deaths)), ready, stop).await;
    storage_stop.cancel();
    keeper.await.context("the keeper of the storage server died")?;
    served
}

/// Starts the storage server again whenever it dies, until `stop`; then stops what was started here.
async fn keep(
    storage: Storage,
    mut running: Running,
    serves: oneshot::Receiver<()>,
    deaths: mpsc::Sender<String>,
    stop: CancellationToken,
) {
    // Not before the boot server serves: what keeps that from starting must not take disks away.
    tokio::select! {
        () = stop.cancelled() => return end(running).await,
        _ = serves => {}
    }
    if let Running::Found(found) = &running
        && found.is_another
    {
        let (pid, kind) = (found.pid(), found.kind());
        if found.is_left_over {
            tracing::info!(pid, "restarting the storage server, which is {kind}");
            if let Err(error) = running.end().await {
                tracing::error!(pid, %error, "the storage server can't be stopped: stop it, so that it is started again");
                return;
            }
            match start_again(&storage, Duration::ZERO, &stop).await {
                Some(child) => running = child,
                None => return,
            }
        } else {
            tracing::warn!(pid, "the storage server is {kind}: restart it where it is started");
        }
    }
    loop {
        let status = tokio::select! {
            () = stop.cancelled() => return end(running).await,
            status = running.died() => status,
        };
        if let Running::Found(found) = &running
            && !found.is_left_over
        {
            tracing::error!("the storage server ended; it must be started again where it was");
            return;
        }
        tracing::error!(status, "the storage server died; restarting it");
        // If so many wait to be told, one more is no news.
        let _ = deaths.try_send(status);
        match start_again(&storage, RESTART_WAIT, &stop).await {
            Some(child) => running = child,
            None => return,
        }
    }
}

/// Tries to start it until that is done; `None` at `stop`.
async fn start_again(
    storage: &Storage,
    mut wait: Duration,
    stop: &CancellationToken,
) -> Option<Running> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
        match storage.start().await {
            Ok(child) => return Some(Running::Child(child)),
            Err(error) => {
                wait = (wait * 2).clamp(RESTART_WAIT, RESTART_WAIT_MAX);
                tracing::error!(
                    error = format!("{error:#}"),
                    "the storage server could not be restarted"
                );
            }
        }
    }
}

/// Ends the storage server if we have started it.
async fn end(running: Running) {
    if let Running::Found(found) = &running {
        let pid = found.pid();
        tracing::info!(pid, "the storage server goes on: it ran before; kill {pid} stops it");
        return;
    }
    if let Err(error) = running.end().await {
        tracing::warn!(%error, "the storage server could not be stopped");
    }
}
