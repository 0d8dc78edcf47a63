//! UDP to clients that do not answer ARP for their address yet: the headers are written here, and the
//! kernel puts the frame on the wire; and frames as they come. Unsafe code is here because no library can name a
//! link-layer address, or join a group of stations.

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use wire::Mac;

const IP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;

/// Sends datagrams from port 67 to port 68 in frames to named stations.
pub(super) struct FrameSender {
    socket: Socket,
    interface: i32,
    source: Ipv4Addr,
}

impl FrameSender {
    pub(super) fn open(interface: &str, source: Ipv4Addr) -> io::Result<Self> {
        // Protocol 0: this socket receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        let interface = nix::net::if_::if_nametoindex(interface)?;
        Ok(Self { socket, interface: interface.cast_signed(), source })
    }

    pub(super) fn send(&self, mac: Mac, address: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let ports = (dhcp::SERVER_PORT, dhcp::CLIENT_PORT);
        let packet = datagram(self.source, address, ports, payload)?;
        self.socket.send_to(&packet, &link_address(self.interface, mac)).map(drop)
    }

    /// Asks all servers, like a client that has no address. Servers on this host don't hear it.
    pub(super) fn ask(&self, payload: &[u8]) -> io::Result<()> {
        let ports = (dhcp::CLIENT_PORT, dhcp::SERVER_PORT);
        let packet = datagram(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, ports, payload)?;
        self.socket.send_to(&packet, &link_address(self.interface, Mac([0xff; 6]))).map(drop)
    }
}

