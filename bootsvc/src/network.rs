//! The boot network, as the interface and the configuration have it.

use crate::config::{AddressBy, Config};
use model::{Network, Strangers};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use wire::Mac;

/// The boot network can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The interface is not there.
    #[error("there is no network interface {interface:?}; there are: {present}")]
    NoInterface {
        /// As configured.
        interface: String,
        /// Those that there are.
        present: String,
    },
    /// The interface has no address.
    #[error(
        "the network interface {0:?} has no IPv4 address; give it one, like: ip address add \
         10.0.5.1/24 dev {0}"
    )]
    NoAddress(String),
    /// The interfaces can't be listed.
    #[error("can't list the network interfaces")]
    List(#[source] std::io::Error),
    /// The pool is not part of the interface's network.
    #[error(
        "the pool {first}-{last} is not inside the network {network}/{prefix} of interface \
         {interface:?}; the server's address there is {server}"
    )]
    PoolOutside {
        /// First address of the pool.
        first: Ipv4Addr,
        /// Last address of the pool.
        last: Ipv4Addr,
        /// Network address.
        network: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
        /// The interface.
        interface: String,
        /// The server's own address.
        server: Ipv4Addr,
    },
    /// A configured address is not one that a PC of the interface's network can have.
    #[error(
        "{what} {address} is not an address of a PC in the network {network}/{prefix} of interface {interface:?}: \
         correct it below [network], or leave it out"
    )]
    NoAddressOfPc {
        /// What it is configured as.
        what: String,
        /// The address.
        address: Ipv4Addr,
        /// Network address.
        network: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
        /// The interface.
        interface: String,
    },
    /// An address can't be the server's own.
    #[error("{what} is the server's own address {server}: choose another one")]
    IsServer {
        /// What it is configured as.
        what: String,
        /// The server's own address.
        server: Ipv4Addr,
    },
    /// The pool would give an address away that somebody has.
    #[error("the pool contains {what} {address}: leave it out of the pool")]
    InPool {
        /// What has it.
        what: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// Machines can't reach a configured address.
    #[error(
        "{what} {address} is not an address that machines can reach: correct it below [network], or leave it out"
    )]
    Unreachable {
        /// What it is configured as.
        what: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// An address is reserved for what is no NIC.
    #[error(
        "{address} is reserved for {mac}, which no network card has: correct it, or leave it out"
    )]
    NoNic {
        /// The address.
        address: Ipv4Addr,
        /// For what.
        mac: Mac,
    },
    /// An address is reserved for two NICs.
    #[error(
        "{address} is reserved for both {first} and {second}: give one of them another address"
    )]
    ReservedTwice {
        /// The address.
        address: Ipv4Addr,
        /// One NIC.
        first: Mac,
        /// The other.
        second: Mac,
    },
    /// The pool would give the server's address away.
    #[error("the pool contains the server's own address {0}; leave it out")]
    PoolHasServer(Ipv4Addr),
}

/// Reads the server's address from the interface and checks the configured addresses against it.
///
/// # Errors
/// The interface is not there or has no IPv4 address, or a configured address does not fit its network.
pub(crate) fn network(config: &Config) -> Result<Network, NetworkError> {
    let (server, prefix) = address_of(&config.network.interface)?;
    check_addresses(config, server, prefix)?;
    Ok(Network {
        server,
        prefix,
        router: config.network.router,
        dns: config.network.dns.clone(),
        domain: config.network.domain.clone(),
        mtu: config.network.mtu,
        vlan: config.network.vlan,
        nbd: match config.storage.nbd_addresses.as_slice() {
            [] => vec![SocketAddrV4::new(server, config.storage.nbd_port)],
            addresses => addresses
                .iter()
                .map(|&address| SocketAddrV4::new(address, config.storage.nbd_port))
                .collect(),
        },
        kernel_args: config.boot.kernel_args.clone(),
        foreign_dhcp: !config.network.mode.leases(),
        own_dhcp: config.network.address_by == AddressBy::Dhcp || !config.network.mode.leases(),
        ram: config.boot.ram,
        strangers: config.boot.strangers.unwrap_or(match config.network.mode.leases() {
            true => Strangers::Wait,
            false => Strangers::LocalDisk,
        }),
        menu_password: config.boot.menu_password.clone(),
    })
}

fn address_of(interface: &str) -> Result<(Ipv4Addr, u8), NetworkError> {
    let addresses = nix::ifaddrs::getifaddrs().map_err(|error| NetworkError::List(error.into()))?;
    let mut present = Vec::new();
    let mut exists = false;
    for entry in addresses {
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
            return Ok((address.ip(), netmask.ip().to_bits().leading_ones() as u8));
        }
    }
    if exists {
        Err(NetworkError::NoAddress(interface.into()))
    } else {
        let present = present.join(", ");
        Err(NetworkError::NoInterface { interface: interface.into(), present })
    }
}

