//! What stations and switches say on a network to all others: which addresses are in use, and what the switch does.

use super::frame::hear_frames;
use super::link::look_at;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use wire::Mac;

/// Longest frame that is looked at.
const FRAME_MAX: usize = 2048;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;

/// Between two questions for an address: 254 of them are asked in 3 s.
const QUESTION_INTERVAL: Duration = Duration::from_millis(12);

/// Group of the spanning tree (IEEE 802.1D, table 7-10), and Cisco's for each VLAN.
const SPANNING_TREE: [[u8; 6]; 2] =
    [[0x01, 0x80, 0xc2, 0, 0, 0], [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd]];

const ARP: u16 = 0x0806;

/// How ARP for IPv4 over Ethernet begins: both kinds of addresses, and their lengths.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

const LLDP: u16 = 0x88cc;

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overheard {
    /// IPv4 addresses that stations have asked from, or answered for, by ARP.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The switch runs a spanning tree: a port at which a cable is plugged in may pass nothing for 30 s.
    pub has_spanning_tree: bool,
    /// What the switch calls itself (LLDP), and the port.
    pub switch: Option<(String, String)>,
    /// Frames came with VLAN tags: the port is one for several VLANs.
    pub has_tags: bool,
}

impl Overheard {
    /// Listens on `interface` for so long, and asks meanwhile, as `server`, who has the addresses near it: the 254 that
    /// begin with the same three numbers.
    ///
    /// # Errors
    /// The interface is down or gone, or root's rights (CAP_NET_RAW) are missing.
    pub async fn listen(interface: &str, server: Ipv4Addr, time: Duration) -> io::Result<Self> {
        let mac = look_at(interface, server)?.mac.ok_or(io::ErrorKind::NotFound)?;
        let near = server.to_bits() & !0xff;
        let mut wanted = (near + 1..near + 255).map(Ipv4Addr::from_bits).filter(|it| *it != server);
        let mut turns = tokio::time::interval(QUESTION_INTERVAL);
        // What arrives are whole frames, as datagrams are, so tokio's socket for those serves.
        let frames = UdpSocket::from_std(hear_frames(interface, false)?.into())?;
        let tagged = UdpSocket::from_std(hear_frames(interface, true)?.into())?;
        let mut heard = Self::default();
        let (mut frame, mut of_vlan) = (vec![0; FRAME_MAX], [0; 64]);
        let end = Instant::now() + time;
        loop {
            // In no order: who floods the network keeps no question from being asked.
            tokio::select! {
                () = sleep_until(end) => return Ok(heard),
                read = frames.recv(&mut frame) => heard.hear(&frame[..read?]),
                _ = turns.tick() => if let Some(address) = wanted.next() {
                    frames.send(&arp_question(mac, server, address)).await?;
                },
                read = tagged.recv(&mut of_vlan) => {
                    read?;
                    heard.has_tags = true;
                }
            }
        }
    }

    /// A frame, from its destination on, without its VLAN tag.
    pub fn hear(&mut self, frame: &[u8]) {
        let (Some(to), Some(kind), Some(content)) =
            (frame.get(..6), frame.get(12..14), frame.get(14..))
        else {
            return;
        };
        self.has_spanning_tree |= SPANNING_TREE.iter().any(|group| group == to);
        match u16::from_be_bytes([kind[0], kind[1]]) {
            ARP => {
                let address = arp_sender(content).filter(|_| self.addresses.len() < ADDRESSES_MAX);
                self.addresses.extend(address);
            }
            LLDP => self.switch = switch(content).or(self.switch.take()),
            _ => {}
        }
    }
}

/// A frame to all that asks who has an address (RFC 826).
fn arp_question(mac: Mac, own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let to_all = [&[0xff; 6][..], &mac.0, &ARP.to_be_bytes()];
    let from = [&ARP_OF_IPV4[..], &[0, 1], &mac.0, &own.octets()];
    [&to_all.concat()[..], &from.concat(), &[0; 6], &wanted.octets()].concat()
}

/// Whose address an ARP packet tells (RFC 826), if it has one.
fn arp_sender(packet: &[u8]) -> Option<Ipv4Addr> {
    if !packet.starts_with(&ARP_OF_IPV4) {
        return None;
    }
    let address: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
    let address = Ipv4Addr::from(address);
    (!address.is_unspecified()).then_some(address)
}

/// Names of a system and its port in an LLDP message (IEEE 802.1AB, 8.4 and 8.5).
fn switch(mut message: &[u8]) -> Option<(String, String)> {
    const PORT_DESCRIPTION: u8 = 4;
    const SYSTEM_NAME: u8 = 5;
    let (mut name, mut port) = (None, String::new());
    while let [high, low, rest @ ..] = message {
        let length = usize::from(*high & 1) << 8 | usize::from(*low);
        let Some(value) = rest.get(..length) else { break };
        let text = || {
            let text = String::from_utf8_lossy(value);
            text.chars().filter(|it| !it.is_control()).take(64).collect::<String>()
        };
        match high >> 1 {
            0 => break,
            PORT_DESCRIPTION => port = text(),
            SYSTEM_NAME => name = Some(text()),
            _ => {}
        }
        message = &rest[length..];
    }
    Some((name?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: [u8; 6], kind: u16, content: &[u8]) -> Vec<u8> {
        [&to[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes(), content].concat()
    }

    fn frames() -> [Vec<u8>; 3] {
        let arp = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &[2, 0, 0, 0, 0, 9, 10, 0, 5, 20],
            &[0, 0, 0, 0, 0, 0, 10, 0, 5, 1],
        ];
        let lldp = [&[2, 7, 4][..], &[0; 6], &[8, 3], b"p12", &[10, 7], b"sw-lab\x1b", &[0, 0]];
        [
            frame([0xff; 6], ARP, &arp.concat()),
            frame(SPANNING_TREE[0], 38, &[0x42, 0x42, 3]),
            frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], LLDP, &lldp.concat()),
        ]
    }

    #[test]
    fn stations_and_switches_are_understood() {
        let mut heard = Overheard::default();
        for frame in frames() {
            heard.hear(&frame);
        }
        let switch = Some(("sw-lab".to_owned(), "p12".to_owned()));
        let addresses = BTreeSet::from([Ipv4Addr::new(10, 0, 5, 20)]);
        assert_eq!(
            heard,
            Overheard { addresses, has_spanning_tree: true, switch, has_tags: false }
        );
    }

    #[test]
    fn no_prefix_of_a_frame_panics() {
        for frame in frames() {
            for length in 0..frame.len() {
                Overheard::default().hear(&frame[..length]);
            }
        }
        let mut heard = Overheard::default();
        let own = Ipv4Addr::new(10, 0, 5, 1);
        let question = arp_question(Mac([2, 0, 0, 0, 0, 9]), own, own);
        assert_eq!((question.len(), arp_sender(&question[14..])), (42, Some(own)));
        let mut probe = frames()[0].clone();
        probe[28..32].fill(0);
        heard.hear(&probe);
        assert_eq!(heard, Overheard::default(), "who looks for an address has none yet");
    }
}
