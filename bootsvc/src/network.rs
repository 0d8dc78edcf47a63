//! The boot networks, as the interfaces and the configuration have them.

mod error;

pub(crate) use error::NetworkError;

use self::error::SERVERS_MAX;
use crate::config::{AddressBy, Config, NetworkConfig, Pool, Subnet};
use crate::storage_network::{self, BootNetwork, FoundStorage, StoragePlace, own_addresses};
use model::{Network, Strangers};
use service::{LeasedNetwork, Leasing};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use wire::{Mac, Route};

/// A network that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// What its machines are told.
    pub(crate) network: Network,
    /// Addresses to lease; `None` if another server does.
    pub(crate) pool: Option<Pool>,
    /// Addresses that belong to one NIC.
    pub(crate) reserved: BTreeMap<Mac, Ipv4Addr>,
    /// How long a lease lasts.
    pub(crate) lease: Duration,
    /// On which interface it is, or by which it is reached.
    pub(crate) interface: String,
    /// The network of its own over which its machines have their disks, if there is one and this server is in it.
    pub(crate) storage: Option<StoragePlace>,
    /// Other addresses that the server has there, such as the one that it had before it was renumbered.
    pub(crate) further: Vec<Ipv4Addr>,
}

/// What becomes of the configured networks with the interfaces as they are now.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Those that can be served.
    pub(crate) served: Vec<Served>,
    /// Interfaces that are not there, or have no address, which keeps others from being served; each once.
    pub(crate) absent: Vec<(String, NetworkError)>,
    /// Storage networks in which this server has no address; the networks of their machines are served without.
    pub(crate) without_storage: Vec<NetworkError>,
    /// What is wrong with the configuration.
    pub(crate) wrong: Vec<NetworkError>,
}

/// The first network: see [`networks`].
///
/// # Errors
/// As there.
pub(crate) fn network(config: &Config) -> Result<Network, NetworkError> {
    Ok(networks(config)?.remove(0).network)
}

/// Reads the server's addresses from the interfaces and checks the configured addresses against them. There is one network
/// at least; those whose interface is missing, or has no address, are left out.
///
/// # Errors
/// No network has an interface with an IPv4 address, or a configured address does not fit its network.
pub(crate) fn networks(config: &Config) -> Result<Vec<Served>, NetworkError> {
    let Found { served, absent, wrong, .. } = find(config);
    match wrong.into_iter().next() {
        Some(error) => Err(error),
        None if served.is_empty() => {
            let error = absent.into_iter().next().map(|(_, error)| error);
            Err(error.unwrap_or_else(|| {
                NetworkError::List(std::io::Error::other("no network is configured"))
            }))
        }
        None => Ok(served),
    }
}

/// The same, with all that is wrong and all that is missing.
pub(crate) fn find(config: &Config) -> Found {
    let is_one = config.network.all().count() == 1;
    let mut found = Found::default();
    let mut places: Vec<(usize, &NetworkConfig, Place)> = Vec::new();
    let tell_of = |index: usize, source: NetworkError| match is_one {
        true => source,
        false => NetworkError::In { number: index + 1, source: Box::new(source) },
    };
    for (index, one) in config.network.all().enumerate() {
        let tell = |source: NetworkError| tell_of(index, source);
        let place = match place_of(one) {
            Ok(place) => place,
            Err(error @ (NetworkError::NoInterface { .. } | NetworkError::NoAddress(_))) => {
                if found.absent.iter().all(|(interface, _)| *interface != one.interface) {
                    found.absent.push((one.interface.clone(), tell(error)));
                }
                continue;
            }
            Err(error) => {
                found.wrong.push(tell(error));
                continue;
            }
        };
        let Place { server, subnet, .. } = place;
        let pool = one.pool.filter(|_| config.network.mode.leases());
        let wrong = check_place(one, server, subnet).into_iter();
        let wrong = wrong.chain(check_addresses(&Checked { one, pool, server, subnet }));
        found.wrong.extend(wrong.map(tell));
        for (_, other, of_other) in &places {
            let is_same = one.subnet.or(other.subnet).is_none() && one.interface == other.interface;
            if is_same {
                found.wrong.push(tell(NetworkError::InterfaceTwice(one.interface.clone())));
            } else if subnet.overlaps(of_other.subnet) {
                let overlap = NetworkError::Overlap { this: subnet, other: of_other.subnet };
                found.wrong.push(tell(overlap));
            }
        }
        places.push((index, one, place));
    }
    let FoundStorage { places: mut storage, absent, wrong } = find_storage(config, &places);
    let tell = |(index, error)| tell_of(index, NetworkError::Storage(error));
    found.without_storage.extend(absent.into_iter().map(tell));
    found.wrong.extend(wrong.into_iter().map(tell));
    let places = places.into_iter();
    found.served = places
        .map(|(index, one, place)| served(config, one, place, storage.remove(&index)))
        .collect();
    found
}

