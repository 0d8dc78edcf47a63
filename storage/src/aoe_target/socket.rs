//! A raw Ethernet socket on one interface.

use super::raw::{self, Batch};
use socket2::{Domain, Socket, Type};
use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use wire::Mac;

/// Thirty machines may each have 64 frames in flight; the kernel's default holds 100 in all.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

/// How long a network card may keep us from sending. Then the frame is dropped.
const SEND_TIME: Duration = Duration::from_millis(200);

/// AoE can't be served on an interface.
#[derive(Debug, thiserror::Error)]
#[error("can't serve AoE on {interface}: can't {action}")]
pub struct SocketError {
    interface: String,
    action: &'static str,
    source: io::Error,
}

impl SocketError {
    pub(super) fn new(interface: &str, action: &'static str, source: io::Error) -> Self {
        Self { interface: interface.into(), action, source }
    }
}

pub(super) struct PacketSocket {
    socket: Socket,
    interface: String,
    link: RwLock<Link>,
    /// Addresses that this socket has beside the interface's own.
    joined: RwLock<Vec<Mac>>,
}

/// What an administrator may change at any time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    index: i32,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) is_running: bool,
}

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    All,
    /// The disks that are served from this address.
    One(Mac),
    /// Hosts on a VLAN of which this interface is no part.
    Vlan,
}

impl Addressee {
    pub(super) fn includes(self, own: Mac) -> bool {
        self == Self::All || self == Self::One(own)
    }
}

impl PacketSocket {
    /// Opens the interface; [`receive`](Self::receive) waits at most `patience`.
    pub(super) fn open(interface: &str, patience: Duration) -> Result<Self, SocketError> {
        let failed = |action| move |source| SocketError::new(interface, action, source);
        // Protocol 0 hears nothing until it is bound, so no other interface's frames are taken.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)
            .map_err(failed("open a packet socket (root or CAP_NET_RAW is needed)"))?;
        let link = read_link(&socket, interface).map_err(failed("use the interface"))?;
        let configure = || {
            // Without this the socket hears the frames that it sends itself.
            raw::set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
            raw::set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
            socket.set_read_timeout(Some(patience))?;
            socket.set_write_timeout(Some(SEND_TIME))
        };
        configure().map_err(failed("configure the socket"))?;
        force_receive_buffer(&socket);
        socket.bind(&raw::link_address(link.index)).map_err(failed("bind to it"))?;
        Ok(Self {
            socket,
            interface: interface.into(),
            link: RwLock::new(link),
            joined: RwLock::default(),
        })
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Address, MTU and carrier, as they were when they were read last.
    pub(super) fn link(&self) -> Link {
        *self.link.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads them anew, and binds again if the interface was made anew. Whether something
    /// has changed.
    pub(super) fn refresh(&self) -> io::Result<bool> {
        let new = read_link(&self.socket, &self.interface)?;
        let former = self.link();
        if new == former {
            return Ok(false);
        }
        if new.index != former.index {
            self.socket.bind(&raw::link_address(new.index))?;
            for &mac in self.joined.read().unwrap_or_else(PoisonError::into_inner).iter() {
                raw::join(&self.socket, new.index, mac)?;
            }
        }
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    /// Whom a frame to this address is for; `None` if it is for another host.
    pub(super) fn addressee(&self, destination: Mac, is_for_others: bool) -> Option<Addressee> {
        match destination {
            // What the kernel does not take for this host though the address is has a VLAN's tag.
            Mac::BROADCAST if !is_for_others => Some(Addressee::All),
            own if own == self.link().mac && !is_for_others => Some(Addressee::One(own)),
            own if own == self.link().mac || own == Mac::BROADCAST => Some(Addressee::Vlan),
            // The kernel takes all frames to it for others', so here a VLAN's can't be told.
            own => self.has_joined(own).then_some(Addressee::One(own)),
        }
    }

    /// Lets frames to this address in, too.
    pub(super) fn join(&self, mac: Mac) {
        if self.has_joined(mac) {
            return;
        }
        self.joined.write().unwrap_or_else(PoisonError::into_inner).push(mac);
        if let Err(error) = raw::join(&self.socket, self.link().index, mac) {
            tracing::warn!(interface = self.interface, %mac, %error, "address can't be joined");
        }
    }

    fn has_joined(&self, mac: Mac) -> bool {
        self.joined.read().unwrap_or_else(PoisonError::into_inner).contains(&mac)
    }

    /// Waits for frames and takes all that are there, perhaps none.
    pub(super) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        match raw::receive(&self.socket, batch) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Sends frames. One that can't be sent is dropped: the initiator asks again.
    pub(super) fn send(&self, mut frames: &[Vec<u8>]) {
        while !frames.is_empty() {
            let done = raw::send(&self.socket, frames).unwrap_or_else(|error| {
                tracing::debug!(interface = self.interface, %error, "AoE frame not sent");
                1
            });
            frames = &frames[done.clamp(1, frames.len())..];
        }
    }
}

fn read_link(socket: &Socket, interface: &str) -> io::Result<Link> {
    let index = raw::interface_index(socket, interface)?;
    let mac = raw::interface_mac(socket, interface)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "it is no Ethernet interface")
    })?;
    let mtu = raw::interface_mtu(socket, interface)?;
    Ok(Link { index, mac, mtu, is_running: raw::interface_is_running(socket, interface)? })
}

fn force_receive_buffer(socket: &Socket) {
    let bytes = RECEIVE_BUFFER_BYTES as libc::c_int;
    if raw::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        // Without CAP_NET_ADMIN the system's limit holds: fewer machines at once.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
}