/// A socket that hears the IPv4 packets with UDP to that port which come to `interface`, whoever has the port.
pub(super) fn hear_ip(interface: &str, port: u16) -> io::Result<Socket> {
    // Protocol 0: it hears nothing before it has its filter.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    // Classic BPF over the IP header. A jump counts the instructions that it leaves out.
    let instruction = |code: u32, k: u32, jump_true: u8, jump_false: u8| {
        SockFilter::new(code as u16, jump_true, jump_false, k)
    };
    let (load, jump_equal, end) = (libc::BPF_LD, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let packet_kind = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    socket.attach_filter(&[
        instruction(load | libc::BPF_B | libc::BPF_ABS, packet_kind, 0, 0),
        instruction(jump_equal, libc::PACKET_OUTGOING.into(), 6, 0),
        instruction(load | libc::BPF_B | libc::BPF_ABS, 9, 0, 0),
        instruction(jump_equal, 17, 0, 4),
        // X is the length of the IP header.
        instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        instruction(load | libc::BPF_H | libc::BPF_IND, 2, 0, 0),
        instruction(jump_equal, port.into(), 0, 1),
        instruction(end, u32::MAX, 0, 0),
        instruction(end, 0, 0, 0),
    ])?;
    let interface = nix::net::if_::if_nametoindex(interface)?;
    socket.bind(&link_address(interface.cast_signed(), Mac([0; 6])))?;
    Ok(socket)
}

/// A socket that hears all frames that come to `interface` for this host, for all stations or for any group of them, without
/// their VLAN tags; or, if `is_tagged`, those that have one only.
pub(super) fn hear_frames(interface: &str, is_tagged: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    let instruction = |code: u32, k: u32, jump_true: u8, jump_false: u8| {
        SockFilter::new(code as u16, jump_true, jump_false, k)
    };
    let (load, jump_equal, end) = (libc::BPF_LD, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let of_packet = |field: i32| (libc::SKF_AD_OFF + field) as u32;
    socket.attach_filter(&[
        instruction(load | libc::BPF_W | libc::BPF_ABS, of_packet(libc::SKF_AD_PKTTYPE), 0, 0),
        instruction(jump_equal, libc::PACKET_OUTGOING.into(), 3, 0),
        instruction(load | libc::BPF_W | libc::BPF_ABS, of_packet(VLAN_TAG_PRESENT), 0, 0),
        instruction(jump_equal, 0, u8::from(is_tagged), 0),
        instruction(end, u32::MAX, 0, 0),
        instruction(end, 0, 0, 0),
    ])?;
    let interface = nix::net::if_::if_nametoindex(interface)?.cast_signed();
    socket.bind(&address_of(interface, Mac([0; 6]), libc::ETH_P_ALL as u16))?;
    let groups = libc::packet_mreq {
        mr_ifindex: interface,
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
    let length = size_of::<libc::packet_mreq>() as libc::socklen_t;
    // SAFETY: the kernel reads a packet_mreq of this length, which lives until the call returns.
    let joined = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const groups).cast(), length)
    };
    if joined == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// A socket for ARP on `interface`, which hears only the answers to [probes](super::arp): those that are for no address.
pub(super) fn arp(interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    let instruction = |code: u32, k: u32, jump_true: u8, jump_false: u8| {
        SockFilter::new(code as u16, jump_true, jump_false, k)
    };
    let (load, jump_equal, end) = (libc::BPF_LD, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    socket.attach_filter(&[
        // The operation, and the target's protocol address (RFC 826).
        instruction(load | libc::BPF_H | libc::BPF_ABS, 6, 0, 0),
        instruction(jump_equal, 2, 0, 3),
        instruction(load | libc::BPF_W | libc::BPF_ABS, 24, 0, 0),
        instruction(jump_equal, 0, 0, 1),
        instruction(end, u32::MAX, 0, 0),
        instruction(end, 0, 0, 0),
    ])?;
    let interface = nix::net::if_::if_nametoindex(interface)?;
    let protocol = libc::ETH_P_ARP as u16;
    socket.bind(&address_of(interface.cast_signed(), Mac([0; 6]), protocol))?;
    Ok(socket)
}

/// Where ARP for everybody on `interface` is sent.
pub(super) fn everybody(interface: &str) -> io::Result<SockAddr> {
    arp_address(interface, Mac::BROADCAST)
}

/// Where a station behind `interface` hears ARP that is for it alone.
pub(super) fn arp_address(interface: &str, mac: Mac) -> io::Result<SockAddr> {
    let interface = nix::net::if_::if_nametoindex(interface)?;
    Ok(address_of(interface.cast_signed(), mac, libc::ETH_P_ARP as u16))
}

/// Of `linux/filter.h`: whether the kernel has taken a VLAN tag off a frame.
const VLAN_TAG_PRESENT: i32 = 48;

/// An IPv4 packet (RFC 791) with a UDP datagram (RFC 768), from and to these ports.
fn datagram(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ports: (u16, u16),
    payload: &[u8],
) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::other("the reply is longer than an IP packet");
    let udp_length = u16::try_from(UDP_HEADER_BYTES + payload.len()).map_err(too_long)?;
    let length = udp_length
        .checked_add(IP_HEADER_BYTES as u16)
        .ok_or_else(|| io::Error::other("the reply is longer than an IP packet"))?;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    // No fragments; 64 hops; UDP; checksum follows.
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let checksum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut udp = Vec::with_capacity(udp_length.into());
    udp.extend_from_slice(&ports.0.to_be_bytes());
    udp.extend_from_slice(&ports.1.to_be_bytes());
    udp.extend_from_slice(&udp_length.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    let [high, low] = udp_length.to_be_bytes();
    let pseudo_header = [0, 17, high, low];
    let checksum =
        match self::checksum(&[&source.octets(), &destination.octets(), &pseudo_header, &udp]) {
            // 0 would mean "none".
            0 => u16::MAX,
            other => other,
        };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(&udp);
    Ok(packet)
}

/// The Internet checksum (RFC 1071). All parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&byte| u32::from(byte)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

fn link_address(interface: i32, mac: Mac) -> SockAddr {
    address_of(interface, mac, libc::ETH_P_IP as u16)
}

fn address_of(interface: i32, mac: Mac, protocol: u16) -> SockAddr {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac.0);
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every kind of socket address, and all
    // zeroes are a valid sockaddr_ll; the view ends with this statement.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() } = link;
    // SAFETY: the storage holds a sockaddr_ll of exactly this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_finds_both_checksums_right() {
        for payload in [&b"odd"[..], b"even", b""] {
            let (server, client) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 100));
            let packet = datagram(server, client, (67, 68), payload).unwrap();
            assert_eq!(checksum(&[&packet[..20]]), 0, "IP header");
            let length = (packet.len() as u16 - 20).to_be_bytes();
            let pseudo_header = [0, 17, length[0], length[1]];
            assert_eq!(checksum(&[&packet[12..20], &pseudo_header, &packet[20..]]), 0, "UDP");
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }
}
