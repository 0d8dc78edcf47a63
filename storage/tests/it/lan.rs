//! A wire between two interfaces in a network namespace of its own, and an AoE initiator on it.

use crate::succeed;
use aoe::{AtaCommand, AtaRequest, Header, Request, RequestBody, emit_request};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockaddrLike, bind};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use wire::Mac;

pub(crate) const SERVER: &str = "srv0";
pub(crate) const CLIENT: &str = "cli0";
pub(crate) const CLIENT_MAC: &str = "52:54:00:00:00:01";
pub(crate) const SERVER_MAC: &str = "52:54:00:00:00:fe";

/// Takes the calling thread, and what it starts from now on, into a new network namespace with a
/// wire between [`SERVER`] and [`CLIENT`]. It vanishes with the last of them.
pub(crate) fn enter(mtu: u32) {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
    connect(mtu);
}

/// Lays the wire.
pub(crate) fn connect(mtu: u32) {
    let mtu = mtu.to_string();
    let words = ["link", "add", SERVER, "mtu", &mtu, "address", SERVER_MAC, "type", "veth"];
    let peer = ["peer", "name", CLIENT, "mtu", &mtu, "address", CLIENT_MAC];
    succeed("ip", &[&words[..], &peer[..]].concat());
    for interface in ["lo", SERVER, CLIENT] {
        succeed("ip", &["link", "set", interface, "up"]);
    }
}

/// The machine's side of AoE.
pub(crate) struct Initiator {
    socket: Socket,
    next_tag: u32,
}

/// Status and data of a reply to an ATA command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u8,
    pub(crate) error: u8,
    pub(crate) data: Vec<u8>,
}

impl Initiator {
    pub(crate) fn new() -> Self {
        let protocol = Protocol::from(i32::from(aoe::ETHERTYPE.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        let index = if_nametoindex(CLIENT).unwrap();
        let is_client = |address: &LinkAddr| address.ifindex() == index as usize;
        let address = nix::ifaddrs::getifaddrs()
            .unwrap()
            .filter_map(|interface| interface.address)
            .filter(|address| address.family() == Some(AddressFamily::Packet))
            .find_map(|address| address.as_link_addr().copied().filter(is_client))
            .unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        Self { socket, next_tag: 1 }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.socket.send(frame).unwrap();
    }

    /// The next answer to this machine; `None` if there is none in time.
    pub(crate) fn response(&mut self, patience: Duration) -> Option<Vec<u8>> {
        self.hear(patience, |frame| !is_announcement(frame))
    }

    /// The next announcement to this machine, which nobody asked for; `None` if there is none in time.
    pub(crate) fn announcement(&mut self, patience: Duration) -> Option<Vec<u8>> {
        self.hear(patience, is_announcement)
    }

    fn hear(&mut self, patience: Duration, wanted: fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let Ok(length) = self.socket.read(&mut buffer) else { return None };
            let frame = &buffer[..length];
            let is_response = frame[14] & 0x08 != 0;
            if frame[..6] == client_mac().0 && is_response && wanted(frame) {
                assert!(length >= 60, "a frame of {length} bytes is shorter than Ethernet's");
                return Some(frame.to_vec());
            }
        }
    }

    /// Sends a command to 1.1 and waits for its reply; as Linux does, again with a new tag after a
    /// while.
    pub(crate) fn ata(&mut self, command: AtaCommand, sectors: u8, data: &[u8]) -> Reply {
        for _ in 0..20 {
            let tag = self.next_tag;
            self.next_tag += 1;
            self.send(&ata_frame(tag, command, sectors, data));
            while let Some(frame) = self.response(Duration::from_millis(500)) {
                if frame[20..24] == tag.to_be_bytes() && frame[19] == 0 {
                    assert_eq!(frame[14], 0x18, "no AoE error");
                    let data = frame[36..].to_vec();
                    return Reply { status: frame[27], error: frame[25], data };
                }
            }
        }
        panic!("no reply to {command:?}");
    }

    pub(crate) fn write(&mut self, lba: u64, data: &[u8]) {
        let sectors = (data.len() / aoe::SECTOR_BYTES) as u8;
        let reply = self.ata(AtaCommand::Write { lba, fua: false }, sectors, data);
        assert_eq!(reply.status, 0x40, "write at {lba}");
    }

    pub(crate) fn read(&mut self, lba: u64, sectors: u8) -> Vec<u8> {
        let reply = self.ata(AtaCommand::Read { lba }, sectors, &[]);
        assert_eq!(reply.status, 0x40, "read at {lba}");
        reply.data
    }
}

/// A Query Config response with tag 0.
fn is_announcement(frame: &[u8]) -> bool {
    frame[19..24] == [1, 0, 0, 0, 0]
}

pub(crate) fn client_mac() -> Mac {
    CLIENT_MAC.parse().unwrap()
}

/// A request of this machine to 1.1.
pub(crate) fn ata_frame(tag: u32, command: AtaCommand, sectors: u8, data: &[u8]) -> Vec<u8> {
    let destination = SERVER_MAC.parse().unwrap();
    let header = Header { destination, source: client_mac(), shelf: 1, slot: 1, tag };
    let body = RequestBody::Ata(AtaRequest { command, sectors, data });
    emit_request(&Request { header, body })
}
