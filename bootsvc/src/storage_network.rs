//! Storage networks: where the server is in them, and which addresses machines have there.

use crate::config::{Config, NetworkConfig, Subnet};
use crate::net::link::TRIALS;
use initcfg::StorageNetwork;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A storage network can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageNetworkError {
    /// This server is not there.
    #[error(
        "no interface has an address in the storage network {0}, so machines have their disks over the network that they \
         boot from; give one an address there, like: ip address add {1}/{2} dev INTERFACE"
    )]
    NoAddress(Subnet, Ipv4Addr, u8),
    /// PCs have more addresses than there are.
    #[error(
        "the storage network {storage} is smaller than the network {boot}, of which each PC has the same number there: make \
         it at least a /{}", boot.prefix
    )]
    TooSmall {
        /// The storage network.
        storage: Subnet,
        /// That of its PCs.
        boot: Subnet,
    },
    /// Somebody else may have its addresses.
    #[error(
        "the storage network {storage} overlaps {other}, from which PCs boot: it must be a network of its own, in which \
         nobody gives addresses"
    )]
    Overlap {
        /// The storage network.
        storage: Subnet,
        /// The other one.
        other: Subnet,
    },
    /// PCs of two networks would have the same addresses.
    #[error(
        "PCs of {this} and {other} would have the same addresses in the storage network {storage}: give each a storage \
         network of its own"
    )]
    Shared {
        /// The storage network.
        storage: Subnet,
        /// One network of PCs.
        this: Subnet,
        /// The other.
        other: Subnet,
    },
    /// A PC would have our address.
    #[error(
        "the PC with {boot} would have {there} in the storage network, which is the server's own address: leave {boot} out \
         of pool and reserve"
    )]
    IsServer {
        /// Its address in the network from which it boots.
        boot: Ipv4Addr,
        /// Ours.
        there: Ipv4Addr,
    },
    /// Machines are told no address there.
    #[error(
        "none of nbd_addresses is in the storage network {0}: add the server's address there, or leave nbd_addresses out"
    )]
    NbdElsewhere(Subnet),
    /// There is none.
    #[error(
        "storage_mtu is the size of packets in a storage network: name that (storage_network), or leave it out"
    )]
    MtuAlone,
}

/// Where this server is in a storage network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoragePlace {
    /// The interface that leads there.
    pub(crate) interface: String,
    /// Our address there.
    pub(crate) server: Ipv4Addr,
    /// The network.
    pub(crate) subnet: Subnet,
    /// How large packets may be there.
    pub(crate) mtu: Option<u16>,
}

impl StoragePlace {
    /// As machines are told of it.
    pub(crate) fn network(&self) -> StorageNetwork {
        let Self { server, subnet, mtu, .. } = *self;
        StorageNetwork { server, prefix: subnet.prefix, mtu }
    }
}

/// A network from which PCs boot.
#[derive(Clone, Copy)]
pub(crate) struct BootNetwork<'a> {
    /// Which of the configured ones.
    pub(crate) index: usize,
    pub(crate) one: &'a NetworkConfig,
    pub(crate) subnet: Subnet,
    /// We give its addresses.
    pub(crate) is_leased: bool,
}

/// An address of this host.
#[derive(Clone, Debug)]
pub(crate) struct OwnAddress {
    pub(crate) interface: String,
    pub(crate) address: Ipv4Addr,
}

/// What becomes of the configured storage networks; each error with the number of its network.
#[derive(Debug, Default)]
pub(crate) struct FoundStorage {
    /// Those that are there, by the number of the network of their PCs.
    pub(crate) places: BTreeMap<usize, StoragePlace>,
    /// In which this server has no address.
    pub(crate) absent: Vec<(usize, StorageNetworkError)>,
    /// What is wrong with the configuration.
    pub(crate) wrong: Vec<(usize, StorageNetworkError)>,
}

/// The addresses of this host.
///
/// # Errors
/// They can't be listed.
pub(crate) fn own_addresses() -> std::io::Result<Vec<OwnAddress>> {
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all
        // That of trials is there only meanwhile.
        .filter(|entry| entry.interface_name != TRIALS)
        .filter_map(|entry| {
            let address = entry.address.as_ref()?.as_sockaddr_in()?.ip();
            Some(OwnAddress { interface: entry.interface_name, address })
        })
        .collect())
}

