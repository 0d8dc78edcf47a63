//! TCP as a loader has it: it opens a connection from the port that it had before it was switched off, and does not
//! know what to do when it is told that the connection is open already.

use crate::packet::raw_socket;
use socket2::Socket;
use std::io::{self, Read as _};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};
use wire::Mac;

const IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;

/// Room for what the server sends at once.
const WINDOW: u16 = 8192;

/// One end of a connection, on an interface that has no address.
#[derive(Debug)]
pub struct LoaderTcp {
    socket: Socket,
    macs: (Mac, Mac),
    ours: SocketAddrV4,
    server: SocketAddrV4,
    sequence: u32,
    acknowledged: u32,
}

/// What the server has sent.
struct Segment {
    flags: u8,
    sequence: u32,
    payload: Vec<u8>,
}

impl LoaderTcp {
    /// A loader at `ours`, whose NIC is `interface`, and a server that it knows already.
    ///
    /// # Errors
    /// There is no such interface, or we are not root.
    pub fn open(
        interface: &str,
        (mac, ours): (Mac, SocketAddrV4),
        (server_mac, server): (Mac, SocketAddrV4),
    ) -> io::Result<Self> {
        let socket = raw_socket(interface, IPV4)?;
        Ok(Self { socket, macs: (mac, server_mac), ours, server, sequence: 0, acknowledged: 0 })
    }

    /// Opens the connection with this first sequence number: a SYN each 0.4 s, as GRUB does. Whether the server lets
    /// it in within `patience`.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn connect(&mut self, sequence: u32, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.sequence = sequence;
            self.send(SYN, &[])?;
            let wait = Instant::now() + Duration::from_millis(400);
            while let Some(segment) = self.receive(wait)? {
                if segment.flags & SYN != 0 {
                    self.sequence = sequence.wrapping_add(1);
                    self.acknowledged = segment.sequence.wrapping_add(1);
                    self.send(ACK, &[])?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Sends this, and waits for the first bytes of an answer; they are acknowledged, and nothing behind them is.
    ///
    /// # Errors
    /// The interface is gone, or nothing comes within `patience`.
    pub fn ask(&mut self, text: &str, patience: Duration) -> io::Result<Vec<u8>> {
        self.send(PUSH | ACK, text.as_bytes())?;
        let deadline = Instant::now() + patience;
        while let Some(segment) = self.receive(deadline)? {
            if segment.flags & FIN == 0 && !segment.payload.is_empty() {
                let sent = u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.sequence = self.sequence.wrapping_add(sent);
                let received = u32::try_from(segment.payload.len()).unwrap_or(u32::MAX);
                self.acknowledged = segment.sequence.wrapping_add(received);
                self.send(ACK, &[])?;
                return Ok(segment.payload);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn send(&self, flags: u8, payload: &[u8]) -> io::Result<()> {
        let mut tcp = Vec::with_capacity(TCP_BYTES + payload.len());
        tcp.extend_from_slice(&self.ours.port().to_be_bytes());
        tcp.extend_from_slice(&self.server.port().to_be_bytes());
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        let acknowledged = if flags & ACK == 0 { 0 } else { self.acknowledged };
        tcp.extend_from_slice(&acknowledged.to_be_bytes());
        tcp.extend_from_slice(&[0x50, flags]);
        tcp.extend_from_slice(&WINDOW.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(payload);
        let tcp_bytes = (tcp.len() as u16).to_be_bytes();
        let (ours, server) = (self.ours.ip().octets(), self.server.ip().octets());
        let pseudo = [&ours[..], &server, &[0, TCP], &tcp_bytes].concat();
        let sum = checksum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&sum);

        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&((IP_BYTES + tcp.len()) as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP, 0, 0]);
        ip.extend_from_slice(&[ours, server].concat());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum);

        let frame = [&self.macs.1.0[..], &self.macs.0.0, &IPV4.to_be_bytes(), &ip, &tcp].concat();
        self.socket.send(&frame).map(drop)
    }

    /// The next segment for us; `None` if there is none until then.
    fn receive(&mut self, until: Instant) -> io::Result<Option<Segment>> {
        let mut frame = [0; 2048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match (&self.socket).read(&mut frame) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(segment) = self.segment(&frame[..length]) {
                return Ok(Some(segment));
            }
        }
    }

    fn segment(&self, frame: &[u8]) -> Option<Segment> {
        let ip = frame.get(ETHERNET_BYTES..)?;
        let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
        let tcp = ip.get(usize::from(ip.first()? & 15) * 4..total)?;
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let is_ours = ip.get(9) == Some(&TCP)
            && ip.get(12..16)? == self.server.ip().octets()
            && (port(0)?, port(2)?) == (self.server.port(), self.ours.port());
        let header_bytes = usize::from(tcp.get(12)? >> 4) * 4;
        is_ours.then_some(Segment {
            flags: *tcp.get(13)?,
            sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
            payload: tcp.get(header_bytes..)?.to_vec(),
        })
    }
}

/// The checksum of IP and TCP (RFC 1071) over parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word =
        |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // The example of RFC 1071 section 3.
        assert_eq!(checksum(&[&[0, 1, 0xf2, 3], &[0xf4, 0xf5, 0xf6, 0xf7]]), [0x22, 0x0d]);
        assert_eq!(checksum(&[&[0xff, 0xff, 1]]), [0xfe, 0xff]);
    }
}