fn find_storage(config: &Config, places: &[(usize, &NetworkConfig, Place)]) -> FoundStorage {
    let networks: Vec<BootNetwork<'_>> = places
        .iter()
        .map(|(index, one, place)| BootNetwork {
            index: *index,
            one,
            subnet: place.subnet,
            is_leased: config.network.mode.leases(),
        })
        .collect();
    // What can't be listed is not there; whoever needs an interface's own address has said why.
    storage_network::find(config, &networks, &own_addresses().unwrap_or_default())
}

/// Where a network is.
struct Place {
    /// Our address.
    server: Ipv4Addr,
    /// The network.
    subnet: Subnet,
    /// Other addresses of ours there.
    further: Vec<Ipv4Addr>,
}

/// Of several addresses of the interface ours is the first one whose network has the pool, or the router; or the first.
fn place_of(one: &NetworkConfig) -> Result<Place, NetworkError> {
    let addresses = addresses_of(&one.interface)?;
    let wanted = one.pool.map(|pool| pool.first).or(one.router).filter(|_| one.subnet.is_none());
    let fits = |&&(address, prefix): &&(Ipv4Addr, u8)| {
        wanted.is_some_and(|wanted| Subnet::of(address, prefix).holds(wanted))
    };
    let fitting = addresses.iter().find(fits).or(addresses.first());
    let &(server, prefix) = fitting.ok_or(NetworkError::NoAddress(one.interface.clone()))?;
    let further = addresses.iter().map(|it| it.0).filter(|address| *address != server).collect();
    let subnet = one.subnet.unwrap_or(Subnet::of(server, prefix));
    Ok(Place { server, subnet, further })
}

fn served(
    config: &Config,
    one: &NetworkConfig,
    place: Place,
    storage: Option<StoragePlace>,
) -> Served {
    let Place { server, subnet, further } = place;
    let leases = config.network.mode.leases();
    let network = Network {
        server,
        subnet: subnet.address,
        prefix: subnet.prefix,
        is_relayed: one.subnet.is_some(),
        router: one.router,
        routes: one.routes.clone(),
        dns: one.dns.clone(),
        ntp: one.ntp.clone(),
        domain: one.domain.clone(),
        mtu: one.mtu,
        vlan: one.vlan,
        storage: storage.as_ref().map(StoragePlace::network),
        nbd: storage_network::nbd(config, server, storage.as_ref()),
        kernel_args: config.boot.kernel_args.clone(),
        foreign_dhcp: !leases,
        own_dhcp: config.network.address_by == AddressBy::Dhcp || !leases,
        ram: config.boot.ram,
        zram: config.boot.zram,
        strangers: config.boot.strangers.unwrap_or(match leases {
            true => Strangers::Wait,
            false => Strangers::LocalDisk,
        }),
        menu_password: config.boot.menu_password.clone(),
    };
    Served {
        network,
        pool: one.pool.filter(|_| leases),
        reserved: one.reserved.clone(),
        lease: one.lease,
        interface: one.interface.clone(),
        storage,
        further,
    }
}

/// Who gives addresses in these networks, and which.
pub(crate) fn leasing(networks: &[Served]) -> Leasing {
    let leased = |served: &Served| {
        let Served { network, pool, reserved, .. } = served;
        let pool = (*pool)?;
        Some(LeasedNetwork {
            subnet: network.subnet,
            prefix: network.prefix,
            server: network.server,
            router: network.router,
            pool: (pool.first, pool.last),
            reserved: reserved.clone(),
        })
    };
    let leased: Vec<LeasedNetwork> = networks.iter().filter_map(leased).collect();
    if leased.is_empty() { Leasing::Others } else { Leasing::Ours(leased) }
}

/// The same as the configuration has it, for who serves nobody.
pub(crate) fn configured_leasing(config: &Config) -> Leasing {
    if !config.network.mode.leases() {
        return Leasing::Others;
    }
    match networks(config) {
        Ok(networks) => leasing(&networks),
        Err(error) => Leasing::Unknown(wire::error_chain(&error)),
    }
}

