//! DHCP in the names of many, from one host.

use crate::room::message;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use wire::Mac;

/// Longest answer; Ethernet carries no longer one in one piece.
const DATAGRAM_BYTES: usize = 1500;

/// Says what whoever is named might say. Answers arrive as broadcasts.
#[derive(Debug)]
pub struct DhcpCrowd {
    socket: UdpSocket,
}

impl DhcpCrowd {
    /// A host behind `interface`. Needs DHCP's client port.
    ///
    /// # Errors
    /// The port is taken, or there is no such interface.
    pub fn open(interface: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: socket.into() })
    }

    /// Asks for an offer in the name of this NIC.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn discover(&self, mac: Mac) -> io::Result<()> {
        self.send(&message(mac, MessageType::Discover))
    }

    /// Takes an address in the name of this NIC.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn request(&self, mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> io::Result<()> {
        self.send(&named(mac, MessageType::Request, address, server))
    }

    /// Says in the name of this NIC that somebody else uses its address.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn decline(&self, mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> io::Result<()> {
        self.send(&named(mac, MessageType::Decline, address, server))
    }

    /// Gives an address back in the name of this NIC.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn release(&self, mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> io::Result<()> {
        let mut message = named(mac, MessageType::Release, address, server);
        message.opts_mut().remove(OptionCode::RequestedIpAddress);
        message.set_ciaddr(address);
        self.send(&message)
    }

    /// Reads all answers that have come: which NIC, what, and which address.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn answers(&self) -> io::Result<Vec<(Mac, MessageType, Ipv4Addr)>> {
        let mut answers = Vec::new();
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) => return Err(error),
            };
            let Ok(answer) = Message::decode(&mut Decoder::new(&buffer[..length])) else {
                continue;
            };
            if let (Ok(mac), Some(kind)) = (answer.chaddr().try_into(), answer.opts().msg_type()) {
                answers.push((Mac(mac), kind, answer.yiaddr()));
            }
        }
    }

    fn send(&self, message: &Message) -> io::Result<()> {
        let bytes = message.to_vec().map_err(io::Error::other)?;
        match self.socket.send_to(&bytes, (Ipv4Addr::BROADCAST, 67)) {
            // The interface takes no more for now: lost, as on any network.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

fn named(mac: Mac, kind: MessageType, address: Ipv4Addr, server: Ipv4Addr) -> Message {
    let mut message = message(mac, kind);
    let options = message.opts_mut();
    options.insert(DhcpOption::RequestedIpAddress(address));
    options.insert(DhcpOption::ServerIdentifier(server));
    message
}
