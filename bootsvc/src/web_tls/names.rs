//! What browsers may call the server, as its certificate says.

use crate::config::WebConfig;
use nix::ifaddrs::getifaddrs;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names in a certificate. A server with more addresses than that has containers.
const NAMES_MAX: usize = 64;

/// The names that are configured, this host's own, and the addresses on which the page is.
pub(crate) fn names(web: &WebConfig, listen: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = web.names.clone();
    names.extend(host_name());
    names.push("localhost".to_owned());
    let addresses = match listen.ip() {
        address if address.is_unspecified() => own_addresses(),
        address => BTreeSet::from([address]),
    };
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = loopback.into_iter().chain(addresses).map(|address| address.to_string());
    for address in addresses {
        if !names.contains(&address) {
            names.push(address);
        }
    }
    names.truncate(NAMES_MAX);
    names
}

fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?.to_ascii_lowercase();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    (!name.is_empty() && name != "localhost" && name.bytes().all(is_plain)).then_some(name)
}

/// Those of all interfaces, but for link-local ones, which browsers can't name.
fn own_addresses() -> BTreeSet<IpAddr> {
    let all = getifaddrs().into_iter().flatten();
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    let is_nameable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    addresses.filter(is_nameable).collect()
}
