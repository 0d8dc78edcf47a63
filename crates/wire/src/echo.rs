//! ICMP echo (RFC 792) in packets that no router may cut (RFC 791, "don't fragment"): bytes only.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

const IP_HEADER_BYTES: usize = 20;
const ICMP_HEADER_BYTES: usize = 8;

/// A request of one machine, as long as a packet may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Tells the requests of different programs apart.
    pub identifier: u16,
    /// Tells our own apart.
    pub sequence: u16,
    /// Length of the whole IP packet in bytes; at least 28 is taken.
    pub packet_bytes: u16,
}

impl Echo {
    /// The request with its IP header. The kernel fills in source, number and checksum of that (raw(7)).
    pub fn request(self, server: Ipv4Addr) -> Vec<u8> {
        const REQUEST: u8 = 8;
        let length = usize::from(self.packet_bytes).max(IP_HEADER_BYTES + ICMP_HEADER_BYTES);
        let mut icmp = alloc::vec![REQUEST, 0, 0, 0];
        icmp.extend(self.identifier.to_be_bytes());
        icmp.extend(self.sequence.to_be_bytes());
        icmp.resize(length - IP_HEADER_BYTES, b'b');
        let sum = checksum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        let mut packet = alloc::vec![0x45, 0];
        packet.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        // Number 0; don't fragment; 64 hops; ICMP; no checksum, no source.
        packet.extend([0, 0, 0x40, 0, 64, 1, 0, 0, 0, 0, 0, 0]);
        packet.extend(server.octets());
        packet.extend(icmp);
        packet
    }

    /// Whether this IP packet is the whole answer to the request, and not damaged.
    pub fn is_answered_by(self, packet: &[u8]) -> bool {
        const ANSWER: [u8; 2] = [0, 0];
        let Some(first) = packet.first() else { return false };
        let Some(icmp) = packet.get(usize::from(first & 15) * 4..) else { return false };
        packet.len() == usize::from(self.packet_bytes)
            && first >> 4 == 4
            && packet.get(9) == Some(&1)
            && icmp.get(..2) == Some(&ANSWER)
            && icmp.get(4..6) == Some(&self.identifier.to_be_bytes())
            && icmp.get(6..8) == Some(&self.sequence.to_be_bytes())
            && checksum(icmp) == 0
    }
}

/// The Internet checksum (RFC 1071); 0 over bytes that hold the right one.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo = Echo { identifier: 0xb007, sequence: 3, packet_bytes: 9000 };

    /// What a server makes of a request.
    fn answer(request: &[u8]) -> Vec<u8> {
        let mut packet = request.to_vec();
        packet[20..24].fill(0);
        let sum = checksum(&packet[20..]).to_be_bytes();
        packet[22..24].copy_from_slice(&sum);
        packet
    }

    #[test]
    fn a_request_fills_a_packet_that_must_not_be_cut() {
        let request = ECHO.request(Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(request.len(), 9000);
        assert_eq!(request[..10], [0x45, 0, 0x23, 0x28, 0, 0, 0x40, 0, 64, 1]);
        assert_eq!(request[16..22], [10, 77, 0, 1, 8, 0]);
        assert_eq!(checksum(&request[20..]), 0);
        // RFC 1071, section 3.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn only_the_whole_answer_counts() {
        let request = ECHO.request(Ipv4Addr::new(10, 77, 0, 1));
        let answer = answer(&request);
        assert!(ECHO.is_answered_by(&answer));
        assert!(!ECHO.is_answered_by(&request));
        assert!(!Echo { sequence: 4, ..ECHO }.is_answered_by(&answer));
        for end in 0..answer.len() {
            assert!(!ECHO.is_answered_by(&answer[..end]), "{end}");
        }
        for at in [0, 9, 20, 24, 8999] {
            let mut damaged = answer.clone();
            damaged[at] ^= 0xff;
            assert!(!ECHO.is_answered_by(&damaged), "{at}");
        }
    }
}
