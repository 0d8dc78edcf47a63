//! A room of PCs that are switched on at once, all behind one interface.
//!
//! Their DHCP messages are written and read by dhcproto, so that a foreign codec judges ours.

use dhcproto::v4::{
    Architecture, DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption,
};
use dhcproto::{Decodable as _, Decoder, Encodable as _};
use initcfg::{Ack, Report, Stage};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use wire::Mac;

/// How long nothing may come before the room gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so long without any answer firmware asks again: a frame may be lost, by a bridge for instance whose port has just
/// come up.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// Longest answer; Ethernet carries no longer one in one piece.
const DATAGRAM_BYTES: usize = 1500;

/// Why a room does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The interface can't be used, or nothing comes from it.
    #[error("the network can't be used, or nothing comes from it")]
    Network(#[from] io::Error),
    /// A message can't be written.
    #[error("dhcproto can't write a message")]
    Write(#[from] dhcproto::error::EncodeError),
    /// An answer is not what it should be.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

/// PCs by the addresses of their NICs.
#[derive(Debug)]
pub struct Room {
    socket: UdpSocket,
    macs: Vec<Mac>,
}

/// A PC with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its NIC.
    pub mac: Mac,
    /// The address that it was offered.
    pub address: Ipv4Addr,
    server: Ipv4Addr,
}

impl Room {
    /// A room behind `interface`, with these NICs. Needs DHCP's client port.
    ///
    /// # Errors
    /// The port is taken, or there is no such interface.
    pub fn open(interface: &str, macs: Vec<Mac>) -> Result<Self, RoomError> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
        socket.set_recv_buffer_size(macs.len() * 4 * DATAGRAM_BYTES)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(ASK_AGAIN))?;
        Ok(Self { socket, macs })
    }

    /// All firmware asks for offers, in the order of the NICs.
    ///
    /// # Errors
    /// Not everybody gets one.
    pub fn discover(&self) -> Result<Vec<Placed>, RoomError> {
        let questions = self.macs.iter().map(|&mac| message(mac, MessageType::Discover));
        let offers = self.answers(MessageType::Offer, &questions.collect::<Vec<_>>())?;
        let placed = |&mac: &Mac| {
            let offer = &offers[&mac];
            let address = offer.yiaddr();
            match offer.opts().get(OptionCode::ServerIdentifier) {
                Some(DhcpOption::ServerIdentifier(server)) => {
                    Ok(Placed { mac, address, server: *server })
                }
                _ => Err(RoomError::Answer("an offer of nobody".to_owned())),
            }
        };
        self.macs.iter().map(placed).collect()
    }

    /// All firmware takes its offers at once. Returns how long it is until the last has its answer.
    ///
    /// # Errors
    /// Not everybody gets one.
    pub fn request(&self, placed: &[Placed]) -> Result<Duration, RoomError> {
        let begin = Instant::now();
        let questions = placed.iter().map(|pc| {
            let mut request = message(pc.mac, MessageType::Request);
            let options = request.opts_mut();
            options.insert(DhcpOption::RequestedIpAddress(pc.address));
            options.insert(DhcpOption::ServerIdentifier(pc.server));
            request
        });
        self.answers(MessageType::Ack, &questions.collect::<Vec<_>>())?;
        Ok(begin.elapsed())
    }

    /// The first PC's firmware asks for an offer, and again after each `pause`, of a server that may not be there yet. Returns
    /// when it has one.
    ///
    /// # Errors
    /// There is none in a minute.
    pub fn first_answer(&self, pause: Duration) -> Result<Instant, RoomError> {
        self.socket.set_read_timeout(Some(pause))?;
        let deadline = Instant::now() + START_MAX;
        let question = message(self.macs[0], MessageType::Discover);
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            self.send(&question)?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let answer = Message::decode(&mut Decoder::new(&buffer[..length]))
                        .map_err(|error| RoomError::Answer(error.to_string()))?;
                    if answer.opts().has_msg_type(MessageType::Offer) {
                        return Ok(Instant::now());
                    }
                }
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, message: &Message) -> Result<(), RoomError> {
        let everybody = (Ipv4Addr::BROADCAST, 67);
        self.socket.send_to(&message.to_vec()?, everybody)?;
        Ok(())
    }

    /// Asks, and gets one answer of this kind for each PC.
    fn answers(
        &self,
        kind: MessageType,
        questions: &[Message],
    ) -> Result<HashMap<Mac, Message>, RoomError> {
        let mut answers: HashMap<Mac, Message> = HashMap::new();
        let mut buffer = [0; DATAGRAM_BYTES];
        for question in questions {
            self.send(question)?;
        }
        let mut last = Instant::now();
        while answers.len() < questions.len() {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && last.elapsed() < PATIENCE =>
                {
                    let is_open = |question: &&Message| {
                        !answers.keys().any(|mac| question.chaddr().starts_with(&mac.0))
                    };
                    for question in questions.iter().filter(is_open) {
                        self.send(question)?;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let answer = Message::decode(&mut Decoder::new(&buffer[..length]))
                .map_err(|error| RoomError::Answer(error.to_string()))?;
            let mac = answer.chaddr().try_into().map(Mac);
            // Other PCs hear what is said to all, too.
            if let Ok(mac) = mac
                && self.macs.contains(&mac)
                && answer.opts().has_msg_type(kind)
            {
                answers.insert(mac, answer);
                last = Instant::now();
            }
        }
        Ok(answers)
    }
}

/// What PXE firmware of a BIOS sends.
pub(crate) fn message(mac: Mac, kind: MessageType) -> Message {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootRequest)
        .set_flags(Flags::default().set_broadcast())
        .set_chaddr(&mac.0);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ClientSystemArchitecture(Architecture::X86_Bios));
    options.insert(DhcpOption::ClassIdentifier(b"PXEClient:Arch:00000:UNDI:002001".to_vec()));
    let uuid = [&[0; 11][..], &mac.0].concat();
    options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(97), uuid)));
    message
}

/// All machines report a stage at once, each from its address. Returns how long it is until the last has its
/// acknowledgement. Their addresses must be on this host.
///
/// # Errors
/// Not everybody gets one.
pub fn report(
    server: Ipv4Addr,
    machines: &[(Placed, u64)],
    stage: Stage,
    sequence: u32,
) -> Result<Duration, RoomError> {
    let sockets = machines
        .iter()
        .map(|(placed, _)| {
            let socket = UdpSocket::bind((placed.address, 0))?;
            socket.connect((server, initcfg::REPORT_PORT))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let begin = Instant::now();
    for (socket, (placed, boot)) in sockets.iter().zip(machines) {
        let report = Report {
            boot: *boot,
            mac: placed.mac,
            sequence,
            stage: Some(stage),
            uptime_ms: u64::from(sequence) * 1000,
            detail: String::new(),
        };
        socket.send(report.to_string().as_bytes())?;
    }
    let mut buffer = [0; DATAGRAM_BYTES];
    for (socket, (_, boot)) in sockets.iter().zip(machines) {
        let length = socket.recv(&mut buffer)?;
        let ack =
            Ack::parse(&buffer[..length]).map_err(|error| RoomError::Answer(error.to_string()))?;
        if (ack.boot, ack.sequence) != (*boot, sequence) {
            return Err(RoomError::Answer(ack.to_string()));
        }
    }
    Ok(begin.elapsed())
}
