//! The little netlink that a boot needs: one request, one answer.

use rustix::fd::OwnedFd;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with, sockopt,
};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use wire::Route;

/// Largest answer that is read; the kernel's own messages for one object stay below 8 KiB.
const ANSWER_MAX: usize = 32 * 1024;

/// The kernel answers at once; this only bounds a wait that should not exist.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const NLMSG_ERROR: u16 = 2;
const HEADER_SIZE: usize = 16;
const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
/// Create it, or replace what is there.
const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
const NESTED: u16 = 0x8000;
const GENERIC_HEADER_SIZE: usize = 4;
const GENERIC_CONTROL: u16 = 16;

/// A message under construction; lengths are filled in as it grows.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST_AND_ACK | flags).to_ne_bytes());
        // Sequence number: one request at a time and socket, so any will do.
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        Self { bytes }
    }

    /// A message to a generic netlink family.
    pub(crate) fn generic(family: u16, command: u8) -> Self {
        Self::new(family, 0).bytes(&[command, 1, 0, 0])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.append_attribute(kind, value);
        self
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u64(self, kind: u16, value: u64) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A text with the NUL that the kernel wants.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let inner = fill(Self { bytes: Vec::new() });
        self.append_attribute(kind | NESTED, &inner.bytes);
        self
    }

    fn append_attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("our attributes are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("our messages are short");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket.
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// For network interfaces, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// For the families of generic netlink.
    pub(crate) fn generic() -> io::Result<Self> {
        Self::open(Some(netlink::GENERIC))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd })
    }

    /// Sends a request and waits until the kernel has done it; returns the payload of its answers.
    pub(crate) fn request(&self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        sendto(&self.fd, &message.finish(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut payloads = Vec::new();
        let mut buffer = vec![0; ANSWER_MAX];
        loop {
            let (received, _) = recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty())?;
            for answer in parse_answers(&buffer[..received.min(ANSWER_MAX)]) {
                match answer? {
                    Answer::Payload(payload) => payloads.push(payload),
                    Answer::Done => return Ok(payloads),
                }
            }
        }
    }

    /// Number of a generic netlink family; it exists once its module is loaded.
    pub(crate) fn family(&self, name: &str) -> io::Result<u16> {
        const GET_FAMILY: u8 = 3;
        const FAMILY_ID: u16 = 1;
        const FAMILY_NAME: u16 = 2;
        let request = Message::generic(GENERIC_CONTROL, GET_FAMILY).text(FAMILY_NAME, name);
        let answers = self.request(request)?;
        let id = answers.iter().find_map(|answer| {
            let attributes = answer.get(GENERIC_HEADER_SIZE..)?;
            find_attribute(attributes, FAMILY_ID)?.first_chunk().copied().map(u16::from_ne_bytes)
        });
        id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no family number"))
    }
}

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Payload(Vec<u8>),
    Done,
}

