//! What may be wrong with the boot networks.

use crate::config::Subnet;
use crate::storage_network::StorageNetworkError;
use std::net::Ipv4Addr;
use wire::Mac;

/// Name servers of a network, and time servers: so many are used by nobody.
pub(super) const SERVERS_MAX: usize = 8;

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
         {interface:?} (the server's address is {server}): write addresses of that network"
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
         correct it in bootlace.toml, or leave it out"
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
    /// A route that no machine can use.
    #[error("the route to {to}/{prefix} {why}: leave it out of `routes` in bootlace.toml")]
    BadRoute {
        /// First address of the network that it leads to.
        to: Ipv4Addr,
        /// Prefix length of that network.
        prefix: u8,
        /// What is wrong.
        why: String,
    },
    /// More than a DHCP reply and a kernel's command line hold.
    #[error(
        "there are {n} addresses in `{key}`, and {SERVERS_MAX} fit: leave out some in bootlace.toml"
    )]
    TooMany {
        /// The setting.
        key: &'static str,
        /// So many are there.
        n: usize,
    },
    /// An address can't be the server's own.
    #[error("{what} is the server's own address {server}: choose another one")]
    IsServer {
        /// What it is configured as.
        what: String,
        /// The server's own address.
        server: Ipv4Addr,
    },
    /// An address is a PC's and the router's.
    #[error("{what}, {address}, is the router's: choose another one, or correct router")]
    IsRouter {
        /// What it is configured as.
        what: String,
        /// The address.
        address: Ipv4Addr,
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
        "{what} {address} is not an address that machines can reach: correct it in bootlace.toml, or leave it out"
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
    /// PCs behind a relay would not reach the server.
    #[error(
        "the network {0} is behind a relay (subnet), and its PCs reach the boot server by a router only: set router to its \
         address there"
    )]
    NoRouter(Subnet),
    /// The network that is said to be behind a relay is not.
    #[error(
        "the network {subnet} is said to be behind a relay (subnet), but the interface {interface:?} has the address {server} \
         in it: leave subnet out, or correct it"
    )]
    NotRelayed {
        /// As configured.
        subnet: Subnet,
        /// The interface.
        interface: String,
        /// Its address.
        server: Ipv4Addr,
    },
    /// Two networks are configured for one interface.
    #[error(
        "the interface {0:?} has a [[network]] already: name another interface, or the subnet that is behind a relay"
    )]
    InterfaceTwice(String),
    /// Two networks have addresses in common.
    #[error(
        "the network {this} overlaps {other}, which another [[network]] has: an address must say in which network its PC is; \
         correct one of them"
    )]
    Overlap {
        /// This one.
        this: Subnet,
        /// The other.
        other: Subnet,
    },
    /// The storage network can't be used.
    #[error(transparent)]
    Storage(#[from] StorageNetworkError),
    /// One of several networks can't be served.
    #[error("in the [[network]] number {number} of bootlace.toml: {source}")]
    In {
        /// Which, from 1.
        number: usize,
        /// Why.
        source: Box<Self>,
    },
}
