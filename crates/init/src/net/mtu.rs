//! Proves that the network carries packets as large as the settings say, and takes the usual size if not.

use crate::console::uptime;
use crate::net::netlink;
use crate::net::nic::Nic;
use crate::sysfs;
use initcfg::{BootConfig, Root};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use wire::Echo;

/// What every Ethernet carries.
pub(crate) const USUAL: u16 = 1500;

/// Requests of one size, and how long each is waited for: answers on a LAN take a millisecond, but a switch
/// may forward nothing in the first second after the link came up.
const REQUESTS: u16 = 6;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// Pings by which it is seen whether a server is there at all, and how large they are.
const PINGS: u16 = 3;
const PING_BYTES: u16 = 64;

/// What is to be said about packets of another size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Packets of that size get there and back.
    Carried,
    /// Packets of that size are lost or refused; the text says what is known of the cause.
    NotCarried(String),
}

/// Sets the size before the link comes up: many cards begin their negotiation again.
pub(crate) fn set(nic: &Nic, mtu: u16) -> io::Result<()> {
    let socket = netlink::Socket::route()?;
    netlink::set_mtu(&socket, nic.index, mtu.into())
}

/// The size as the kernel has it.
pub(crate) fn current(nic: &Nic) -> Option<u64> {
    sysfs::number(format!("/sys/class/net/{}/mtu", nic.name))
}

/// Addresses of the servers of the root; over AoE, where they have none, that of the boot server. So it is if they are in a
/// storage network, which has its own size of packets.
fn servers(config: &BootConfig) -> Vec<Ipv4Addr> {
    if config.storage.is_some() {
        return vec![config.server];
    }
    match &config.root {
        Root::Nbd { servers, .. } => servers.iter().map(|server| *server.ip()).collect(),
        Root::Aoe { .. } => vec![config.server],
        Root::Foreign(url) => vec![url.server().map_or(config.server, |server| *server.ip())],
    }
}

/// Sends packets of this size to whom the root is had from.
pub(crate) fn prove(config: &BootConfig, mtu: u16) -> Proof {
    prove_to(&servers(config), mtu)
}

/// Sends packets of this size to these servers.
pub(crate) fn prove_to(servers: &[Ipv4Addr], mtu: u16) -> Proof {
    match is_answered(servers, mtu, REQUESTS, None) {
        Ok(true) => Proof::Carried,
        Ok(false) => {
            let list: Vec<String> = servers.iter().map(Ipv4Addr::to_string).collect();
            let list = list.join(", ");
            let small = is_answered(servers, mtu.min(USUAL), REQUESTS, None).unwrap_or(false);
            Proof::NotCarried(match small && mtu > USUAL {
                true => format!(
                    "packets of {mtu} bytes don't get to {list} and back: a switch or the server accepts only \
                     smaller ones"
                ),
                false => {
                    format!(
                        "{list} does not answer pings, so it is unknown what the network carries"
                    )
                }
            })
        }
        Err(error) => Proof::NotCarried(format!("packets of {mtu} bytes can't be sent: {error}")),
    }
}

/// Whether the server answers a ping behind this interface.
pub(crate) fn is_behind(server: Ipv4Addr, interface: &str) -> io::Result<bool> {
    is_answered(&[server], PING_BYTES, PINGS, Some(interface))
}

fn is_answered(
    servers: &[Ipv4Addr],
    packet_bytes: u16,
    n_requests: u16,
    interface: Option<&str>,
) -> io::Result<bool> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_header_included_v4(true)?;
    let identifier = u16::try_from(uptime().as_micros() & 0xffff).unwrap_or_default();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for sequence in 0..n_requests {
        let echo = Echo { identifier, sequence, packet_bytes };
        for server in servers {
            let request = echo.request(*server);
            socket.send_to(&request, &SocketAddrV4::new(*server, 0).into())?;
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut buffer) {
                Ok(length) if echo.is_answered_by(&buffer[..length]) => return Ok(true),
                // Something else, or nothing: until the time is over.
                _ => {}
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_serves_the_root_is_asked() {
        let check = |root: &str, expected: &[&str]| {
            let line = format!(
                "bootlace.server=10.0.0.1 bootlace.boot=4 bootlace.mac=52:54:00:00:00:01 \
                 bootlace.address=dhcp bootlace.host=lab-07 bootlace.root={root}"
            );
            let asked = servers(&BootConfig::parse(&line).unwrap());
            assert_eq!(asked.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>(), expected);
        };
        check("nbd:10.0.0.2:10809,10.0.0.3:10809:lab-07", &["10.0.0.2", "10.0.0.3"]);
        check("aoe:1.7", &["10.0.0.1"]);
        check("nfs://10.0.0.4/srv", &["10.0.0.4"]);
        check("iscsi://10.0.0.5/iqn.2026-11.example:disk/0", &["10.0.0.5"]);
        check("nbd:10.20.0.2:10809:lab-07 bootlace.storage=10.20.0.2/24", &["10.0.0.1"]);
    }
}
