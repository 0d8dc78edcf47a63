//! What a server says to a client, read from foreign bytes.

use crate::can_be_host;
use crate::message::{FILE_FIELD, Fields, Message, MessageKind, NotDhcp, OVERLOAD_FILE, ReplyKind};
use crate::option_codes::{
    HTTP_CLASS, OPT_BOOT_FILE, OPT_CLASSLESS_ROUTES, OPT_DNS_SERVER, OPT_DOMAIN_NAME,
    OPT_LEASE_TIME, OPT_NTP_SERVER, OPT_OVERLOAD, OPT_REBINDING_TIME, OPT_RENEWAL_TIME, OPT_ROUTER,
    OPT_SERVER_ID, OPT_SUBNET_MASK, OPT_VENDOR_CLASS, PXE_CLASS,
};
use crate::options::Options;
use crate::routes;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Mac, Route};

/// Name servers and time servers that are kept; the resolver of glibc uses three.
const SERVERS_MAX: usize = 3;

/// Without a word of the server about it, a lease lasts so long; also the shortest that is believed: a
/// client must not ask all the time.
const LEASE_MIN_SECONDS: u32 = 10;

/// An address for a time, and what else the network is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLease {
    /// The address that the client has, or could have.
    pub address: Ipv4Addr,
    /// Prefix length of its network, 0 to 32.
    pub prefix: u8,
    /// The server that leases the address.
    pub server: Ipv4Addr,
    /// Default route, if the server names one that a machine can have.
    pub router: Option<Ipv4Addr>,
    /// Routes to other networks than all.
    pub routes: Vec<Route>,
    /// Name servers, the preferred first, at most three.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (NTP), the preferred first, at most three.
    pub ntp: Vec<Ipv4Addr>,
    /// DNS domain, as it may stand in resolv.conf; `None` if the server names none.
    pub domain: Option<String>,
    /// When it is renewed, sought from anybody, and over, in seconds; `u32::MAX` is never. In this order.
    pub seconds: [u32; 3],
}

/// A server's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the server says.
    pub kind: ReplyKind,
    /// Number of the question that is answered.
    pub transaction: u32,
    /// NIC of the client that has asked.
    pub mac: Mac,
    /// Relay that the answer goes through, or 0.0.0.0.
    pub relay: Ipv4Addr,
    /// The lease; of a refusal there is none, nor of a proxy.
    pub lease: Option<ClientLease>,
    /// A server that gives no address, and tells firmware where its loader is (proxyDHCP, PXE 2.1 section 2.2).
    pub proxy: Option<Ipv4Addr>,
    /// The server says that it serves firmware itself: option 60 begins with `PXEClient`. Firmware asks it for its loader then.
    pub serves_firmware: bool,
    /// The loader that it names, by option 67 or the field `file`; never empty.
    pub boot_file: Option<String>,
}

/// The datagram is nothing that a client heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// The datagram is no DHCP message.
    #[error(transparent)]
    NotDhcp(#[from] NotDhcp),
    /// The message is a client's.
    #[error("a client's request, not a server's answer")]
    Request,
    /// An address that no machine can have, or no server.
    #[error("it names no server, or no address that a machine can use")]
    NoAddress,
}

impl Answer {
    /// Reads a datagram. Never panics.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotAnAnswer> {
        let message = Message::parse(datagram)?;
        let MessageKind::Reply(kind) = message.kind else { return Err(NotAnAnswer::Request) };
        let class = message.options.bytes(OPT_VENDOR_CLASS);
        let is_for = |word| class.is_some_and(|class| class.starts_with(word));
        let serves_firmware = is_for(PXE_CLASS);
        let is_proxy = kind != ReplyKind::Nak
            && message.fields.yours.is_unspecified()
            && (serves_firmware || is_for(HTTP_CLASS));
        let proxy = message.options.addresses(OPT_SERVER_ID).next();
        let proxy = proxy.filter(|server| is_proxy && can_be_host(*server));
        let lease = match kind {
            ReplyKind::Nak => None,
            ReplyKind::Offer | ReplyKind::Ack if proxy.is_some() => None,
            ReplyKind::Offer | ReplyKind::Ack => {
                Some(lease(message.fields.yours, &message.options).ok_or(NotAnAnswer::NoAddress)?)
            }
        };
        let Fields { transaction, mac, relay, .. } = message.fields;
        let options = &message.options;
        let overload = options.array(OPT_OVERLOAD).map_or(0, |[fields]| fields);
        let field = datagram.get(FILE_FIELD).filter(|_| overload & OVERLOAD_FILE == 0);
        let boot_file = options.bytes(OPT_BOOT_FILE).or(field).and_then(shown);
        Ok(Self { kind, transaction, mac, relay, lease, proxy, serves_firmware, boot_file })
    }
}

/// Text up to a NUL; `None` if there is none.
fn shown(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text);
    let text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    (!text.is_empty()).then_some(text)
}

fn lease(address: Ipv4Addr, options: &Options) -> Option<ClientLease> {
    let is_host = |address: &Ipv4Addr| can_be_host(*address);
    let server = options.addresses(OPT_SERVER_ID).next().filter(is_host)?;
    let prefix =
        options.array(OPT_SUBNET_MASK).and_then(prefix_of).unwrap_or_else(|| class_prefix(address));
    let told = options.bytes(OPT_CLASSLESS_ROUTES).and_then(routes::parse);
    let own = Route::new(address, prefix, Ipv4Addr::UNSPECIFIED);
    let is_in_own = |route: &Route| {
        let with_own_prefix = Route::new(route.to, prefix, Ipv4Addr::UNSPECIFIED);
        route.prefix >= prefix && with_own_prefix == own
    };
    // One without a router says that the network is on the link. What is in the client's own network is, and is led nowhere else:
    // the servers may be there.
    let can_be =
        |route: &Route| (route.via.is_unspecified() || is_host(&route.via)) && !is_in_own(route);
    let (defaults, routes): (Vec<Route>, Vec<Route>) =
        told.iter().flatten().filter(|route| can_be(route)).partition(|route| route.prefix == 0);
    Some(ClientLease {
        address: Some(address).filter(is_host)?,
        prefix,
        server,
        router: match &told {
            Some(_) => defaults.iter().map(|route| route.via).find(is_host),
            None => options.addresses(OPT_ROUTER).find(is_host),
        },
        routes,
        dns: options.addresses(OPT_DNS_SERVER).filter(is_host).take(SERVERS_MAX).collect(),
        ntp: options.addresses(OPT_NTP_SERVER).filter(is_host).take(SERVERS_MAX).collect(),
        domain: options.bytes(OPT_DOMAIN_NAME).and_then(domain),
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
    let end = options.u32(OPT_LEASE_TIME).unwrap_or(u32::MAX).max(LEASE_MIN_SECONDS);
    if end == u32::MAX {
        return [u32::MAX; 3];
    }
    let usual = [end / 2, end - end / 8];
    let told = [
        options.u32(OPT_RENEWAL_TIME).unwrap_or(usual[0]),
        options.u32(OPT_REBINDING_TIME).unwrap_or(usual[1]),
    ];
    let is_right = 0 < told[0] && told[0] <= told[1] && told[1] <= end;
    let [renew, rebind] = if is_right { told } else { usual };
    [renew, rebind, end]
}
