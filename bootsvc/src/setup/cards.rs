//! Network cards to choose from.

use crate::net::link::LinkTrouble;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;

/// A network card, a bridge, or another interface on which PCs may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    /// Its first IPv4 address, and the length of its network's prefix.
    pub(crate) address: Option<(Ipv4Addr, u8)>,
    /// Why nothing can be heard on it.
    pub(crate) trouble: Option<LinkTrouble>,
    /// The router of the server's default route, if that goes through it.
    pub(crate) gateway: Option<Ipv4Addr>,
}

impl Card {
    /// Whether an address is in its network.
    pub(crate) fn has_beside_it(&self, other: Ipv4Addr) -> bool {
        self.address.is_some_and(|(own, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (own.to_bits() ^ other.to_bits()) & mask == 0
        })
    }

    /// What is known of it, for people.
    pub(crate) fn about(&self) -> String {
        let address = self.address.map_or_else(
            || "no IPv4 address".to_owned(),
            |(address, prefix)| format!("{address}/{prefix}"),
        );
        let trouble = self.trouble.map_or_else(String::new, |trouble| format!(", {trouble}"));
        let way_out = self.gateway.map_or_else(String::new, |it| format!(", to others by {it}"));
        format!("{address}{trouble}{way_out}")
    }

    /// How likely it is that it leads to the PCs: a server has its way to others on another card, if it has two.
    fn likelihood(&self) -> (bool, bool, bool) {
        (self.address.is_some(), self.trouble.is_none(), self.gateway.is_none())
    }
}

/// All of them, the likeliest first.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn cards() -> io::Result<Vec<Card>> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut cards = BTreeMap::new();
    for entry in getifaddrs()? {
        if entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let card = cards.entry(entry.interface_name.clone()).or_insert_with(|| Card {
            gateway: gateway(&routes, &entry.interface_name),
            trouble: match () {
                () if !entry.flags.contains(InterfaceFlags::IFF_UP) => Some(LinkTrouble::Down),
                () if !entry.flags.contains(InterfaceFlags::IFF_RUNNING) => {
                    Some(LinkTrouble::NoCarrier)
                }
                () => None,
            },
            name: entry.interface_name,
            address: None,
        });
        let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in());
        let netmask = entry.netmask.as_ref().and_then(|netmask| netmask.as_sockaddr_in());
        if let (None, Some(address), Some(netmask)) = (card.address, address, netmask) {
            let prefix = netmask.ip().to_bits().leading_ones() as u8;
            card.address = Some((address.ip(), prefix));
        }
    }
    let mut cards: Vec<_> = cards.into_values().collect();
    cards.sort_by_key(|card| std::cmp::Reverse(card.likelihood()));
    Ok(cards)
}

/// The router of the default route through `interface`, in what `/proc/net/route` says: columns of hexadecimal numbers, addresses
/// as they lie in memory.
fn gateway(routes: &str, interface: &str) -> Option<Ipv4Addr> {
    routes.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let (name, destination, gateway) = (columns.next()?, columns.next()?, columns.next()?);
        let address = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let is_default = name == interface && destination == "00000000";
        (is_default && !address.is_unspecified()).then_some(address)
    })
}

/// Name servers that machines can reach, too, by what the server itself asks: `resolv.conf(5)`.
pub(crate) fn name_servers() -> Vec<Ipv4Addr> {
    // The second has those behind systemd's own, which answers this host only.
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .into_iter()
        .map(|path| named(&fs::read_to_string(path).unwrap_or_default()))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn named(resolv: &str) -> Vec<Ipv4Addr> {
    let named = resolv.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|address| address.trim().parse::<Ipv4Addr>().ok());
    addresses.filter(|address| !address.is_loopback()).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_and_name_servers_are_read_as_linux_writes_them() {
        let routes = "Iface\tDestination\tGateway \tFlags\n\
                      enp3s0\t00000000\tFE05000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      enp3s0\t0005000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(gateway(routes, "enp3s0"), Some(Ipv4Addr::new(10, 0, 5, 254)));
        assert_eq!(gateway(routes, "enp4s0"), None);
        let resolv = "# x\nnameserver 127.0.0.53\nnameserver 10.0.5.1\nnameserver fe80::1\n";
        assert_eq!(named(resolv), [Ipv4Addr::new(10, 0, 5, 1)]);
    }

    #[test]
    fn the_likeliest_card_has_an_address_and_not_the_way_out() {
        let card = |address: bool, gateway| {
            let address = address.then_some((Ipv4Addr::new(10, 0, 5, 1), 24));
            Card { name: String::new(), address, trouble: None, gateway }
        };
        let to_others = card(true, Some(Ipv4Addr::new(10, 0, 5, 254)));
        assert!(card(true, None).likelihood() > to_others.likelihood());
        assert!(to_others.likelihood() > card(false, None).likelihood());
    }
}
