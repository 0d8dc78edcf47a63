//! `bootlace up|serve|storage|check`

use super::{advise, runtime};
use crate::check::Verdict;
use crate::config::{Config, ConfigError, NbdTls};
use crate::log::Ration;
use crate::net::holders::Holders;
use crate::net::{Handed, handed_sockets};
use crate::network::{Served, former_nbd_addresses, nbd_addresses, networks, storage_interfaces};
use crate::network_changes;
use crate::paths::Paths;
use crate::privileges::{Server, become_server, raise_descriptor_limit};
use crate::{check, serve, systemd, trial, up};
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use rustix::process::Pid;
use socket2::Socket;
use std::net::SocketAddr;
use std::path::Path;
use storage::{Listening, Who};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(super) fn serve(paths: &Paths, ration: Ration) -> anyhow::Result<()> {
    let config = Config::load(&paths.config())?;
    let holders = Holders::find(&serve::ports(&config));
    let handed = handed()?;
    begin(Server::Boot, paths, &config)?;
    let served =
        until_stopped(ration, |stop| serve::run(paths, &config, (handed, None), || (), stop));
    served.map_err(|error| holders.name_in(error))
}

/// As each server begins: before it has threads.
fn begin(server: Server, paths: &Paths, config: &Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    become_server(server, paths, config)
}

/// Sockets that whoever started us has opened.
fn handed() -> anyhow::Result<Vec<Handed>> {
    handed_sockets().context("can't take over the sockets in LISTEN_FDS")
}

/// What the storage server is told.
fn storage_settings(paths: &Paths, config: &Config, networks: &[Served]) -> storage::Config {
    let interfaces = config.storage.aoe_interfaces.clone().unwrap_or_else(|| {
        // No router passes on AoE.
        let own = networks.iter().filter(|it| !it.network.is_relayed);
        let own = own.map(|it| it.interface.as_str());
        let mut all: Vec<String> = Vec::new();
        for name in own.chain(storage_interfaces(networks).into_iter().map(|it| it.0)) {
            if all.iter().all(|it| it != name) {
                all.push(name.to_owned());
            }
        }
        all
    });
    let nbd = nbd_addresses(networks).into_iter().chain(former_nbd_addresses(config, networks));
    storage::Config {
        handed: Vec::new(),
        images: paths.images(),
        layers: paths.layers(),
        layer_max_bytes: config.storage.layer_max,
        snapshots_kept: config.storage.snapshots_kept,
        volatile: paths.run().join("layers"),
        table: paths.state().join("exports.toml"),
        socket: paths.storage_socket(),
        nbd: nbd.map(SocketAddr::V4).collect(),
        nbd_tls: config.storage.nbd_tls.as_ref().map(NbdTls::files),
        aoe_mac: config.storage.aoe_mac,
        // Who serves no AoE has none tried.
        aoe_meanwhile: (!interfaces.is_empty()).then(|| trial::INTERFACE.to_owned()),
        aoe_interfaces: interfaces,
        who: Who::default(),
    }
}

/// `up` is the process of `bootlace up`, if that has started this one.
pub(super) fn storage(paths: &Paths, up: Option<i32>, ration: Ration) -> anyhow::Result<()> {
    let config = Config::load(&paths.config())?;
    // Before anything is touched.
    networks(&config)?;
    begin(Server::Storage, paths, &config)?;
    let mut handed = handed()?;
    until_stopped(ration, async |stop| {
        loop {
            let networks = networks(&config)?;
            let mut settings = storage_settings(paths, &config, &networks);
            settings.handed = for_storage(handed, paths, &settings.nbd);
            settings.who = Who {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                identity: up::identity(&settings)?,
                up: up.and_then(Pid::from_raw),
            };
            let nbd = settings.nbd.clone();
            let mut sockets = Vec::new();
            let ready = |listening: Listening<'_>| {
                let kept = listening.nbd.iter().map(|socket| Handed::again(systemd::NBD, *socket));
                let api = Handed::again(systemd::STORAGE_API, listening.api);
                sockets.extend(kept.chain([api]).filter_map(Result::ok));
                systemd::keep(systemd::NBD, &listening.nbd);
                systemd::keep(systemd::STORAGE_API, &[listening.api]);
                tracing::info!(?nbd, "storage server ready");
                systemd::ready("storage server ready");
            };
            let places = network_changes::places(&networks);
            let in_storage = network_changes::storage_places(&networks);
            let turn = stop.child_token();
            {
                let served = storage::run(settings, ready, turn.clone().cancelled_owned());
                let mut served = std::pin::pin!(served);
                let change = tokio::select! {
                    biased;
                    done = &mut served => return Ok(done?),
                    change = network_changes::wait(&config, (&places, &in_storage), |_| ()) => change,
                };
                tracing::info!("{change}: the storage server begins anew");
                turn.cancel();
                served.await?;
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            handed = sockets;
        }
    })
}

