//! ARP probes (RFC 5227 section 2.1.1): who has an address, asked by somebody who has none yet, so that nobody's table changes.

use super::frame;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::Ipv4Addr;
use tokio::net::UdpSocket;
use wire::Mac;

/// A packet for IPv4 over Ethernet (RFC 826).
const PACKET_BYTES: usize = 28;

/// What each begins with: Ethernet, IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Asks on one interface, and hears who answers.
pub(crate) struct Arp {
    sender: Socket,
    receiver: UdpSocket,
    everybody: SockAddr,
    interface: String,
    own: Mac,
}

impl Arp {
    /// On `interface`, whose hardware address is `own`.
    ///
    /// # Errors
    /// The interface is not there, or this process may not.
    pub(crate) fn open(interface: &str, own: Mac) -> io::Result<Self> {
        let sender = frame::arp(interface)?;
        // What arrives are whole packets, as datagrams are, so tokio's socket for those serves.
        let receiver = UdpSocket::from_std(sender.try_clone()?.into())?;
        let everybody = frame::everybody(interface)?;
        Ok(Self { sender, receiver, everybody, interface: interface.to_owned(), own })
    }

    /// Asks who has the address. A full queue is no error: it is asked again some other time.
    ///
    /// # Errors
    /// Nothing can be sent on the interface.
    pub(crate) fn probe(&self, address: Ipv4Addr) -> io::Result<()> {
        self.send(address, &self.everybody)
    }

    /// Asks one station alone whether it has the address.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub(crate) fn probe_at(&self, mac: Mac, address: Ipv4Addr) -> io::Result<()> {
        self.send(address, &frame::arp_address(&self.interface, mac)?)
    }

    fn send(&self, address: Ipv4Addr, to: &SockAddr) -> io::Result<()> {
        match self.sender.send_to(&probe(self.own, address), to) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Who has which address, as the next one answers.
    ///
    /// # Errors
    /// Nothing can be received on the interface.
    pub(crate) async fn answer(&self) -> io::Result<(Mac, Ipv4Addr)> {
        loop {
            let mut packet = [0; PACKET_BYTES];
            let length = self.receiver.recv(&mut packet).await?;
            if let Some(answer) = parse(&packet[..length]) {
                return Ok(answer);
            }
        }
    }
}

fn probe(own: Mac, address: Ipv4Addr) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[..6].copy_from_slice(&KIND);
    packet[7] = 1;
    packet[8..14].copy_from_slice(&own.0);
    packet[24..].copy_from_slice(&address.octets());
    packet
}

/// Who says that he has which address, in an ARP packet without its Ethernet header; `None` if it is no answer, or not about IPv4.
pub fn parse(packet: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let packet: &[u8; PACKET_BYTES] = packet.get(..PACKET_BYTES)?.try_into().ok()?;
    let is_answer = packet[..6] == KIND && packet[6..8] == [0, 2];
    let (mac, address) = (packet.get(8..14)?.try_into().ok()?, packet.get(14..18)?);
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?);
    (is_answer && !address.is_unspecified()).then_some((Mac(mac), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_without_an_address_and_its_answer_is_read() {
        let address = Ipv4Addr::new(10, 77, 0, 100);
        let packet = probe(Mac([2, 0, 0, 0, 0, 1]), address);
        assert_eq!(packet[14..18], [0; 4], "it would change tables");
        assert_eq!(parse(&packet), None, "a question is no answer");
        let who = Mac([2, 0, 0, 0, 0, 9]);
        let mut answer = packet;
        answer[7] = 2;
        answer[8..14].copy_from_slice(&who.0);
        answer[14..18].copy_from_slice(&address.octets());
        assert_eq!(parse(&answer), Some((who, address)));
        for end in 0..answer.len() {
            assert_eq!(parse(&answer[..end]), None);
        }
        answer[5] = 16;
        assert_eq!(parse(&answer), None, "IPv6");
    }
}
