//! One file or block device, exported as it is.

mod file;

use crate::admission::{Admission, AoeDisk, AoePlace, Listener, Opened, Peer, shown};
use crate::allow::Allow;
use crate::aoe_target::{AoeTarget, SocketError};
use crate::export::{Export, Generation, Label};
use crate::nbd_server::{Address, NbdServer};
use crate::tls::{Credentials, TlsConfig, TlsError};
use images::{Block, Durability};
use model::{Nonce, ShelfSlot};
use nbd::server::Refusal;
use socket2::Socket;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use wire::Mac;

/// Longest name in bytes: what fits all protocols.
const NAME_MAX: usize = 255;

/// What is shared, where and with whom.
#[derive(Debug)]
pub struct ShareConfig {
    /// A raw disk: a file or a block device.
    pub file: PathBuf,
    /// What clients call it.
    pub name: String,
    /// What becomes of what they write.
    pub writes: Writes,
    /// What an acknowledged write outlives.
    pub durability: Durability,
    /// NBD addresses.
    pub nbd: Vec<Address>,
    /// Sockets that listen already, for NBD.
    pub nbd_sockets: Vec<Socket>,
    /// How NBD clients may encrypt; `None` is not at all.
    pub tls: Option<TlsConfig>,
    /// AoE addresses.
    pub aoe: Vec<AoeAddress>,
    /// Who may use it; empty is everybody who reaches it.
    pub allow: Vec<Allow>,
}

/// What becomes of what clients write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Writes go to the file.
    Through,
    /// Writes are kept until the share ends, in a file without name in this folder.
    Discard(PathBuf),
    /// Writes are refused.
    Refuse,
}

/// Where AoE clients find the disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AoeAddress {
    /// A network interface.
    pub interface: String,
    /// The disk's address there.
    pub address: ShelfSlot,
    /// The server's MAC address for it; `None` is the interface's own.
    pub mac: Option<Mac>,
}

/// The file can't be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The file can't be opened, or is no disk.
    #[error("can't share {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not, and what helps.
        why: String,
    },
    /// Protocols could not carry the name.
    #[error("the name {0:?} must have 1 to {NAME_MAX} bytes, without control characters")]
    Name(String),
    /// Nobody could use an address.
    #[error("no --allow names {0}: nobody could use the share there")]
    Nobody(&'static str),
    /// One place, two disks.
    #[error("the AoE address {0} is given twice")]
    Twice(String),
    /// Somebody listens there, or it is not ours.
    #[error("can't serve NBD on {address}: {why}")]
    Nbd {
        /// The address.
        address: Address,
        /// Why not, and what helps.
        why: String,
    },
    /// A socket that was handed to us is of no use.
    #[error("can't serve NBD on the socket")]
    Socket(#[source] io::Error),
    /// A certificate or key is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An interface is missing or not Ethernet.
    #[error(transparent)]
    Aoe(#[from] SocketError),
}

/// A file that is being shared; dropping it ends that.
pub struct Share {
    export: Arc<Export>,
    shared: Arc<OneExport>,
    nbd: Option<NbdServer>,
    aoe: Vec<AoeTarget>,
    addresses: Vec<String>,
}

impl Share {
    /// Opens the file and all addresses.
    ///
    /// # Errors
    /// One of them can't be opened; nothing is shared then.
    pub fn start(mut config: ShareConfig) -> Result<Self, ShareError> {
        check(&config)?;
        let tls = Credentials::from(config.tls.clone())?;
        let disk = file::open(&config)?;
        let label = Label {
            name: config.name.clone(),
            description: config.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let export = Arc::new(Export::new(label, disk));
        let one = Arc::new(OneExport {
            export: Arc::clone(&export),
            allow: config.allow.clone(),
            aoe: config.aoe.iter().map(|address| place(address, &config.allow)).collect(),
            listeners: Mutex::default(),
        });
        let shared: Arc<dyn Admission> = Arc::<OneExport>::clone(&one);
        let mut nbd = NbdServer::new(Arc::clone(&shared), tls);
        let (mut aoe, mut addresses) = (Vec::new(), Vec::new());
        for address in &config.nbd {
            nbd.listen(address).map_err(|error| nbd_error(address, &error))?;
        }
        for socket in config.nbd_sockets.drain(..) {
            nbd.listen_on(socket).map_err(ShareError::Socket)?;
        }
        for address in nbd.addresses().map_err(ShareError::Socket)? {
            for scheme in schemes(config.tls.as_ref()) {
                addresses.push(uri(scheme, &address, &config.name));
            }
        }
        let interfaces: BTreeSet<&str> =
            config.aoe.iter().map(|address| address.interface.as_str()).collect();
        for interface in interfaces {
            aoe.push(AoeTarget::start(interface, Arc::clone(&shared))?);
        }
        for AoeAddress { interface, address, .. } in &config.aoe {
            addresses.push(format!("aoe e{address} on {interface}"));
        }
        Ok(Self { export, shared: one, nbd: Some(nbd), aoe, addresses })
    }

    /// Looks whether the file or device has grown. AoE clients are told; over NBD a new connection sees it,
    /// and no other is touched.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn grow(&self) -> io::Result<()> {
        let before = self.export.disk.size_bytes();
        let size_bytes = self.export.disk.grow()?;
        if size_bytes > before {
            tracing::info!(before, size_bytes, "the disk has grown");
            self.shared.announce();
        }
        Ok(())
    }

    /// Where clients find it, one line each: URIs for NBD.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl Drop for Share {
    /// Finishes what was received, makes it durable, and closes all connections without error replies.
    fn drop(&mut self) {
        self.nbd.iter().for_each(NbdServer::stop_accepting);
        let since = Instant::now();
        self.export.connections.begin_close();
        self.export.finish_last_close(since);
        self.nbd = None;
        self.aoe.clear();
    }
}

fn check(config: &ShareConfig) -> Result<(), ShareError> {
    let name = &config.name;
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(ShareError::Name(name.clone()));
    }
    if !config.allow.is_empty() {
        let names_station = config.allow.iter().any(|rule| matches!(rule, Allow::Station(_)));
        let names_network = config.allow.iter().any(|rule| matches!(rule, Allow::Network { .. }));
        if !config.aoe.is_empty() && !names_station {
            return Err(ShareError::Nobody("the MAC address of an AoE client"));
        }
        let over_tcp = !config.nbd_sockets.is_empty()
            || config.nbd.iter().any(|address| matches!(address, Address::Tcp(_)));
        if over_tcp && !names_network {
            return Err(ShareError::Nobody("the IP address of an NBD client"));
        }
    }
    let mut seen = BTreeSet::new();
    for one in &config.aoe {
        if !seen.insert((&one.interface, one.address)) {
            return Err(ShareError::Twice(format!("{} on {}", one.address, one.interface)));
        }
    }
    Ok(())
}

fn nbd_error(address: &Address, error: &io::Error) -> ShareError {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: end it, or give another address by --nbd".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "it is not an address of this host: ip addr shows those that are".to_owned()
        }
        _ => error.to_string(),
    };
    ShareError::Nbd { address: address.clone(), why }
}