/// Those of our addresses at whose link PCs are served themselves: who serves only behind relays shares his link with others.
pub(crate) fn interfaces_of_pcs(networks: &[Served]) -> Vec<(&str, Ipv4Addr)> {
    places(networks.iter().filter(|served| !served.network.is_relayed))
}

/// Addresses of ours, each once, and where we have them: the first network's first.
pub(crate) fn interfaces(networks: &[Served]) -> Vec<(&str, Ipv4Addr)> {
    places(networks)
}

fn places<'a>(networks: impl IntoIterator<Item = &'a Served>) -> Vec<(&'a str, Ipv4Addr)> {
    let mut all: Vec<(&str, Ipv4Addr)> = Vec::new();
    for served in networks {
        let place = (served.interface.as_str(), served.network.server);
        if !all.contains(&place) {
            all.push(place);
        }
    }
    all
}

/// Addresses of ours in storage networks, each once, and where we have them.
pub(crate) fn storage_interfaces(networks: &[Served]) -> Vec<(&str, Ipv4Addr)> {
    let mut all: Vec<(&str, Ipv4Addr)> = Vec::new();
    for storage in networks.iter().filter_map(|served| served.storage.as_ref()) {
        let place = (storage.interface.as_str(), storage.server);
        if !all.contains(&place) {
            all.push(place);
        }
    }
    all
}

/// Addresses of ours, each once.
pub(crate) fn servers(networks: &[Served]) -> Vec<Ipv4Addr> {
    let mut all = Vec::new();
    for served in networks {
        if !all.contains(&served.network.server) {
            all.push(served.network.server);
        }
    }
    all
}

