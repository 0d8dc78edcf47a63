//! Who answers at an address of the boot network, by the kernel's neighbour table.

use crate::net::arp::Arp;
use crate::net::link::look_at;
use model::Network;
use service::Link;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::Mac;

/// The kernel's table for IPv4, of the network namespace that this process is in (proc_net(5)).
const TABLE: &str = "/proc/net/arp";

/// The flag of entries with a hardware address (linux/if_arp.h).
const ATF_COM: u32 = 2;

/// Nobody listens at the port of "discard"; the kernel must ask who has the address before it can send there.
const DISCARD_PORT: u16 = 9;

/// A neighbour answers within a millisecond, and is asked three times, 1 s apart.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A neighbour that is there answers an ARP request at once; one may be lost.
const ARP_INTERVAL: Duration = Duration::from_millis(300);
const ARP_TRIES: u32 = 3;

/// How soon the answer is seen.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The neighbours of the boot server on its boot networks, as far as those are on interfaces of its own.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    networks: Vec<(String, Network)>,
}

impl Neighbours {
    /// Those of these networks, each at its interface.
    pub(crate) fn new(networks: impl IntoIterator<Item = (String, Network)>) -> Self {
        Self { networks: networks.into_iter().collect() }
    }

    /// How the host at this address is reached. Waits for it, if it was not heard yet.
    pub(crate) async fn link_to(&self, address: Ipv4Addr) -> Link {
        let Some((interface, network)) = self.at(address) else { return Link::Routed };
        let look = async {
            let mut is_asked = false;
            loop {
                if let Some(mac) = look_up(interface, address).await {
                    return Link::Neighbour(mac);
                }
                if !is_asked {
                    is_asked = true;
                    make_the_kernel_ask(network.server, address).await;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, look).await.unwrap_or(Link::Silent)
    }

    /// Who answers at this address, if that is known already. Never waits.
    pub(crate) fn known(&self, address: Ipv4Addr) -> Option<Mac> {
        let (interface, _) = self.at(address)?;
        neighbour(&std::fs::read_to_string(TABLE).ok()?, interface, address)
    }

    /// Whether this NIC answers at this address now, whatever was known of it before.
    pub(crate) async fn answers_now(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let Some((interface, network)) = self.at(address) else { return false };
        let asked = async {
            let own = look_at(interface, network.server)?.mac.ok_or(io::ErrorKind::NotFound)?;
            let arp = Arp::open(interface, own)?;
            loop {
                arp.probe_at(mac, address)?;
                let heard = async {
                    while arp.answer().await? != (mac, address) {}
                    io::Result::Ok(())
                };
                if let Ok(answer) = tokio::time::timeout(ARP_INTERVAL, heard).await {
                    return answer;
                }
            }
        };
        match tokio::time::timeout(ARP_INTERVAL * ARP_TRIES, asked).await {
            Ok(Ok(())) => true,
            // Who may not ask takes what the kernel knows.
            Ok(Err(_)) => self.known(address) == Some(mac),
            Err(_) => false,
        }
    }

    /// Whether this address is of a boot network on an interface of ours.
    pub(crate) fn is_on_link(&self, address: Ipv4Addr) -> bool {
        self.at(address).is_some()
    }

    fn at(&self, address: Ipv4Addr) -> Option<&(String, Network)> {
        self.networks.iter().find(|(_, network)| network.holds(address))
    }
}

async fn look_up(interface: &str, address: Ipv4Addr) -> Option<Mac> {
    let table = tokio::fs::read_to_string(TABLE).await.ok()?;
    neighbour(&table, interface, address)
}

async fn make_the_kernel_ask(server: Ipv4Addr, address: Ipv4Addr) {
    if let Ok(socket) = UdpSocket::bind((server, 0)).await {
        let _ = socket.send_to(&[], (address, DISCARD_PORT)).await;
    }
}

/// Who was heard lately behind an interface, and at which address.
pub(crate) fn heard_at(interface: &str) -> Vec<(Ipv4Addr, Mac)> {
    let table = std::fs::read_to_string(TABLE).unwrap_or_default();
    entries(&table, interface).collect()
}

fn neighbour(table: &str, interface: &str, address: Ipv4Addr) -> Option<Mac> {
    entries(table, interface).find(|(other, _)| *other == address).map(|(_, mac)| mac)
}

/// Addresses of IP and hardware in the kernel's table that are known: below a head, lines of address, kind, flags, hardware
/// address, mask and interface.
fn entries(table: &str, interface: &str) -> impl Iterator<Item = (Ipv4Addr, Mac)> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let address = fields.next()?.parse().ok()?;
        let flags = fields.nth(1)?.strip_prefix("0x")?;
        let is_known = u32::from_str_radix(flags, 16).ok()? & ATF_COM != 0;
        let mac = fields.next()?.parse().ok()?;
        let is_here = fields.nth(1)? == interface;
        (is_known && is_here).then_some((address, mac))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.5.142       0x1         0x2         52:54:00:12:34:56     *        br0
10.0.5.143       0x1         0x0         00:00:00:00:00:00     *        br0
10.0.5.144       0x1         0x2         52:54:00:00:00:01     *        eth1
10.0.5.144       0x1         0x6         52:54:00:00:00:02     *        br0
";

    #[test]
    fn a_neighbour_is_found_at_the_boot_network_s_interface() {
        let find = |last: u8| neighbour(TABLE, "br0", Ipv4Addr::new(10, 0, 5, last));
        assert_eq!(find(142), Some(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        assert_eq!(find(143), None, "it was asked for, and did not answer");
        assert_eq!(find(144), Some(Mac([0x52, 0x54, 0, 0, 0, 2])));
        assert_eq!(find(14), None);
        for end in 0..TABLE.len() {
            let _ = neighbour(&TABLE[..end], "br0", Ipv4Addr::new(10, 0, 5, 144));
        }
    }

    #[tokio::test]
    async fn who_is_behind_a_router_has_no_link() {
        let neighbours = Neighbours::new([]);
        assert_eq!(neighbours.link_to(Ipv4Addr::new(10, 0, 6, 7)).await, Link::Routed);
    }
}