/// How URIs say whether TLS is used.
const fn schemes(tls: Option<&TlsConfig>) -> &'static [&'static str] {
    match tls {
        None => &["nbd"],
        Some(TlsConfig { is_required: true, .. }) => &["nbds"],
        Some(_) => &["nbd", "nbds"],
    }
}

/// The URI of an export (doc/uri.md of the NBD project).
fn uri(scheme: &str, address: &Address, name: &str) -> String {
    let name = percent(name);
    match address {
        Address::Tcp(address) => format!("{scheme}://{address}/{name}"),
        Address::Unix(path) => {
            format!("{scheme}+unix:///{name}?socket={}", percent(&path.to_string_lossy()))
        }
    }
}

fn percent(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn place(at: &AoeAddress, allow: &[Allow]) -> (String, Arc<AoePlace>) {
    let stations = allow.iter().filter_map(|rule| match rule {
        Allow::Station(mac) => Some(*mac),
        Allow::Network { .. } => None,
    });
    let mut told: Vec<Mac> = stations.collect();
    if told.is_empty() {
        told.push(Mac::BROADCAST);
    }
    let serial = format!("BL-e{}", at.address);
    (at.interface.clone(), Arc::new(AoePlace { address: at.address, serial, told, mac: at.mac }))
}

/// The shared file as targets see it.
struct OneExport {
    export: Arc<Export>,
    allow: Vec<Allow>,
    /// Places, and on which interface each is.
    aoe: Vec<(String, Arc<AoePlace>)>,
    /// By interface.
    listeners: Mutex<Vec<(String, Listener)>>,
}

impl OneExport {
    fn admits(&self, peer: Peer) -> bool {
        match peer.ip() {
            None => true,
            Some(ip) => self.allow.is_empty() || self.allow.iter().any(|rule| rule.admits(ip)),
        }
    }

    fn admits_station(&self, mac: Mac) -> bool {
        self.allow.is_empty() || self.allow.contains(&Allow::Station(mac))
    }

    /// Tells AoE clients that the disk is there.
    fn announce(&self) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(interface, listener)| self.all_aoe(interface).iter().all(listener));
    }

    fn disk(&self, place: &Arc<AoePlace>) -> AoeDisk {
        AoeDisk { export: Arc::clone(&self.export), place: Arc::clone(place) }
    }
}

impl Admission for OneExport {
    /// The empty name is the only export there is.
    fn look(&self, name: &str, peer: Peer, _: Option<&Nonce>) -> Result<Arc<Export>, Refusal> {
        let is_ours = name.is_empty() || name == self.export.label.name;
        if is_ours && self.admits(peer) {
            return Ok(Arc::clone(&self.export));
        }
        if is_ours {
            self.export.counters.count(&self.export.counters.refused);
        }
        Err(Refusal::Unknown(format!("there is no export {} for {peer}", shown(name))))
    }

    fn open(
        &self,
        name: &str,
        peer: Peer,
        nonce: Option<&Nonce>,
        stream: Arc<Socket>,
    ) -> Result<Opened, Refusal> {
        let export = self.look(name, peer, nonce)?;
        let entered = export.connections.enter(stream, Generation::Claimed(0), usize::MAX);
        let connection = entered.map_err(|why| Refusal::Policy(why.to_string()))?;
        Ok(Opened { export, connection })
    }

    fn nbd_names(&self, peer: Peer) -> Vec<String> {
        self.admits(peer).then(|| self.export.label.name.clone()).into_iter().collect()
    }

    fn knows(&self, peer: Peer) -> bool {
        self.admits(peer)
    }

    fn for_aoe(&self, interface: &str, header: &aoe::Header) -> Vec<AoeDisk> {
        let is_meant = |place: &AoePlace| header.is_for(place.address.shelf, place.address.slot);
        let here = self.aoe.iter().filter(|(at, place)| at == interface && is_meant(place));
        let admitted = here.filter(|_| self.admits_station(header.source));
        admitted.map(|(_, place)| self.disk(place)).collect()
    }

    fn all_aoe(&self, interface: &str) -> Vec<AoeDisk> {
        let here = self.aoe.iter().filter(|(at, _)| at == interface);
        here.map(|(_, place)| self.disk(place)).collect()
    }

    fn on_new_aoe(&self, interface: &str, listener: Listener) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push((interface.to_owned(), listener));
    }
}