/// Those of the sockets on which the storage server shall serve: what was kept from before a restart, as far as the
/// configuration and the folder for sockets are still the same, and what somebody else has opened for it.
fn for_storage(handed: Vec<Handed>, paths: &Paths, nbd: &[SocketAddr]) -> Vec<Socket> {
    let socket = paths.storage_socket();
    let is_wanted = |handed: &Handed| match handed.name.as_str() {
        systemd::NBD => nbd.iter().any(|address| handed.is_at(*address)),
        // Whose file is gone is reached by nobody.
        systemd::STORAGE_API => handed.is_on(&socket) && socket.exists(),
        _ => true,
    };
    handed.into_iter().filter(is_wanted).map(|handed| handed.socket).collect()
}

pub(super) fn up(paths: &Paths, root: &Path, verbose: u8, ration: Ration) -> anyhow::Result<()> {
    let config = Config::load(&paths.config())?;
    // A wrong network is reported once, by us, and not by the storage server too.
    let settings = storage_settings(paths, &config, &networks(&config)?);
    let holders = Holders::find(&serve::ports(&config));
    let handed = handed()?;
    begin(Server::Both, paths, &config)?;
    let served = until_stopped(ration, |stop| {
        up::run(paths, &config, &settings, (root, verbose), handed, stop)
    });
    served.map_err(|error| holders.name_in(error))
}

/// Runs a server until it is told to stop; the log says what is left out of it.
fn until_stopped(
    ration: Ration,
    server: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let told = tokio::spawn(ration.tell(stop.clone()));
        let served = server(stop.clone());
        let done = tokio::select! {
            biased;
            done = served => done,
            never = systemd::watchdog() => match never {},
        };
        stop.cancel();
        told.await.context("what the log leaves out is not told")?;
        done
    })
}

/// Fails as long as nothing is configured. What is wrong with a configuration is for the servers to say.
pub(super) fn check_configured(paths: &Paths) -> anyhow::Result<()> {
    match Config::load(&paths.config()) {
        Err(error @ ConfigError::Missing { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn check(paths: &Paths) -> anyhow::Result<()> {
    let findings = check::run(paths);
    let n_bad = findings.iter().filter(|finding| matches!(finding, Verdict::Wrong(_))).count();
    let n_unseen = findings.iter().filter(|it| matches!(it, Verdict::Unseen(_))).count();
    for finding in findings {
        advise(paths, &finding.line());
    }
    let wrong = match n_bad {
        0 => None,
        1 => Some("one thing must be fixed: bootlace does not start with it, or does not work as it should".to_owned()),
        _ => Some(format!(
            "{n_bad} things must be fixed: bootlace does not start with them, or does not work as it should"
        )),
    };
    let unseen = (n_unseen > 0).then(|| {
        format!("{n_unseen} of these could not be looked at as this user: check as root (sudo)")
    });
    let told: Vec<String> = wrong.into_iter().chain(unseen).collect();
    if !told.is_empty() {
        bail!(told.join(", and "));
    }
    Ok(())
}

/// Cancelled at the first SIGTERM or SIGINT, or when the terminal is closed.
pub(super) fn stop_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // nohup(1) has servers go on.
    let mut hang_up =
        (!is_ignored(Signal::SIGHUP)?).then(|| signal(SignalKind::hangup())).transpose()?;
    let token = stop.clone();
    tokio::spawn(async move {
        let hung_up = async {
            match &mut hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hung_up => "SIGHUP",
        };
        // First: the log may lead nowhere any more.
        token.cancel();
        tracing::info!("stopping ({why})");
    });
    Ok(stop)
}

/// Whether this process was started with the signal ignored.
fn is_ignored(signal: Signal) -> anyhow::Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("can't look at this process")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(mask & 1 << (signal as i32 - 1) != 0)
}
