//! The storage server: owns the write layers and exports disks over NBD and AoE.
//!
//! It keeps its own export table and comes back without the boot server, which drives it by the
//! storage API. The data plane runs on plain threads, so that no page or job can stall a disk.

mod admission;
mod allow;
mod aoe_target;
mod api;
mod boot_trace;
mod config;
mod descriptors;
mod error;
mod export;
mod failure;
mod hosts;
mod nbd_server;
mod pool;
mod share;
mod snapshot_api;
mod table;
mod tls;

pub use allow::{Allow, NotAllow};
pub use aoe_target::SocketError;
pub use config::{Config, Who};
pub use descriptors::{TooFewDescriptors, descriptors_for};
pub use error::Error;
pub use images::Durability;
pub use nbd_server::Address;
pub use share::{AoeAddress, Share, ShareConfig, ShareError, Writes};
pub use table::{ExportError, KeptDisks, kept_disks};
pub use tls::{Credentials, TlsConfig, TlsError, read_authorities};

use images::LayerError;
use socket2::{Domain, Socket};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Exports;

/// How long it is waited for a storage server that was stopped and has the layers still.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// How long nothing is said of that.
const QUIET: Duration = Duration::from_secs(1);

/// How often it is tried.
const TRY_INTERVAL: Duration = Duration::from_millis(100);

/// Sockets that listen, of a storage server that serves. Whoever duplicates them can hand them to its successor.
#[derive(Debug)]
pub struct Listening<'a> {
    /// NBD's.
    pub nbd: Vec<BorrowedFd<'a>>,
    /// The storage API's.
    pub api: BorrowedFd<'a>,
}

/// Runs the storage server until `stop` is done; `ready` is called when it serves.
///
/// Stopping finishes what was read and closes connections without an error reply: kernels go on
/// where they were when the server is back.
///
/// # Errors
/// Something can't be opened; nothing is served then.
pub async fn run(
    config: Config,
    ready: impl FnOnce(Listening<'_>),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let mut stop = Box::pin(stop);
    let Some(exports) = open_when_free(&config, stop.as_mut()).await? else { return Ok(()) };
    let exports = Arc::new(exports);
    descriptors::check(exports.count())?;
    let tls = Credentials::from(config.nbd_tls.clone())?;
    let is_local = |socket: &Socket| socket.domain().is_ok_and(|it| it == Domain::UNIX);
    let (for_api, for_nbd): (Vec<_>, Vec<_>) = config.handed.into_iter().partition(is_local);
    let api = match for_api.into_iter().next() {
        Some(socket) => api::Api::handed(socket).map_err(Error::Handed)?,
        None => api::Api::bind(&config.socket)?,
    };
    let mut nbd = nbd_server::NbdServer::new(admission(&exports), tls);
    let mut handed = Vec::new();
    for socket in for_nbd {
        handed.extend(socket.local_addr().map_err(Error::Handed)?.as_socket());
        nbd.listen_on(socket).map_err(Error::Handed)?;
    }
    for &address in config.nbd.iter().filter(|address| !is_covered(address, &handed)) {
        let address = Address::Tcp(address);
        nbd.listen(&address).map_err(|source| Error::Nbd { address, source })?;
    }
    let mut aoe = Vec::new();
    let mut awaited: Vec<&str> = config.aoe_meanwhile.iter().map(String::as_str).collect();
    for interface in &config.aoe_interfaces {
        match aoe_target::is_there(interface) {
            true => aoe.push(aoe_target::AoeTarget::start(interface, admission(&exports))?),
            false => {
                tracing::warn!(
                    interface,
                    "AoE is not served there yet: there is no such interface"
                );
                awaited.push(interface);
            }
        }
    }
    let await_it =
        |interface: &str| aoe_target::AwaitedTarget::start(interface, admission(&exports));
    let awaited = awaited.into_iter().map(await_it).collect::<Result<Vec<_>, _>>()?;
    ready(Listening { nbd: nbd.sockets(), api: api.as_fd() });
    let restoring = tokio::spawn(Arc::clone(&exports).restore_absent());
    let keeping = match config.snapshots_kept {
        0 => None,
        keep => Some(tokio::spawn(Arc::clone(&exports).keep_snapshots(keep))),
    };
    let merging = {
        let exports = Arc::clone(&exports);
        std::thread::spawn(move || exports.merge_all())
    };
    let served =
        api.serve(Arc::clone(&exports), nbd.counts(), config.who, stop).await.map_err(Error::Api);
    restoring.abort();
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
    // Threads are joined off the runtime: their last requests may wait for a disk.
    let stopped = tokio::task::spawn_blocking(move || {
        nbd.stop_accepting();
        exports.close();
        if merging.join().is_err() {
            tracing::error!("merging snapshots did not end cleanly");
        }
        drop(nbd);
        drop((aoe, awaited));
    });
    if let Err(error) = stopped.await {
        tracing::error!(%error, "the storage server did not stop cleanly");
    }
    served
}

/// Opens the layers, for which it waits while another storage server that serves nobody any more has them: it was
/// stopped, and finishes what was read. `None`: this one was stopped meanwhile.
async fn open_when_free(
    config: &Config,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Exports>, Error> {
    // A socket that was handed to us is there whoever serves on it.
    let has_api = config.handed.iter().any(|it| it.domain().is_ok_and(|it| it == Domain::UNIX));
    let is_ending = || has_api || UnixStream::connect(&config.socket).is_err();
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        match Exports::open(config) {
            Err(ExportError::Layer(LayerError::InUse(layers)))
                if begun.elapsed() < ENDING_MAX && is_ending() =>
            {
                if !is_told && begun.elapsed() >= QUIET {
                    is_told = true;
                    tracing::warn!(
                        layers = %layers.display(),
                        "waiting for the storage server that was stopped and has the layers still"
                    );
                }
            }
            opened => return Ok(Some(opened?)),
        }
        tokio::select! {
            () = stop.as_mut() => return Ok(None),
            () = tokio::time::sleep(TRY_INTERVAL) => {}
        }
    }
}

/// Whether one of these sockets takes the connections to this address.
fn is_covered(address: &SocketAddr, handed: &[SocketAddr]) -> bool {
    handed.iter().any(|other| {
        other.port() == address.port()
            && (other.ip() == address.ip() || other.ip().is_unspecified())
    })
}

fn admission(exports: &Arc<Exports>) -> Arc<dyn admission::Admission> {
    Arc::<Exports>::clone(exports)
}

/// Bytes that nobody can guess; `None`: the operating system has none.
fn random_bytes() -> Option<[u8; 32]> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).ok()?;
    Some(random)
}