/// Splits a datagram of the kernel. A message that does not fit ends the list.
fn parse_answers(mut bytes: &[u8]) -> Vec<io::Result<Answer>> {
    let mut answers = Vec::new();
    while let Some((length, kind)) = header(bytes) {
        let Some(payload) = bytes.get(HEADER_SIZE..length) else { break };
        answers.push(if kind == NLMSG_ERROR {
            match payload.first_chunk().copied().map(i32::from_ne_bytes) {
                Some(0) => Ok(Answer::Done),
                Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
                None => Err(io::ErrorKind::InvalidData.into()),
            }
        } else {
            Ok(Answer::Payload(payload.to_vec()))
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    Some((usize::try_from(length).ok()?, kind))
}

/// Value of the first attribute of this kind.
fn find_attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Requests about interfaces (rtnetlink(7)).
const NEW_LINK: u16 = 16;

/// `struct ifinfomsg`: family and kind, index, flags, and which of the flags are to change.
fn link_message(message_flags: u16, index: u32, flags: u32) -> Message {
    let words = [0, index, flags, flags];
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Message::new(NEW_LINK, message_flags).bytes(&body)
}

/// Sets a network interface up.
pub(crate) fn link_up(socket: &Socket, index: u32) -> io::Result<()> {
    const UP: u32 = 1;
    socket.request(link_message(0, index, UP)).map(drop)
}

/// Sets a network interface down.
pub(crate) fn link_down(socket: &Socket, index: u32) -> io::Result<()> {
    const UP: u32 = 1;
    // Flags that are clear, of which this one is to change.
    let words = [0, index, 0, UP];
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    socket.request(Message::new(NEW_LINK, 0).bytes(&body)).map(drop)
}

/// Sets how large an interface's packets may be.
pub(crate) fn set_mtu(socket: &Socket, index: u32, mtu: u32) -> io::Result<()> {
    const MTU: u16 = 4;
    socket.request(link_message(0, index, 0).u32(MTU, mtu)).map(drop)
}

/// Makes an interface for one VLAN of another (IEEE 802.1Q).
pub(crate) fn add_vlan(socket: &Socket, parent: u32, name: &str, vlan: u16) -> io::Result<()> {
    const CREATE: u16 = 0x400 | 0x200;
    const NAME: u16 = 3;
    const LINK: u16 = 5;
    const LINK_INFO: u16 = 18;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const VLAN_ID: u16 = 1;
    let message =
        link_message(CREATE, 0, 0).u32(LINK, parent).text(NAME, name).nested(LINK_INFO, |info| {
            info.text(KIND, "vlan")
                .nested(DATA, |data| data.attribute(VLAN_ID, &vlan.to_ne_bytes()))
        });
    socket.request(message).map(drop)
}

/// Gives an interface its address, for as long as it lives.
pub(crate) fn add_address(
    socket: &Socket,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    const NEW_ADDRESS: u16 = 20;
    let message = Message::new(NEW_ADDRESS, CREATE_OR_REPLACE);
    socket.request(address_message(message, index, address, prefix)).map(drop)
}

/// Takes an address away from an interface.
pub(crate) fn delete_address(
    socket: &Socket,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    const DELETE_ADDRESS: u16 = 21;
    let message = Message::new(DELETE_ADDRESS, 0);
    socket.request(address_message(message, index, address, prefix)).map(drop)
}

fn address_message(message: Message, index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const BROADCAST: u16 = 4;
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
    let mut message = message
        .bytes(&[INET, prefix, 0, 0])
        .bytes(&index.to_ne_bytes())
        .attribute(LOCAL, &address.octets())
        .attribute(ADDRESS, &address.octets());
    // Networks of one or two addresses have none (RFC 3021).
    if prefix < 31 {
        message = message.attribute(BROADCAST, &broadcast.octets());
    }
    message
}

const INET: u8 = 2;

/// Sets a route, also to a router that is not in the interface's own network.
pub(crate) fn add_route(socket: &Socket, index: u32, route: Route) -> io::Result<()> {
    socket.request(route_message(index, route)).map(drop)
}

fn route_message(index: u32, route: Route) -> Message {
    const NEW_ROUTE: u16 = 24;
    const MAIN_TABLE: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    const EVERYWHERE: u8 = 0;
    const LINK: u8 = 253;
    const ON_LINK: u32 = 4;
    const DESTINATION: u16 = 1;
    const OUTPUT_INTERFACE: u16 = 4;
    const GATEWAY: u16 = 5;
    let has_router = !route.via.is_unspecified();
    let (scope, flags) = if has_router { (EVERYWHERE, ON_LINK) } else { (LINK, 0) };
    let mut message = Message::new(NEW_ROUTE, CREATE_OR_REPLACE)
        .bytes(&[INET, route.prefix, 0, 0, MAIN_TABLE, PROTOCOL_STATIC, scope, UNICAST])
        .bytes(&flags.to_ne_bytes());
    if route.prefix > 0 {
        message = message.attribute(DESTINATION, &route.to.octets());
    }
    if has_router {
        message = message.attribute(GATEWAY, &route.via.octets());
    }
    message.u32(OUTPUT_INTERFACE, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_kernel_reads_it() {
        let message = |address: [u8; 4], prefix| {
            let message = Message::new(20, CREATE_OR_REPLACE);
            address_message(message, 2, address.into(), prefix).finish()
        };
        let bytes = message([10, 0, 0, 5], 24);
        assert_eq!(bytes.len(), 16 + 8 + 3 * 8);
        assert_eq!(bytes[..4], 48u32.to_ne_bytes());
        assert_eq!(bytes[16..18], [2, 24]);
        assert_eq!(find_attribute(&bytes[24..], 4), Some(&[10, 0, 0, 255][..]));
        let bytes = message([10, 0, 0, 5], 32);
        assert_eq!(find_attribute(&bytes[24..], 4), None);
        let nested =
            Message::generic(30, 1).nested(7, |m| m.nested(1, |m| m.u32(1, 9))).text(10, "abc");
        let bytes = nested.finish();
        let sockets = find_attribute(&bytes[20..], 7).unwrap();
        let item = find_attribute(sockets, 1).unwrap();
        assert_eq!(find_attribute(item, 1), Some(&9u32.to_ne_bytes()[..]));
        assert_eq!(find_attribute(&bytes[20..], 10), Some(&b"abc\0"[..]));
    }

    #[test]
    fn a_route_has_what_it_needs_and_no_more() {
        let message = |text: &str| route_message(3, text.parse().unwrap()).finish();
        let of_all = message("0.0.0.0/0:10.0.0.254");
        assert_eq!(of_all[16..18], [2, 0]);
        assert_eq!(find_attribute(&of_all[28..], 1), None);
        assert_eq!(find_attribute(&of_all[28..], 5), Some(&[10, 0, 0, 254][..]));
        let of_a_network = message("10.9.0.0/16:10.0.0.254");
        assert_eq!((of_a_network[17], of_a_network[22]), (16, 0));
        assert_eq!(find_attribute(&of_a_network[28..], 1), Some(&[10, 9, 0, 0][..]));
        let on_the_link = message("10.9.0.7/32:0.0.0.0");
        assert_eq!((on_the_link[17], on_the_link[22]), (32, 253));
        assert_eq!(find_attribute(&on_the_link[28..], 5), None);
        assert_eq!(find_attribute(&on_the_link[28..], 4), Some(&3u32.to_ne_bytes()[..]));
    }

    #[test]
    fn answers_are_told_apart() {
        let mut bytes = Message::new(99, 0).bytes(&[1, 2, 3]).finish();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(Message::new(NLMSG_ERROR, 0).bytes(&0i32.to_ne_bytes()).finish());
        let answers: Vec<Answer> = parse_answers(&bytes).into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [Answer::Payload(vec![1, 2, 3]), Answer::Done]);
        let refused = Message::new(NLMSG_ERROR, 0).bytes(&(-17i32).to_ne_bytes()).finish();
        let error = parse_answers(&refused).remove(0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(17));
        for end in 0..bytes.len() {
            let _ = parse_answers(&bytes[..end]);
            let _ = find_attribute(&bytes[..end], 1);
        }
        let zero_length = [0u8; 32];
        assert!(parse_answers(&zero_length).is_empty());
        assert_eq!(find_attribute(&zero_length, 1), None);
    }
}