/// Looks for this server in the storage networks of these networks, and checks the addresses of machines there.
pub(crate) fn find(
    config: &Config,
    networks: &[BootNetwork<'_>],
    own: &[OwnAddress],
) -> FoundStorage {
    let mut found = FoundStorage::default();
    let mut images: Vec<(Subnet, Subnet)> = Vec::new();
    for network in networks {
        let BootNetwork { index, one, subnet: boot, .. } = *network;
        let Some(storage) = one.storage_network else {
            let alone = one.storage_mtu.map(|_| (index, StorageNetworkError::MtuAlone));
            found.wrong.extend(alone);
            continue;
        };
        let mut wrong = Vec::new();
        let others = networks.iter().map(|it| it.subnet).filter(|it| it.overlaps(storage));
        wrong.extend(others.map(|other| StorageNetworkError::Overlap { storage, other }));
        if storage.prefix > boot.prefix {
            wrong.push(StorageNetworkError::TooSmall { storage, boot });
        } else {
            let image = image(boot, storage);
            let same = images.iter().filter(|(seen, _)| seen.overlaps(image));
            wrong.extend(same.map(|&(_, other)| StorageNetworkError::Shared {
                storage,
                this: boot,
                other,
            }));
            images.push((image, boot));
            wrong.extend(servers_of_pcs(network, storage, own));
        }
        let nbd = &config.storage.nbd_addresses;
        if !nbd.is_empty() && !nbd.iter().any(|address| storage.holds(*address)) {
            wrong.push(StorageNetworkError::NbdElsewhere(storage));
        }
        found.wrong.extend(wrong.into_iter().map(|error| (index, error)));
        match own.iter().find(|it| storage.holds(it.address)) {
            Some(OwnAddress { interface, address }) => {
                let (interface, server, mtu) = (interface.clone(), *address, one.storage_mtu);
                found
                    .places
                    .insert(index, StoragePlace { interface, server, subnet: storage, mtu });
            }
            None => {
                let first = Ipv4Addr::from_bits(storage.address.to_bits() | 1);
                let absent = StorageNetworkError::NoAddress(storage, first, storage.prefix);
                found.absent.push((index, absent));
            }
        }
    }
    found
}

/// The part of the storage network that has the addresses of the PCs of `boot`.
pub(crate) fn image(boot: Subnet, storage: Subnet) -> Subnet {
    let network = StorageNetwork { server: storage.address, prefix: storage.prefix, mtu: None };
    Subnet::of(network.address_of(boot.address), boot.prefix)
}

/// PCs of ours that would have an address of this server.
fn servers_of_pcs(
    network: &BootNetwork<'_>,
    storage: Subnet,
    own: &[OwnAddress],
) -> Vec<StorageNetworkError> {
    let BootNetwork { one, subnet: boot, is_leased, .. } = *network;
    let image = image(boot, storage);
    let of_boot = StorageNetwork { server: boot.address, prefix: boot.prefix, mtu: None };
    let there = own.iter().map(|it| it.address).filter(|address| image.holds(*address));
    let pairs = there.map(|there| (of_boot.address_of(there), there));
    let is_pcs = |boot: Ipv4Addr| {
        let in_pool = one.pool.is_some_and(|pool| (pool.first..=pool.last).contains(&boot));
        in_pool || one.reserved.values().any(|it| *it == boot)
    };
    pairs
        .filter(|(boot, _)| is_leased && is_pcs(*boot))
        .map(|(boot, there)| StorageNetworkError::IsServer { boot, there })
        .collect()
}

/// Where machines find NBD: in the storage network first, if there is one, and then where they boot from. Addresses that
/// the configuration names count more, but for those in other storage networks.
pub(crate) fn nbd(
    config: &Config,
    server: Ipv4Addr,
    storage: Option<&StoragePlace>,
) -> Vec<SocketAddrV4> {
    let named = &config.storage.nbd_addresses;
    let Some(StoragePlace { server: there, subnet, .. }) = storage else {
        let all = if named.is_empty() { vec![server] } else { named.clone() };
        return with_port(config, all);
    };
    if named.is_empty() {
        return with_port(config, vec![*there, server]);
    }
    let is_in_another = |address| {
        let mut others = config.network.all().filter_map(|it| it.storage_network);
        others.any(|it| it != *subnet && it.holds(address))
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        named.iter().copied().partition(|address| subnet.holds(*address));
    let outside = outside.into_iter().filter(|address| !is_in_another(*address));
    with_port(config, inside.into_iter().chain(outside).collect())
}

fn with_port(config: &Config, addresses: Vec<Ipv4Addr>) -> Vec<SocketAddrV4> {
    let port = config.storage.nbd_port;
    addresses.into_iter().map(|address| SocketAddrV4::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "[[network]]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n\
                         storage_network = \"10.20.0.0/16\"\n";

    fn own(addresses: &[&str]) -> Vec<OwnAddress> {
        let own = |text: &&str| OwnAddress {
            interface: format!("of-{text}"),
            address: text.parse().unwrap(),
        };
        addresses.iter().map(own).collect()
    }

    /// What is found of this configuration, of which each network is a /24, on a host with these addresses.
    fn found(text: &str, addresses: &[&str]) -> FoundStorage {
        let config: Config = toml::from_str(text).unwrap();
        let networks = config.network.all().enumerate().map(|(index, one)| {
            let first = one.pool.unwrap().first;
            BootNetwork { index, one, subnet: Subnet::of(first, 24), is_leased: true }
        });
        find(&config, &networks.collect::<Vec<_>>(), &own(addresses))
    }

    fn wrong(text: &str, addresses: &[&str]) -> String {
        let wrong = found(text, addresses).wrong.into_iter();
        wrong.map(|(_, error)| format!("{error}\n")).collect()
    }

    #[test]
    fn the_server_is_found_by_its_address_there_and_missed_if_it_has_none() {
        let there = found(FIRST, &["10.77.0.1", "10.20.0.1"]);
        assert!(there.wrong.is_empty() && there.absent.is_empty(), "{there:?}");
        let place = &there.places[&0];
        assert_eq!((place.interface.as_str(), place.network().prefix), ("of-10.20.0.1", 16));
        let away = found(FIRST, &["10.77.0.1"]);
        assert!(away.places.is_empty() && away.wrong.is_empty());
        let text = away.absent[0].1.to_string();
        assert!(text.contains("ip address add 10.20.0.1/16 dev"), "{text}");
    }

    #[test]
    fn addresses_that_somebody_has_already_are_refused() {
        let all = ["10.77.0.1", "10.20.0.1"];
        assert_eq!(wrong(FIRST, &all), "");
        let small = wrong(&FIRST.replace("10.20.0.0/16", "10.20.0.0/25"), &all);
        assert!(small.contains("at least a /24"), "{small}");
        let own = wrong(FIRST, &["10.77.0.1", "10.20.0.150"]);
        assert!(own.contains("the PC with 10.77.0.150 would have 10.20.0.150"), "{own}");
        let second = |storage: &str| {
            format!(
                "{FIRST}[[network]]\ninterface = \"br1\"\npool = \"10.88.0.100-10.88.0.199\"\n\
                 storage_network = \"{storage}\"\n"
            )
        };
        assert_eq!(wrong(&second("10.21.0.0/24"), &all), "");
        let shared = wrong(&second("10.20.0.0/16"), &all);
        assert!(shared.contains("PCs of 10.88.0.0/24 and 10.77.0.0/24 would have"), "{shared}");
        let third = second("10.20.0.0/16").replace("10.88.0.", "10.88.1.");
        assert_eq!(wrong(&third, &all), "", "their numbers differ");
        let overlap = wrong(&second("10.77.0.0/24"), &all);
        assert!(overlap.contains("overlaps 10.77.0.0/24, from which PCs boot"), "{overlap}");
        let mtu = FIRST.replace("storage_network = \"10.20.0.0/16\"", "storage_mtu = 9000");
        assert!(wrong(&mtu, &all).contains("name that (storage_network)"));
        let nbd = format!("{FIRST}[storage]\nnbd_addresses = [\"10.77.0.1\"]\n");
        assert!(wrong(&nbd, &all).contains("none of nbd_addresses is in the storage network"));
    }

    #[test]
    fn machines_look_for_nbd_in_the_storage_network_first() {
        let check = |more: &str, is_there: bool, expected: &[&str]| {
            let text = format!("{FIRST}{more}");
            let addresses: &[&str] = if is_there { &["10.20.0.1"] } else { &[] };
            let place = found(&text, addresses).places.remove(&0);
            let config: Config = toml::from_str(&text).unwrap();
            let all = nbd(&config, Ipv4Addr::new(10, 77, 0, 1), place.as_ref());
            assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check("", true, &["10.20.0.1:10809", "10.77.0.1:10809"]);
        check("", false, &["10.77.0.1:10809"]);
        check("[storage]\nnbd_addresses = [\"10.20.0.1\"]\n", true, &["10.20.0.1:10809"]);
        let several = "[[network]]\ninterface = \"br1\"\npool = \"10.88.0.100-10.88.0.199\"\n\
                       storage_network = \"10.21.0.0/24\"\n[storage]\n\
                       nbd_addresses = [\"10.77.0.9\", \"10.21.0.1\", \"10.20.0.1\"]\n";
        check(several, true, &["10.20.0.1:10809", "10.77.0.9:10809"]);
    }
}
