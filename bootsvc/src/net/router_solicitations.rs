//! The ICMPv6 socket on which PCs ask for IPv6 routers.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;
use wire::Mac;

/// All routers on the link (RFC 4291 §2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Neighbour discovery is only believed with this hop limit (RFC 4861 §6.1).
const HOPS: u32 = 255;

/// Longest solicitation in bytes; one is 16 long with the usual option.
const SOLICITATION_MAX: usize = 256;

/// The socket on the boot network. A raw socket receives and sends whole messages, as a UDP socket does
/// datagrams, so tokio's serves.
pub struct RouterSolicitations(UdpSocket);

impl RouterSolicitations {
    /// Listens on `interface`.
    ///
    /// # Errors
    /// The interface has no IPv6, or root's rights (CAP_NET_RAW) are missing.
    pub fn listen(interface: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_unicast_hops_v6(HOPS)?;
        socket.join_multicast_v6(&ALL_ROUTERS, nix::net::if_::if_nametoindex(interface)?)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    /// The next PC that asks: its NIC, and where it listens.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn receive(&self) -> io::Result<(Mac, SocketAddr)> {
        let mut buffer = [0; SOLICITATION_MAX];
        loop {
            let (length, peer) = self.0.recv_from(&mut buffer).await?;
            let SocketAddr::V6(source) = peer else { continue };
            if let Some(mac) = dhcp::solicitor(&buffer[..length], *source.ip()) {
                return Ok((mac, peer));
            }
        }
    }

    /// Tells that there is no router.
    ///
    /// # Errors
    /// The answer could not be sent; the PC asks again.
    pub async fn deny(&self, address: SocketAddr) -> io::Result<()> {
        self.0.send_to(&dhcp::NO_ROUTER, address).await.map(drop)
    }
}
