//! Who may see which disk.

use crate::export::{Connection, Export};
use model::{Nonce, ShelfSlot};
use nbd::server::Refusal;
use socket2::Socket;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use wire::Mac;

/// Somebody who connects over NBD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// Somebody on this host whom the socket's file let in.
    Unix,
}

impl Peer {
    /// Its address; none over a Unix socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("a program on this host"),
        }
    }
}

/// An export at its place in AoE.
#[derive(Clone)]
pub(crate) struct AoeDisk {
    pub(crate) export: Arc<Export>,
    pub(crate) place: Arc<AoePlace>,
}

pub(crate) struct AoePlace {
    pub(crate) address: ShelfSlot,
    pub(crate) serial: String,
    /// Who is told that the disk is there.
    pub(crate) told: Vec<Mac>,
    /// The server's address for this disk; `None` is the interface's own.
    pub(crate) mac: Option<Mac>,
}

impl AoePlace {
    /// Those that may use the disk; everybody if it is empty.
    pub(crate) fn clients(&self) -> &[Mac] {
        if self.told.contains(&Mac::BROADCAST) { &[] } else { &self.told }
    }
}

/// What a target asks before it tells anybody of a disk: who may not open an export does not learn that it
/// exists.
pub(crate) trait Admission: Send + Sync {
    /// The export that `peer` calls `name`, if he is told of it before he opens it. A challenge has this
    /// nonce; there is none if it was answered already.
    fn look(&self, name: &str, peer: Peer, nonce: Option<&Nonce>) -> Result<Arc<Export>, Refusal>;

    /// `peer` opens the export that he calls `name`, over `stream`; what he proves answers to the nonce. May take some seconds.
    fn open(
        &self,
        name: &str,
        peer: Peer,
        nonce: Option<&Nonce>,
        stream: Arc<Socket>,
    ) -> Result<Opened, Refusal>;

    /// What is told inside of TLS to who proves by this name that he is a machine, if there is something: see
    /// [`model::Exchange`].
    fn secret(&self, _name: &str, _nonce: Option<&Nonce>) -> Option<String> {
        None
    }

    /// Names of all that `peer` is told of.
    fn nbd_names(&self, peer: Peer) -> Vec<String>;

    /// Whether there may be an export for `peer`, to judge by his address.
    fn knows(&self, peer: Peer) -> bool;

    /// What the frame's sender may see on `interface` at the address that it asks for.
    fn for_aoe(&self, interface: &str, header: &aoe::Header) -> Vec<AoeDisk>;

    /// All that can be seen on `interface`.
    fn all_aoe(&self, interface: &str) -> Vec<AoeDisk>;

    /// `listener` is told of every export that is made, or grows, from now on and can be seen on
    /// `interface`.
    fn on_new_aoe(&self, interface: &str, listener: Listener);
}

/// An export, and the place of a client's connection in it.
pub(crate) struct Opened {
    pub(crate) export: Arc<Export>,
    pub(crate) connection: Connection,
}

/// Told of an AoE disk that is new, or has grown; `false`: it need not be told any more.
pub(crate) type Listener = Box<dyn Fn(&AoeDisk) -> bool + Send>;

/// An export's name as a client sent it, short enough for a message.
pub(crate) fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(64).collect::<String>())
}
