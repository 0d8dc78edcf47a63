//! A PC's firmware until it knows its loader: DHCP as clients of PXE and of UEFI HTTP Boot speak it.
//!
//! Its messages are written and read by dhcproto, so that a foreign codec judges ours.

use dhcproto::v4::{
    Architecture, DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption,
};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use wire::Mac;

/// When nothing comes for so long it asks again, so often; real firmware waits longer.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const ASKS_MAX: u32 = 6;

/// Longest answer; Ethernet carries no longer one in one piece.
const DATAGRAM_BYTES: usize = 1500;

/// What iPXE tells of itself in option 175: that it speaks HTTP (its feature 19).
const IPXE_FEATURES: [u8; 3] = [19, 1, 1];

/// A kind of firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it says of its processor and way of booting in option 93 (IANA's list of processor architectures).
    pub architecture: u16,
    /// What it says in option 60, such as `PXEClient:Arch:00000:UNDI:002001`.
    pub vendor_class: &'static str,
    /// It is iPXE, as a ROM or as a loader.
    pub is_ipxe: bool,
}

/// What firmware is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of the netmask.
    pub prefix: u8,
    /// Where other networks are reached.
    pub router: Option<Ipv4Addr>,
    /// Who gave the address.
    pub server: Ipv4Addr,
    /// Who has the loader.
    pub next_server: Ipv4Addr,
    /// The loader: a path there, or a URL. Empty: none.
    pub file: String,
    /// From the first question to the last answer.
    pub took: Duration,
}

/// Why firmware does not boot.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The interface can't be used.
    #[error("the network can't be used")]
    Network(#[from] io::Error),
    /// A message can't be written.
    #[error("dhcproto can't write a message")]
    Write(#[from] dhcproto::error::EncodeError),
    /// Nobody answers.
    #[error("nobody offers an address")]
    NoOffer,
    /// The offer does not say who made it.
    #[error("an offer does not name its server")]
    Nameless,
    /// The server that has made an offer does not keep to it.
    #[error("{0} does not give the address that it has offered")]
    NoAnswer(Ipv4Addr),
    /// It says so.
    #[error("{0} refuses the address that it has offered")]
    Refused(Ipv4Addr),
}

/// One NIC's firmware.
#[derive(Debug)]
pub struct Firmware {
    socket: UdpSocket,
    mac: Mac,
    kind: Kind,
}

impl Firmware {
    /// Behind `interface`, which need not have this MAC address: answers are asked for as broadcasts. Needs DHCP's client port.
    ///
    /// # Errors
    /// The port is taken, or there is no such interface.
    pub fn open(interface: &str, mac: Mac, kind: Kind) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(ASK_AGAIN))?;
        Ok(Self { socket, mac, kind })
    }

    /// Asks for an address and a loader, and takes the first offer.
    ///
    /// # Errors
    /// Nobody gives them.
    pub fn boot(&self) -> Result<Told, FirmwareError> {
        let began = Instant::now();
        let discover = self.message(MessageType::Discover);
        let offer = self.answer(&discover, &[MessageType::Offer])?.ok_or(FirmwareError::NoOffer)?;
        let server = match offer.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => *server,
            _ => return Err(FirmwareError::Nameless),
        };
        let mut request = self.message(MessageType::Request);
        let options = request.opts_mut();
        options.insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
        options.insert(DhcpOption::ServerIdentifier(server));
        let answer = self.answer(&request, &[MessageType::Ack, MessageType::Nak])?;
        let answer = answer.ok_or(FirmwareError::NoAnswer(server))?;
        if answer.opts().msg_type() == Some(MessageType::Nak) {
            return Err(FirmwareError::Refused(server));
        }
        Ok(told(&answer, server, began.elapsed()))
    }

    /// The first answer of one of these kinds, if one comes.
    fn answer(
        &self,
        question: &Message,
        kinds: &[MessageType],
    ) -> Result<Option<Message>, FirmwareError> {
        let bytes = question.to_vec()?;
        let mut buffer = [0; DATAGRAM_BYTES];
        for _ in 0..ASKS_MAX {
            self.socket.send_to(&bytes, (Ipv4Addr::BROADCAST, 67))?;
            let asked = Instant::now();
            while asked.elapsed() < ASK_AGAIN {
                let length = match self.socket.recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                let Ok(answer) = Message::decode(&mut Decoder::new(&buffer[..length])) else {
                    continue;
                };
                let is_ours = answer.xid() == question.xid() && answer.chaddr() == self.mac.0;
                if is_ours && answer.opts().msg_type().is_some_and(|kind| kinds.contains(&kind)) {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    fn message(&self, kind: MessageType) -> Message {
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootRequest)
            .set_flags(Flags::default().set_broadcast())
            .set_chaddr(&self.mac.0);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        let architecture = Architecture::from(self.kind.architecture);
        options.insert(DhcpOption::ClientSystemArchitecture(architecture));
        let class = self.kind.vendor_class.as_bytes().to_vec();
        options.insert(DhcpOption::ClassIdentifier(class));
        let mut insert = |code: u8, bytes: Vec<u8>| {
            options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes)));
        };
        insert(97, [&[0; 11][..], &self.mac.0].concat());
        if self.kind.is_ipxe {
            insert(77, b"iPXE".to_vec());
            insert(175, IPXE_FEATURES.to_vec());
        }
        message
    }
}

fn told(answer: &Message, server: Ipv4Addr, took: Duration) -> Told {
    let options = answer.opts();
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => mask.to_bits().leading_ones() as u8,
        _ => 32,
    };
    let router = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let file = match options.get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(name)) => name.clone(),
        _ => answer.fname().unwrap_or_default().to_vec(),
    };
    let end = file.iter().position(|byte| *byte == 0).unwrap_or(file.len());
    Told {
        address: answer.yiaddr(),
        prefix,
        router,
        server,
        next_server: if answer.siaddr().is_unspecified() { server } else { answer.siaddr() },
        file: String::from_utf8_lossy(&file[..end]).into_owned(),
        took,
    }
}