fn check_addresses(config: &Config, server: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let network = Ipv4Addr::from_bits(server.to_bits() & mask);
    let is_inside = |address: Ipv4Addr| address.to_bits() & mask == network.to_bits();
    // Without a pool of ours none of it is given to anybody.
    let pool = config.network.pool.filter(|_| config.network.mode.leases());
    if let Some(pool) = pool.filter(|pool| !is_inside(pool.first) || !is_inside(pool.last)) {
        return Err(NetworkError::PoolOutside {
            first: pool.first,
            last: pool.last,
            network,
            prefix,
            interface: config.network.interface.clone(),
            server,
        });
    }
    let in_pool =
        |address: Ipv4Addr| pool.is_some_and(|pool| (pool.first..=pool.last).contains(&address));
    if in_pool(server) {
        return Err(NetworkError::PoolHasServer(server));
    }
    let broadcast = Ipv4Addr::from_bits(network.to_bits() | !mask);
    let reserved = &config.network.reserved;
    // An address that a PC has for ever may lie in the pool: the PC's own NIC gets it from there.
    let is_leased =
        |address: Ipv4Addr| in_pool(address) && !reserved.values().any(|it| *it == address);
    let leave_out = |what: String, address| Err(NetworkError::InPool { what, address });
    if prefix < 31 {
        for (what, address) in
            [("the network's own address", network), ("the broadcast address", broadcast)]
        {
            if in_pool(address) {
                return leave_out(what.to_owned(), address);
            }
        }
    }
    for &address in config.network.dns.iter().filter(|address| **address != server) {
        let is_of_one_host = address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address == network
            || address == broadcast;
        if is_of_one_host && !server.is_loopback() {
            return Err(NetworkError::Unreachable { what: "the name server".to_owned(), address });
        }
        if is_leased(address) {
            return leave_out("the name server".to_owned(), address);
        }
    }
    let check = |what: String, address: Ipv4Addr| {
        if address == server {
            return Err(NetworkError::IsServer { what, server });
        }
        if is_inside(address) && address != network && address != broadcast {
            return Ok(());
        }
        let interface = config.network.interface.clone();
        Err(NetworkError::NoAddressOfPc { what, address, network, prefix, interface })
    };
    if let Some(router) = config.network.router.filter(|router| *router != server) {
        check("router".to_owned(), router)?;
        if is_leased(router) {
            return leave_out("the router".to_owned(), router);
        }
    }
    let mut owners: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    for (&mac, &address) in &config.network.reserved {
        if !mac.is_of_a_nic() {
            return Err(NetworkError::NoNic { address, mac });
        }
        check(format!("the address reserved for {mac}"), address)?;
        if let Some(first) = owners.insert(address, mac) {
            return Err(NetworkError::ReservedTwice { address, first, second: mac });
        }
    }
    Ok(())
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
    fn what_does_not_fit_is_named() {
        let error = |interface, pool| network(&config(interface, pool)).unwrap_err().to_string();
        assert!(error("enp77s0", "10.0.0.1-10.0.0.9").contains("there are: lo"));
        assert!(error("lo", "10.0.0.1-10.0.0.9").contains("network 127.0.0.0/8"));
        assert!(error("lo", "127.0.0.1-127.0.0.9").contains("own address 127.0.0.1"));
    }

    #[test]
    fn a_pool_has_no_address_that_is_somebody_s() {
        let check = |pool: &str, lines: &str| {
            let interface = "interface = \"br0\"";
            let text = format!("[network]\n{interface}\npool = \"{pool}\"\n{lines}\n");
            let config = toml::from_str(&text).unwrap();
            let checked = check_addresses(&config, Ipv4Addr::new(10, 0, 5, 1), 24);
            checked.map_err(|error| error.to_string())
        };
        let refused = |pool: &str, lines: &str, words: &str| {
            let error = check(pool, lines).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused("10.0.5.100-10.0.5.255", "", "the broadcast address 10.0.5.255");
        refused("10.0.5.0-10.0.5.0", "", "the network's own address 10.0.5.0");
        refused("10.0.5.100-10.0.5.254", "router = \"10.0.5.254\"", "the router 10.0.5.254");
        refused("10.0.5.100-10.0.5.199", "dns = [\"10.0.5.150\"]", "the name server 10.0.5.150");
        for address in ["127.0.0.53", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.5.255"] {
            refused("10.0.5.100-10.0.5.199", &format!("dns = [\"{address}\"]"), address);
        }
        let reserved = "dns = [\"10.0.5.150\", \"9.9.9.9\", \"10.0.5.1\"]\n\
                        reserve = { \"52:54:00:00:00:01\" = \"10.0.5.150\" }";
        check("10.0.5.2-10.0.5.254", reserved).unwrap();
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
