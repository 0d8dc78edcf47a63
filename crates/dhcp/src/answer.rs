//! What a server says to a client, read from foreign bytes.

use crate::options::Options;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Mac, Reader, Truncated};

/// Name servers that are kept; the resolver of glibc uses three.
const DNS_MAX: usize = 3;

/// Without a word of the server about it, a lease lasts so long; also the shortest that is believed: a
/// client must not ask all the time.
const LEASE_MIN_SECONDS: u32 = 10;

/// Kind of a server's message (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// You could have this address.
    Offer,
    /// It is yours.
    Acknowledged,
    /// It is not.
    Refused,
}

/// An address for a time, and what else the network is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLease {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length of its network, 0 to 32.
    pub prefix: u8,
    /// Who leases it.
    pub server: Ipv4Addr,
    /// Default route.
    pub router: Option<Ipv4Addr>,
    /// Name servers, at most three.
    pub dns: Vec<Ipv4Addr>,
    /// DNS domain.
    pub domain: Option<String>,
    /// When it is renewed, sought from anybody, and over, in seconds; `u32::MAX` is never. In this order.
    pub seconds: [u32; 3],
}

/// A server's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What kind it is.
    pub kind: AnswerKind,
    /// Number of the question.
    pub transaction: u32,
    /// Whose question it was.
    pub mac: Mac,
    /// The lease; of a refusal there is none.
    pub lease: Option<ClientLease>,
}

/// The datagram is nothing that a client heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// It ends inside the fixed fields.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Not a server's, not for Ethernet, or not DHCP.
    #[error("no answer of a DHCP server")]
    NotDhcp,
    /// An address that no machine can have, or no server.
    #[error("it names no usable address or no server")]
    NoAddress,
}

impl Answer {
    /// Reads a datagram. Never panics.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotAnAnswer> {
        let mut fields = Reader::new(datagram);
        if fields.array("op, htype and hlen")? != [2, 1, 6] {
            return Err(NotAnAnswer::NotDhcp);
        }
        fields.u8("hops")?;
        let transaction = fields.u32("xid")?;
        fields.bytes("secs, flags and ciaddr", 8)?;
        let address = Ipv4Addr::from(fields.u32("yiaddr")?);
        fields.bytes("siaddr and giaddr", 8)?;
        let mac = Mac(fields.array("chaddr")?);
        fields.bytes("padding of chaddr", 10)?;
        let sname = fields.bytes("sname", 64)?;
        let file = fields.bytes("file", 128)?;
        if fields.array("cookie")? != [99, 130, 83, 99] {
            return Err(NotAnAnswer::NotDhcp);
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
            Some([2]) => AnswerKind::Offer,
            Some([5]) => AnswerKind::Acknowledged,
            Some([6]) => AnswerKind::Refused,
            _ => return Err(NotAnAnswer::NotDhcp),
        };
        let lease = match kind {
            AnswerKind::Refused => None,
            _ => Some(lease(address, &options).ok_or(NotAnAnswer::NoAddress)?),
        };
        Ok(Self { kind, transaction, mac, lease })
    }
}

fn lease(address: Ipv4Addr, options: &Options) -> Option<ClientLease> {
    let is_host = |address: &Ipv4Addr| {
        let first = address.octets()[0];
        (1..224).contains(&first) && first != 127
    };
    let addresses = |code| {
        let pieces = options.bytes(code).unwrap_or_default().chunks_exact(4);
        pieces.map(|piece| Ipv4Addr::new(piece[0], piece[1], piece[2], piece[3]))
    };
    let server = addresses(54).next().filter(is_host)?;
    Some(ClientLease {
        address: Some(address).filter(is_host)?,
        prefix: options.array(1).and_then(prefix_of).unwrap_or_else(|| class_prefix(address)),
        server,
        router: addresses(3).find(is_host),
        dns: addresses(6).filter(is_host).take(DNS_MAX).collect(),
        domain: options.bytes(15).and_then(domain),
        seconds: seconds(options),
    })
}

/// Length of a mask; `None` if it has holes.
fn prefix_of(mask: [u8; 4]) -> Option<u8> {
    let mask = u32::from_be_bytes(mask);
    let prefix = mask.leading_ones();
    (mask.count_ones() == prefix).then_some(prefix as u8)
}

/// What a server that names no mask means (RFC 950).
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// A name as it may stand in resolv.conf; some servers end it with a NUL.
fn domain(bytes: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!text.is_empty() && text.len() <= 253 && text.bytes().all(is_name)).then(|| text.into())
}

/// T1, T2 and the end (RFC 2131 §4.4.5); times in a wrong order become the usual parts of the end.
fn seconds(options: &Options) -> [u32; 3] {
    let number = |code| options.array(code).map(u32::from_be_bytes);
    let end = number(51).unwrap_or(u32::MAX).max(LEASE_MIN_SECONDS);
    if end == u32::MAX {
        return [u32::MAX; 3];
    }
    let usual = [end / 2, end - end / 8];
    let told = [number(58).unwrap_or(usual[0]), number(59).unwrap_or(usual[1])];
    let is_right = 0 < told[0] && told[0] <= told[1] && told[1] <= end;
    let [renew, rebind] = if is_right { told } else { usual };
    [renew, rebind, end]
}
