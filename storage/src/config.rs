//! What a storage server is told when it starts.

use crate::tls::TlsConfig;
use model::{StorageHealth, StorageStarter};
use rustix::process::{Pid, getppid};
use socket2::Socket;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::Mac;

/// Where the storage server keeps things and listens.
#[derive(Debug)]
pub struct Config {
    /// Image store, written by imports.
    pub images: PathBuf,
    /// Write layers of the machines.
    pub layers: PathBuf,
    /// What one machine's write layer may hold; `None` is as much as there is.
    pub layer_max_bytes: Option<u64>,
    /// Of how many nights snapshots are kept of machines' persistent disks; 0 is that none is made at night.
    pub snapshots_kept: u32,
    /// Maps of write layers that must survive this process but not the host: below `/run`.
    pub volatile: PathBuf,
    /// The export table's file.
    pub table: PathBuf,
    /// Unix socket of the storage API.
    pub socket: PathBuf,
    /// TCP addresses on which NBD is served.
    pub nbd: Vec<SocketAddr>,
    /// Sockets that listen already, and go on listening when this server ends: those of TCP for NBD, in
    /// place of the same addresses in `nbd`; a Unix socket for the storage API, in place of `socket`.
    pub handed: Vec<Socket>,
    /// How NBD clients may encrypt; `None` is not at all.
    pub nbd_tls: Option<TlsConfig>,
    /// Network interfaces on which AoE is served; those that are missing, when they come.
    pub aoe_interfaces: Vec<String>,
    /// The same for one that is there only now and then.
    pub aoe_meanwhile: Option<String>,
    /// Address from which AoE is served; `None` is each interface's own. Machines know a disk by it,
    /// so they don't notice when another server takes it over.
    pub aoe_mac: Option<Mac>,
    /// What it tells of itself.
    pub who: Who,
}

/// Which storage server this is.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The release.
    pub version: String,
    /// The same for the same program with the same settings.
    pub identity: String,
    /// The process of `bootlace up` that has started it.
    pub up: Option<Pid>,
}

impl Who {
    pub(crate) fn health(&self) -> StorageHealth {
        let started_by = match self.up {
            None => StorageStarter::Service,
            // Whose parent has died gets another one.
            up if getppid() == up => StorageStarter::Up,
            Some(_) => StorageStarter::DeadUp,
        };
        StorageHealth {
            status: "ok".to_owned(),
            pid: Some(std::process::id()),
            version: self.version.clone(),
            identity: self.identity.clone(),
            started_by: Some(started_by),
        }
    }
}
