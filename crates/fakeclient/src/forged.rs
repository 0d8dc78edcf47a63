//! UDP datagrams in the name of others.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddrV4;

const IP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const UDP: u8 = 17;

/// The number of the protocol by which a socket is told that we write the IP header ourselves.
const RAW: i32 = 255;

/// Sends datagrams from any address. Needs root.
#[derive(Debug)]
pub struct Forger {
    socket: Socket,
}

impl Forger {
    /// Opens the socket.
    ///
    /// # Errors
    /// We are not root.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
        Ok(Self { socket })
    }

    /// Sends a datagram as if `from` did.
    ///
    /// # Errors
    /// There is no way to `to`.
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        let udp_bytes = (UDP_HEADER_BYTES + payload.len()) as u16;
        let mut packet = Vec::with_capacity(IP_HEADER_BYTES + usize::from(udp_bytes));
        // The kernel fills in length, identification and checksum.
        packet.extend_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0]);
        packet.extend_from_slice(&from.ip().octets());
        packet.extend_from_slice(&to.ip().octets());
        // No checksum of UDP.
        for field in [from.port(), to.port(), udp_bytes, 0] {
            packet.extend_from_slice(&field.to_be_bytes());
        }
        packet.extend_from_slice(payload);
        self.socket.send_to(&packet, &to.into()).map(drop)
    }
}
