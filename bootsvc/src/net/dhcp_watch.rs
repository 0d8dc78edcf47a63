//! An ear for other DHCP servers on the boot network.
//!
//! It hears what servers send to clients' port, whoever has that port on this host, and asks like a client without an
//! address. Bootlace never answers it: who answers is another server, even if a relay passes the question on.

use super::frame::{FrameSender, hear_ip};
use super::link::look_at;
use dhcp::{Answer, CLIENT_PORT, Client, Next, ReplyKind, firmware_question};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use wire::{Mac, Moment};

/// How long answers are waited for. dnsmasq first pings an address for 3 s that it has not given yet.
const PROBE_TIME: Duration = Duration::from_secs(4);

/// A question is repeated after this time, for one of them may be lost.
const REPEAT: Duration = Duration::from_secs(1);

/// Longest packet that is looked at; a DHCP message fits a frame.
const PACKET_MAX: usize = 1500;

/// The name by which the question can be known in the other server's log.
const NAME: &str = "bootlace-probe";

/// Another DHCP server, as it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its address, as it names itself.
    pub server: Ipv4Addr,
    /// The address that it offers or gives; `None`: it only tells firmware where its loader is, as a proxy.
    pub address: Option<Ipv4Addr>,
    /// To whom.
    pub to: Mac,
    /// It says that it serves firmware itself (option 60).
    pub serves_firmware: bool,
    /// The loader that it names.
    pub boot_file: Option<String>,
}

/// Hears what DHCP servers say on one interface.
pub struct DhcpWatch {
    socket: UdpSocket,
    frames: FrameSender,
    mac: Mac,
    server: Ipv4Addr,
}

impl DhcpWatch {
    /// Listens on `interface`, where our own server is `server`.
    ///
    /// # Errors
    /// The interface is gone, or root's rights (CAP_NET_RAW) are missing.
    pub fn open(interface: &str, server: Ipv4Addr) -> io::Result<Self> {
        Ok(Self {
            // What arrives are whole packets, as datagrams are, so tokio's socket for those serves.
            socket: UdpSocket::from_std(hear_ip(interface, CLIENT_PORT)?.into())?,
            frames: FrameSender::open(interface, server)?,
            mac: look_at(interface, server)?.mac.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "there is no network card of that name")
            })?,
            server,
        })
    }

    /// Asks, and returns the first other server that offers an address. Takes 4 seconds if there is none.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn probe(&self) -> io::Result<Option<Other>> {
        let transaction = self.transaction();
        let mut client = Client::new(self.mac, NAME, transaction, Moment::default());
        let Next::Send(question, _) = client.next(Moment::default()) else {
            unreachable!("who has no address asks at once");
        };
        self.ask(&question, transaction, |other| other.address.is_some()).await
    }

    /// Asks as firmware of this architecture (RFC 4578 §2.1), and returns the first other server that tells it of a loader.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn probe_as_firmware(&self, architecture: u16) -> io::Result<Option<Other>> {
        let transaction = self.transaction();
        let question = firmware_question(self.mac, transaction, architecture);
        let tells = |other: &Other| other.serves_firmware || other.boot_file.is_some();
        self.ask(&question, transaction, tells).await
    }

    fn transaction(&self) -> u32 {
        RandomState::new().hash_one(self.mac.0) as u32
    }

    async fn ask(
        &self,
        question: &[u8],
        transaction: u32,
        is_sought: impl Fn(&Other) -> bool,
    ) -> io::Result<Option<Other>> {
        let start = Instant::now();
        let end = start + PROBE_TIME;
        let mut again = start;
        loop {
            tokio::select! {
                () = sleep_until(end) => return Ok(None),
                () = sleep_until(again) => {
                    self.frames.ask(question)?;
                    again += REPEAT;
                }
                heard = self.hear() => {
                    let (answer, other) = heard?;
                    let is_ours = (answer.transaction, answer.mac) == (transaction, self.mac);
                    if is_ours && is_sought(&other) {
                        return Ok(Some(other));
                    }
                }
            }
        }
    }

    /// The next offer or lease of another server, whoever it is for. What a relay passes on is not looked at: it may
    /// put its own name in the place of ours (RFC 5107).
    ///
    /// # Errors
    /// The interface is down or gone.
    pub async fn overhear(&self) -> io::Result<Other> {
        loop {
            let (answer, other) = self.hear().await?;
            if answer.relay.is_unspecified() {
                return Ok(other);
            }
        }
    }

    async fn hear(&self) -> io::Result<(Answer, Other)> {
        let mut packet = [0; PACKET_MAX];
        loop {
            let length = self.socket.recv(&mut packet).await?;
            let Some(answer) = payload(&packet[..length]).and_then(|it| Answer::parse(it).ok())
            else {
                continue;
            };
            let lease = answer.lease.as_ref().map(|lease| (lease.server, Some(lease.address)));
            let told = lease.or(answer.proxy.map(|server| (server, None)));
            let Some((server, address)) = told.filter(|_| answer.kind != ReplyKind::Nak) else {
                continue;
            };
            if server != self.server {
                let other = Other {
                    server,
                    address,
                    to: answer.mac,
                    serves_firmware: answer.serves_firmware,
                    boot_file: answer.boot_file.clone(),
                };
                return Ok((answer, other));
            }
        }
    }
}

/// BIOS and UEFI, as firmware says it (RFC 4578 §2.1).
const FIRMWARE: [u16; 2] = [0, 7];

/// Who else answers on an interface where our own server is `server`: who offers an address, and who tells firmware of a loader.
/// Takes 4 seconds.
///
/// # Errors
/// The interface is down or gone, or root's rights (CAP_NET_RAW) are missing.
pub async fn probe_all(
    interface: &str,
    server: Ipv4Addr,
) -> io::Result<(Option<Other>, Option<Other>)> {
    // Each has an ear of its own.
    let watch = || DhcpWatch::open(interface, server);
    let (plain, bios, uefi) = (watch()?, watch()?, watch()?);
    let (plain, bios, uefi) = tokio::join!(
        plain.probe(),
        bios.probe_as_firmware(FIRMWARE[0]),
        uefi.probe_as_firmware(FIRMWARE[1])
    );
    Ok((plain?, bios?.or(uefi?)))
}

/// What a UDP datagram to a client's port holds, in an IPv4 packet (RFC 791, RFC 768).
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let udp = packet.get(header..length.min(packet.len()))?;
    let is_to_client = udp.get(2..4)? == CLIENT_PORT.to_be_bytes();
    let is_udp = packet[0] >> 4 == 4 && header >= 20 && packet.get(9) == Some(&17);
    (is_udp && is_to_client).then(|| udp.get(8..))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_datagram_to_a_client_is_passed_over() {
        let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 255, 255, 255, 255, 0, 67, 0, 68, 0, 12, 0, 0]);
        packet.extend(*b"said");
        assert_eq!(payload(&packet), Some(&b"said"[..]));
        let padded = [&packet[..], &[0; 14]].concat();
        assert_eq!(payload(&padded), Some(&b"said"[..]), "short frames are padded");
        for end in 0..28 {
            assert_eq!(payload(&packet[..end]), None, "{end} bytes");
        }
        for (index, value) in [(0, 0x65), (0, 0x41), (9, 6), (23, 67)] {
            let mut other = packet.clone();
            other[index] = value;
            assert_eq!(payload(&other), None);
        }
    }
}