/// Where NBD is served, for machines of all networks that boot.
pub(crate) fn nbd_addresses(networks: &[Served]) -> Vec<SocketAddrV4> {
    let mut all = Vec::new();
    for &address in networks.iter().flat_map(|served| &served.network.nbd) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Where machines that run may have their disks from as well, as they booted before the server was renumbered: there is one
/// as long as it has the address.
pub(crate) fn former_nbd_addresses(config: &Config, networks: &[Served]) -> Vec<SocketAddrV4> {
    let port = config.storage.nbd_port;
    let used = nbd_addresses(networks);
    let mut all = Vec::new();
    if config.storage.nbd_addresses.is_empty() {
        for &address in networks.iter().flat_map(|served| &served.further) {
            let address = SocketAddrV4::new(address, port);
            if !used.contains(&address) && !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all
}

/// The addresses of an interface, in the kernel's order; there is one at least.
fn addresses_of(interface: &str) -> Result<Vec<(Ipv4Addr, u8)>, NetworkError> {
    let entries = nix::ifaddrs::getifaddrs().map_err(|error| NetworkError::List(error.into()))?;
    let mut present = Vec::new();
    let mut exists = false;
    let mut addresses = Vec::new();
    for entry in entries {
        if entry.interface_name != interface {
            if !present.contains(&entry.interface_name) {
                present.push(entry.interface_name);
            }
            continue;
        }
        exists = true;
        let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in());
        let netmask = entry.netmask.as_ref().and_then(|netmask| netmask.as_sockaddr_in());
        if let (Some(address), Some(netmask)) = (address, netmask) {
            addresses.push((address.ip(), netmask.ip().to_bits().leading_ones() as u8));
        }
    }
    if !addresses.is_empty() {
        Ok(addresses)
    } else if exists {
        Err(NetworkError::NoAddress(interface.into()))
    } else {
        let present = present.join(", ");
        Err(NetworkError::NoInterface { interface: interface.into(), present })
    }
}

/// Whether the network is where it is said to be.
fn check_place(one: &NetworkConfig, server: Ipv4Addr, subnet: Subnet) -> Option<NetworkError> {
    one.subnet?;
    if subnet.holds(server) {
        let interface = one.interface.clone();
        return Some(NetworkError::NotRelayed { subnet, interface, server });
    }
    one.router.is_none().then_some(NetworkError::NoRouter(subnet))
}

/// Whose addresses are checked.
struct Checked<'a> {
    one: &'a NetworkConfig,
    /// Those that we give.
    pool: Option<Pool>,
    server: Ipv4Addr,
    subnet: Subnet,
}

/// What is wrong with the addresses of one network.
fn check_addresses(checked: &Checked<'_>) -> Vec<NetworkError> {
    let Checked { one, pool, server, subnet } = *checked;
    let (network, broadcast, prefix) = (subnet.address, subnet.broadcast(), subnet.prefix);
    let interface = || one.interface.clone();
    let mut wrong = Vec::new();
    let in_pool =
        |address: Ipv4Addr| pool.is_some_and(|pool| (pool.first..=pool.last).contains(&address));
    // An address that a PC has for ever may lie in the pool: the PC's own NIC gets it from there.
    let is_leased =
        |address: Ipv4Addr| in_pool(address) && !one.reserved.values().any(|it| *it == address);
    let in_our_pool = |what: &str, address| NetworkError::InPool { what: what.to_owned(), address };
    if let Some(Pool { first, last }) =
        pool.filter(|pool| !subnet.holds(pool.first) || !subnet.holds(pool.last))
    {
        let interface = interface();
        wrong.push(NetworkError::PoolOutside { first, last, network, prefix, interface, server });
    } else if prefix < 31 {
        let own = [("the network's own address", network), ("the broadcast address", broadcast)];
        let given = own.into_iter().filter(|(_, address)| in_pool(*address));
        wrong.extend(given.map(|(what, address)| in_our_pool(what, address)));
    }
    if in_pool(server) {
        wrong.push(NetworkError::PoolHasServer(server));
    }
    let dns = one.dns.iter().map(|address| ("the name server", *address));
    let of_site = dns.chain(one.ntp.iter().map(|address| ("the time server", *address)));
    for (what, address) in of_site.filter(|(_, address)| *address != server) {
        let is_of_one_host = address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address == network
            || address == broadcast;
        if is_of_one_host && !server.is_loopback() {
            wrong.push(NetworkError::Unreachable { what: what.to_owned(), address });
        } else if is_leased(address) {
            wrong.push(in_our_pool(what, address));
        }
    }
    let check = |what: String, address: Ipv4Addr| {
        if address == server {
            return Some(NetworkError::IsServer { what, server });
        }
        let is_of_pc = subnet.holds(address) && address != network && address != broadcast;
        let interface = interface();
        (!is_of_pc).then_some(NetworkError::NoAddressOfPc {
            what,
            address,
            network,
            prefix,
            interface,
        })
    };
    if let Some(router) = one.router.filter(|router| *router != server || one.subnet.is_some()) {
        wrong.extend(check("router".to_owned(), router));
        if is_leased(router) {
            wrong.push(in_our_pool("the router", router));
        }
    }
    for (key, servers) in [("dns", &one.dns), ("ntp", &one.ntp)] {
        if servers.len() > SERVERS_MAX {
            wrong.push(NetworkError::TooMany { key, n: servers.len() });
        }
    }
    for &Route { to, prefix: length, .. } in &one.routes {
        let is_here = length >= prefix && subnet.holds(to);
        let why = match (is_here, dhcp::can_be_host(to)) {
            (true, _) => format!(
                "leads elsewhere what is in the machines' own network {network}/{prefix}, where their servers are"
            ),
            (_, false) => "leads to addresses that no router passes on".to_owned(),
            _ => continue,
        };
        wrong.push(NetworkError::BadRoute { to, prefix: length, why });
    }
    for route in one.routes.iter().filter(|route| route.via != server || one.subnet.is_some()) {
        let what = format!("the router of the route to {}/{}", route.to, route.prefix);
        wrong.extend(check(what.clone(), route.via));
        if is_leased(route.via) {
            wrong.push(in_our_pool(&what, route.via));
        }
    }
    let mut owners: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    for (&mac, &address) in &one.reserved {
        if !mac.is_of_a_nic() {
            wrong.push(NetworkError::NoNic { address, mac });
        }
        wrong.extend(check(format!("the address reserved for {mac}"), address));
        if one.router == Some(address) && address != server {
            let what = format!("the address reserved for {mac}");
            wrong.push(NetworkError::IsRouter { what, address });
        }
        if let Some(first) = owners.insert(address, mac) {
            wrong.push(NetworkError::ReservedTwice { address, first, second: mac });
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(interface: &str, pool: &str) -> Config {
        toml::from_str(&format!("[network]\ninterface = \"{interface}\"\npool = \"{pool}\"\n"))
            .unwrap()
    }

    #[test]
    fn the_server_s_address_is_the_interface_s() {
        let network = network(&config("lo", "127.0.0.100-127.0.0.199")).unwrap();
        assert_eq!((network.server, network.prefix), (Ipv4Addr::LOCALHOST, 8));
    }

    #[test]
    fn a_route_leads_to_a_router_of_the_network() {
        let wrong = |routes: &str| {
            let text = format!(
                "[network]\ninterface = \"lo\"\npool = \"127.0.0.100-127.0.0.199\"\nroutes = {{ {routes} }}\n"
            );
            match toml::from_str::<Config>(&text) {
                Ok(config) => network(&config).map(|it| it.routes).map_err(|it| it.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let routes =
            wrong("\"10.9.0.0/16\" = \"127.0.0.9\", \"10.8.0.1/32\" = \"127.0.0.9\"").unwrap();
        let texts: Vec<String> = routes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.8.0.1/32:127.0.0.9", "10.9.0.0/16:127.0.0.9"]);
        for (routes, says) in [
            ("\"10.9.0.0/16\" = \"10.5.0.9\"", "the router of the route to 10.9.0.0/16"),
            ("\"10.9.0.0/16\" = \"127.0.0.120\"", "the pool contains"),
            ("\"10.9.0.1/16\" = \"127.0.0.9\"", "write \"10.9.0.0/16\""),
            ("\"0.0.0.0/0\" = \"127.0.0.9\"", "a length of 1 to 32"),
            ("\"10.9.0.0\" = \"127.0.0.9\"", "is not a network"),
            ("\"127.0.0.0/25\" = \"127.0.0.9\"", "in the machines' own network 127.0.0.0/8"),
            ("\"224.0.0.0/4\" = \"127.0.0.9\"", "no router passes on"),
        ] {
            let error = wrong(routes).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |interface, pool| network(&config(interface, pool)).unwrap_err().to_string();
        assert!(error("enp77s0", "10.0.0.1-10.0.0.9").contains("there are: lo"));
        assert!(error("lo", "10.0.0.1-10.0.0.9").contains("network 127.0.0.0/8"));
        assert!(error("lo", "127.0.0.1-127.0.0.9").contains("own address 127.0.0.1"));
    }

    #[test]
    fn a_pool_has_no_address_that_is_somebody_s() {
        let check_lines = |pool: &str, lines: &str| {
            let interface = "interface = \"br0\"";
            let text = format!("[network]\n{interface}\npool = \"{pool}\"\n{lines}\n");
            let config: Config = toml::from_str(&text).unwrap();
            let wrong = check(&config, Ipv4Addr::new(10, 0, 5, 1));
            wrong.first().map_or(Ok(()), |error| Err(error.to_string()))
        };
        let refused = |pool: &str, lines: &str, words: &str| {
            let error = check_lines(pool, lines).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused("10.0.5.100-10.0.5.255", "", "the broadcast address 10.0.5.255");
        refused("10.0.5.0-10.0.5.0", "", "the network's own address 10.0.5.0");
        refused("10.0.5.100-10.0.5.254", "router = \"10.0.5.254\"", "the router 10.0.5.254");
        refused("10.0.5.100-10.0.5.199", "dns = [\"10.0.5.150\"]", "the name server 10.0.5.150");
        refused("10.0.5.100-10.0.5.199", "ntp = [\"10.0.5.150\"]", "the time server 10.0.5.150");
        for address in ["127.0.0.53", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.5.255"] {
            refused("10.0.5.100-10.0.5.199", &format!("dns = [\"{address}\"]"), address);
        }
        let reserved = "dns = [\"10.0.5.150\", \"9.9.9.9\", \"10.0.5.1\"]\n\
                        reserve = { \"52:54:00:00:00:01\" = \"10.0.5.150\" }";
        check_lines("10.0.5.2-10.0.5.254", reserved).unwrap();
        let router = "router = \"10.0.5.9\"\nreserve = { \"52:54:00:00:00:01\" = \"10.0.5.9\" }";
        refused("10.0.5.100-10.0.5.199", router, "the router's: choose another one");
    }

    fn check(config: &Config, server: Ipv4Addr) -> Vec<NetworkError> {
        let one = config.network.all().next().unwrap();
        let subnet = one.subnet.unwrap_or(Subnet::of(server, 24));
        let place = check_place(one, server, subnet);
        let checked = Checked { one, pool: one.pool, server, subnet };
        place.into_iter().chain(check_addresses(&checked)).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = "[network]\ninterface = \"br0\"\npool = \"10.0.5.1-10.0.5.255\"\n\
                    router = \"10.0.6.1\"\ndns = [\"10.0.5.7\"]\n\
                    reserve = { \"52:54:00:00:00:01\" = \"10.0.9.9\" }\n";
        let wrong = check(&toml::from_str(text).unwrap(), Ipv4Addr::new(10, 0, 5, 1));
        let text: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let words = ["broadcast", "server's own", "name server", "router 10.0.6.1", "10.0.9.9"];
        for (text, word) in text.iter().zip(words) {
            assert!(text.contains(word) && (text.contains(':') || text.contains(';')), "{text}");
        }
        assert_eq!(text.len(), words.len(), "{text:?}");
    }

    #[test]
    fn a_network_behind_a_relay_has_a_router_and_is_elsewhere() {
        let check = |lines: &str| {
            let text = format!(
                "[network]\ninterface = \"br0\"\npool = \"10.20.0.100-10.20.3.199\"\n{lines}"
            );
            let wrong = check(&toml::from_str(&text).unwrap(), Ipv4Addr::new(10, 0, 5, 1));
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let subnet = "subnet = \"10.20.0.0/16\"\n";
        assert_eq!(check(&format!("{subnet}router = \"10.20.0.1\"\n")), "");
        assert!(check(subnet).contains("set router"));
        assert!(check("subnet = \"10.0.0.0/8\"\n").contains("leave subnet out"));
        let router = check(&format!("{subnet}router = \"10.0.5.1\"\n"));
        assert!(router.contains("the server's own address"), "{router}");
    }

    #[test]
    fn networks_don_t_overlap_and_each_interface_has_one() {
        let block = |lines: &str| format!("[[network]]\ninterface = \"lo\"\n{lines}\n");
        let here = block("pool = \"127.0.0.100-127.0.0.199\"");
        let far = |net: &str| {
            block(&format!(
                "subnet = \"{net}.0/24\"\nrouter = \"{net}.1\"\npool = \"{net}.100-{net}.199\""
            ))
        };
        let read = |text: &str| networks(&toml::from_str(text).unwrap());
        let all = read(&format!("{here}{}{}", far("10.20.0"), far("10.20.1"))).unwrap();
        let seen: Vec<_> =
            all.iter().map(|it| (it.network.subnet, it.network.is_relayed)).collect();
        let ip = Ipv4Addr::new;
        let wanted =
            [(ip(127, 0, 0, 0), false), (ip(10, 20, 0, 0), true), (ip(10, 20, 1, 0), true)];
        assert_eq!(seen, wanted);
        assert_eq!(interfaces(&all), [("lo", Ipv4Addr::LOCALHOST)]);
        assert_eq!(nbd_addresses(&all).len(), 1);
        let error = |text: String| read(&text).unwrap_err().to_string();
        assert!(
            error(format!("{here}{here}")).contains("number 2 of bootlace.toml: the interface")
        );
        assert!(error(format!("{here}{}{}", far("10.20.0"), far("10.20.0"))).contains("number 3"));
        assert!(error(far("10.20.0") + &far("10.20.0")).contains("overlaps 10.20.0.0/24"));
        // Those that are reached by it are all that there is.
        assert!(read(&far("10.20.0")).unwrap()[0].network.is_relayed);
    }

    #[test]
    fn a_reserved_address_is_one_that_a_pc_can_have() {
        let check = |lines: &str| {
            let text = format!(
                "[network]\ninterface = \"lo\"\npool = \"127.0.0.100-127.0.0.199\"\n{lines}\n"
            );
            network(&toml::from_str(&text).unwrap()).map_err(|error| error.to_string())
        };
        let reserve = |address: &str| {
            check(&format!("reserve = {{ \"52:54:00:00:00:01\" = \"{address}\" }}"))
        };
        assert!(reserve("127.0.5.20").is_ok(), "it need not lie in the pool");
        for address in ["192.168.9.9", "127.0.0.0", "127.255.255.255"] {
            let error = reserve(address).unwrap_err();
            assert!(error.contains("52:54:00:00:00:01") && error.contains(address), "{error}");
        }
        assert!(reserve("127.0.0.1").unwrap_err().contains("the server's own address"));
        let twice = "reserve = { \"52:54:00:00:00:01\" = \"127.0.0.9\", \"52:54:00:00:00:02\" = \"127.0.0.9\" }";
        assert!(check(twice).unwrap_err().contains("reserved for both 52:54:00:00:00:01 and"));
        let nobodys = check("reserve = { \"00:00:00:00:00:00\" = \"127.0.0.9\" }").unwrap_err();
        assert!(nobodys.contains("no network card has"), "{nobodys}");
        assert!(check("router = \"10.0.0.1\"").unwrap_err().contains("router 10.0.0.1"));
        assert!(check("router = \"127.0.0.1\"").is_ok(), "the server may be the router");
    }
}
