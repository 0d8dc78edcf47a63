//! The DHCP socket: receives requests on one interface and sends replies in the four ways of RFC 2131.

use super::frame::FrameSender;
use super::port_holder::{BindError, Protocol, in_use};
use dhcp::{CLIENT_PORT, Destination, PROXY_PORT, Reply, Request, SERVER_PORT};
use nix::cmsg_space;
use nix::libc::in_pktinfo;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use service::Traffic;
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Longest request in bytes; Ethernet carries no longer one in one piece.
const REQUEST_MAX: usize = 1500;

/// Requests of a whole room that is switched on at once wait here while a lease is written.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// The socket on the boot network.
pub struct DhcpSocket {
    socket: UdpSocket,
    frames: FrameSender,
}

/// The socket at which firmware asks for its loader that has an address from another server.
pub struct BootServerSocket {
    socket: UdpSocket,
}

/// The boot network can't be listened to.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// Port 67 can't be had.
    #[error("can't serve DHCP on {interface}")]
    Bind {
        /// The interface.
        interface: String,
        /// Why.
        source: BindError,
    },
    /// The interface can't be used.
    #[error("can't use the interface {interface} for DHCP (root or CAP_NET_RAW is needed)")]
    Interface {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

impl DhcpSocket {
    /// Listens on port 67 of `interface`, whose address is `server`.
    ///
    /// # Errors
    /// The port is taken (the error says by whom), or the interface can't be used.
    pub fn bind(interface: &str, server: Ipv4Addr) -> Result<Self, DhcpError> {
        let socket = bind(interface, SERVER_PORT)?;
        let frames = FrameSender::open(interface, server).map_err(unusable(interface))?;
        Ok(Self { socket, frames })
    }

    /// The next request, and whether it was sent to an address of ours instead of to everybody; what is none is counted and passed over.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn receive(&self, traffic: &Traffic) -> io::Result<(Request, bool)> {
        receive(&self.socket, traffic).await.map(|(request, from)| (request, from.is_unicast))
    }

    /// Sends a reply to where it goes.
    ///
    /// # Errors
    /// The reply could not be sent; the client will ask again.
    pub async fn send(&self, reply: &Reply) -> io::Result<()> {
        let to = match reply.to {
            Destination::Relay(relay, port) => SocketAddrV4::new(relay, port),
            Destination::Unicast(client) => SocketAddrV4::new(client, CLIENT_PORT),
            Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Destination::Frame(mac, address) => {
                return self.frames.send(mac, address, &reply.bytes);
            }
        };
        self.socket.send_to(&reply.bytes, to).await.map(drop)
    }
}

impl BootServerSocket {
    /// Listens on port 4011 of `interface`.
    ///
    /// # Errors
    /// The port is taken (the error says by whom), or the interface can't be used.
    pub fn bind(interface: &str) -> Result<Self, DhcpError> {
        bind(interface, PROXY_PORT).map(|socket| Self { socket })
    }

    /// The next request, and from where it came; what is none is counted and passed over.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn receive(&self, traffic: &Traffic) -> io::Result<(Request, SocketAddr)> {
        receive(&self.socket, traffic).await.map(|(request, from)| (request, from.peer.into()))
    }

    /// Sends a reply back to where its request came from: some firmware asks from a client's port, and some from this one.
    ///
    /// # Errors
    /// The reply could not be sent; the client will ask again.
    pub async fn send(&self, reply: &Reply, peer: SocketAddr) -> io::Result<()> {
        self.socket.send_to(&reply.bytes, peer).await.map(drop)
    }
}

fn unusable(interface: &str) -> impl Fn(io::Error) -> DhcpError {
    move |source| DhcpError::Interface { interface: interface.to_owned(), source }
}

fn bind(interface: &str, port: u16) -> Result<UdpSocket, DhcpError> {
    let unusable = unusable(interface);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(&unusable)?;
    socket.bind_device(Some(interface.as_bytes())).map_err(&unusable)?;
    socket.set_broadcast(true).map_err(&unusable)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).map_err(|error| unusable(error.into()))?;
    // The system's limit may hold; then fewer requests can wait.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true).map_err(&unusable)?;
    socket.bind(&address.into()).map_err(|error| DhcpError::Bind {
        interface: interface.to_owned(),
        source: in_use(Protocol::Udp, address, error),
    })?;
    UdpSocket::from_std(socket.into()).map_err(unusable)
}

/// How a datagram came.
struct From {
    peer: SocketAddrV4,
    /// To an address of ours.
    is_unicast: bool,
}

async fn receive(socket: &UdpSocket, traffic: &Traffic) -> io::Result<(Request, From)> {
    let mut buffer = [0; REQUEST_MAX];
    loop {
        let received =
            socket.async_io(Interest::READABLE, || receive_now(socket, &mut buffer)).await?;
        let Some((length, from)) = received else { continue };
        match Request::parse(&buffer[..length]) {
            Ok(mut request) => {
                // Nobody can be answered at port 0.
                if request.names_relay_port() && from.peer.port() != 0 {
                    request.relay_port = from.peer.port();
                }
                return Ok((request, from));
            }
            Err(error) => {
                traffic.refused("dhcp", "malformed");
                tracing::debug!(peer = %from.peer, %error, "not a DHCP request");
            }
        }
    }
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, From)>> {
    let mut space = cmsg_space!(in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    // Of a broadcast the kernel tells another local address than the one that it was sent to.
    let is_unicast = received.cmsgs()?.any(|message| {
        let ControlMessageOwned::Ipv4PacketInfo(info) = message else { return false };
        info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr
    });
    let peer = received.address.map(|peer| SocketAddrV4::new(peer.ip(), peer.port()));
    Ok(peer.map(|peer| (received.bytes, From { peer, is_unicast })))
}
