//! A raw Ethernet socket on one interface.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wire::Mac;

/// Thirty machines may each have 64 frames in flight; the kernel's default holds 100 in all.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

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
    mac: Mac,
    mtu: AtomicU32,
}

impl PacketSocket {
    /// Opens the interface; [`receive`](Self::receive) waits at most `patience`.
    pub(super) fn open(interface: &str, patience: Duration) -> Result<Self, SocketError> {
        let failed = |action| move |source| SocketError::new(interface, action, source);
        let folder = Path::new("/sys/class/net").join(interface);
        let attribute = |name: &str| std::fs::read_to_string(folder.join(name));
        let index = attribute("ifindex").map_err(failed("find the interface"))?;
        let index: i32 = index.trim().parse().unwrap_or(0);
        let mac = attribute("address").map_err(failed("read its address"))?;
        let mac: Mac = mac.trim().parse().map_err(|_| {
            let text = "it is no Ethernet interface";
            failed("use it")(io::Error::new(io::ErrorKind::InvalidInput, text))
        })?;

        let protocol = i32::from(aoe::ETHERTYPE.to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)))
            .map_err(failed("open a packet socket (root or CAP_NET_RAW is needed)"))?;
        socket.bind(&link_address(index)).map_err(failed("bind to it"))?;
        ignore_outgoing(&socket).map_err(failed("configure the socket"))?;
        force_receive_buffer(&socket);
        socket.set_read_timeout(Some(patience)).map_err(failed("configure the socket"))?;
        let socket = Self { socket, interface: interface.into(), mac, mtu: AtomicU32::new(1500) };
        socket.read_mtu();
        Ok(socket)
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    /// Largest payload of a frame, as the interface had it when it was read last.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Reads the MTU, which an administrator may change at any time.
    pub(super) fn read_mtu(&self) {
        let path = Path::new("/sys/class/net").join(&self.interface).join("mtu");
        if let Some(mtu) =
            std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok())
        {
            self.mtu.store(mtu, Ordering::Relaxed);
        }
    }

    /// Length of the next frame; `None` if there was none for a while.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&mut &self.socket).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Sends a frame, or drops it: the initiator asks again.
    pub(super) fn send(&self, frame: &[u8]) {
        if let Err(error) = self.socket.send(frame) {
            tracing::debug!(interface = self.interface, %error, "AoE frame not sent");
        }
    }
}

fn link_address(index: i32) -> SockAddr {
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: aoe::ETHERTYPE.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every kind of socket address, and all
    // zeroes are a valid sockaddr_ll; the view ends with this statement.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = link;
    // SAFETY: the storage holds a sockaddr_ll of exactly this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Without this the socket hears the frames that it sends itself.
fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)
}

fn force_receive_buffer(socket: &Socket) {
    let bytes = RECEIVE_BUFFER_BYTES as libc::c_int;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        // Without CAP_NET_ADMIN the system's limit holds: fewer machines at once.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
}

fn set_option(socket: &Socket, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let value = MaybeUninit::new(value);
    // SAFETY: the pointer is to a c_int that lives until the call returns, and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
