//! Who answers at an address of the boot network, by the kernel's neighbour table.

use model::Network;
use service::Link;
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

/// The hardware address in the kernel's table: below a head, lines of address, kind, flags, hardware address, mask
/// and interface.
fn neighbour(table: &str, interface: &str, address: Ipv4Addr) -> Option<Mac> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_his = fields.next()?.parse() == Ok(address);
        let flags = fields.nth(1)?.strip_prefix("0x")?;
        let is_known = u32::from_str_radix(flags, 16).ok()? & ATF_COM != 0;
        let mac = fields.next()?.parse().ok()?;
        let is_here = fields.nth(1)? == interface;
        (is_his && is_known && is_here).then_some(mac)
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
