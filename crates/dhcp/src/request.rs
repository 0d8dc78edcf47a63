//! Requests, read from foreign bytes.

use crate::options::Options;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Firmware, Mac, Reader, Truncated};

/// Kind of message (RFC 2132 §9.6) that clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Who is there?
    Discover,
    /// I want this address.
    Request,
    /// Somebody else has that address.
    Decline,
    /// I don't need the address any more.
    Release,
    /// I have an address and want the rest.
    Inform,
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What kind it is.
    pub kind: MessageType,
    /// Number that the reply repeats.
    pub transaction: u32,
    /// Flags as sent; the uppermost bit asks for broadcast replies.
    pub flags: u16,
    /// Address that the client uses already, or 0.0.0.0.
    pub client: Ipv4Addr,
    /// Relay that passed the message on, or 0.0.0.0.
    pub relay: Ipv4Addr,
    /// The client's NIC.
    pub mac: Mac,
    /// Address that it wants (option 50).
    pub wanted: Option<Ipv4Addr>,
    /// Server that it has chosen (option 54).
    pub server: Option<Ipv4Addr>,
    /// PXE firmware, if that is who asks.
    pub firmware: Option<Firmware>,
    /// Whether it is iPXE, which waits for a proxy unless it is told not to.
    pub is_ipxe: bool,
    /// SMBIOS UUID as sent (option 97): a type byte and 16 bytes.
    pub uuid: Option<[u8; 17]>,
    /// Host name (option 12), printable characters only, at most 63.
    pub host_name: Option<String>,
    /// Client identifier (option 61), which the reply repeats.
    pub client_id: Option<Vec<u8>>,
    /// Relay information (option 82), which the reply repeats as its last option.
    pub relay_information: Option<Vec<u8>>,
    /// Options that it asks for (option 55); empty means all.
    pub parameters: Vec<u8>,
}

/// The datagram is no request that a DHCP server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// It ends inside the fixed fields.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A reply, perhaps another server's.
    #[error("a reply (op {0}), not a request")]
    NotARequest(u8),
    /// Not Ethernet.
    #[error("hardware type {0} with addresses of {1} bytes is not Ethernet")]
    NotEthernet(u8, u8),
    /// A group's address can't be a client.
    #[error("{0} can't be a client's hardware address")]
    BadMac(Mac),
    /// BOOTP or something else.
    #[error("no DHCP: the magic cookie is missing")]
    NoCookie,
    /// Plain BOOTP, or a kind that only servers send.
    #[error("no message type that a server answers")]
    NoMessageType,
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];

impl Request {
    /// Reads a datagram. Never panics, and never fails because of one bad option.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotARequest> {
        let mut fields = Reader::new(datagram);
        let op = fields.u8("op")?;
        if op != 1 {
            return Err(NotARequest::NotARequest(op));
        }
        let (htype, hlen) = (fields.u8("htype")?, fields.u8("hlen")?);
        if (htype, hlen) != (1, 6) {
            return Err(NotARequest::NotEthernet(htype, hlen));
        }
        fields.u8("hops")?;
        let transaction = fields.u32("xid")?;
        fields.u16("secs")?;
        let flags = fields.u16("flags")?;
        let client = Ipv4Addr::from(fields.u32("ciaddr")?);
        fields.bytes("yiaddr and siaddr", 8)?;
        let relay = Ipv4Addr::from(fields.u32("giaddr")?);
        let mac = Mac(fields.array("chaddr")?);
        fields.bytes("padding of chaddr", 10)?;
        let sname = fields.bytes("sname", 64)?;
        let file = fields.bytes("file", 128)?;
        if mac.is_multicast() || mac == Mac([0; 6]) {
            return Err(NotARequest::BadMac(mac));
        }
        if fields.array("cookie")? != COOKIE {
            return Err(NotARequest::NoCookie);
        }

        let mut options = Options::default();
        options.read(fields.rest());
        // RFC 2132 §9.3: the file field first, then sname.
        let overload = options.array::<1>(52).map_or(0, |[value]| value);
        if overload & 1 != 0 {
            options.read(file);
        }
        if overload & 2 != 0 {
            options.read(sname);
        }
        let kind = match options.array(53) {
            Some([1]) => MessageType::Discover,
            Some([3]) => MessageType::Request,
            Some([4]) => MessageType::Decline,
            Some([7]) => MessageType::Release,
            Some([8]) => MessageType::Inform,
            _ => return Err(NotARequest::NoMessageType),
        };
        let address = |code| options.array::<4>(code).map(Ipv4Addr::from);
        let is_set = |address: &Ipv4Addr| !address.is_unspecified();
        Ok(Self {
            kind,
            transaction,
            flags,
            // Some clients name an old address while they look for a new one.
            client: if kind == MessageType::Discover { Ipv4Addr::UNSPECIFIED } else { client },
            relay,
            mac,
            wanted: address(50).filter(is_set),
            server: address(54).filter(is_set),
            firmware: firmware(&options),
            is_ipxe: is_ipxe(&options),
            uuid: options.array(97),
            host_name: options.bytes(12).and_then(host_name),
            client_id: options.bytes(61).map(<[u8]>::to_vec),
            relay_information: options.bytes(82).map(<[u8]>::to_vec),
            parameters: options.bytes(55).unwrap_or_default().to_vec(),
        })
    }

    /// Whether the client can only hear broadcasts.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether the client asked for the option, or for all.
    pub(crate) fn asks_for(&self, code: u8) -> bool {
        self.parameters.is_empty() || self.parameters.contains(&code)
    }
}

fn firmware(options: &Options) -> Option<Firmware> {
    if !options.bytes(60)?.starts_with(b"PXEClient") {
        return None;
    }
    // Option 93 is a list; the first that we have a loader for counts.
    let kinds = options
        .bytes(93)?
        .chunks_exact(2)
        .map(|pair| Firmware::of_code(u16::from_be_bytes([pair[0], pair[1]])));
    kinds.clone().find(|kind| !matches!(kind, Firmware::Other(_))).or_else(|| kinds.clone().next())
}

/// iPXE sends its name bare or as counted strings (RFC 3004), and its own option 175.
fn is_ipxe(options: &Options) -> bool {
    let class = options.bytes(77).unwrap_or_default();
    options.bytes(175).is_some() || class.windows(4).any(|bytes| bytes == b"iPXE")
}

fn host_name(bytes: &[u8]) -> Option<String> {
    let name: String = bytes
        .iter()
        .take(63)
        .take_while(|&&byte| byte != 0)
        .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect();
    if name.is_empty() { None } else { Some(name) }
}
