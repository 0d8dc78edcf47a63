//! How the addresses of a network are reached.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// A route of IPv4. Its text is `10.9.0.0/16:10.5.0.254`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// First address of the network, with nothing behind the prefix.
    pub to: Ipv4Addr,
    /// Length of its prefix, 0 to 32; of the default route 0.
    pub prefix: u8,
    /// The router; 0.0.0.0 is none: the network is on the link itself.
    pub via: Ipv4Addr,
}

impl Route {
    /// A route to the network of that prefix length that holds the address; `None` if the length is more than 32.
    pub fn new(to: Ipv4Addr, prefix: u8, via: Ipv4Addr) -> Option<Self> {
        let host_bits = 32_u8.checked_sub(prefix)?;
        let mask = u32::MAX.checked_shl(host_bits.into()).unwrap_or(0);
        Some(Self { to: Ipv4Addr::from_bits(to.to_bits() & mask), prefix, via })
    }

    /// Whether the address is in the network that it leads to.
    pub fn leads_to(&self, address: Ipv4Addr) -> bool {
        Self::new(address, self.prefix, self.via).is_some_and(|it| it.to == self.to)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.to, self.prefix, self.via)
    }
}

/// The text is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a route is a network and a router, like 10.9.0.0/16:10.5.0.254")]
pub struct ParseRouteError;

impl FromStr for Route {
    type Err = ParseRouteError;

    fn from_str(text: &str) -> Result<Self, ParseRouteError> {
        let read = || {
            let (network, via) = text.split_once(':')?;
            let (to, prefix) = network.split_once('/')?;
            Self::new(to.parse().ok()?, prefix.parse().ok()?, via.parse().ok()?)
        };
        read().ok_or(ParseRouteError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_route_leads_to_its_network() {
        let leads =
            |route: &str, to: &str| route.parse::<Route>().unwrap().leads_to(to.parse().unwrap());
        assert!(leads("10.9.0.0/16:10.5.0.254", "10.9.255.1"));
        assert!(!leads("10.9.0.0/16:10.5.0.254", "10.10.0.1"));
        assert!(leads("0.0.0.0/0:10.5.0.1", "192.0.2.1"));
    }

    #[test]
    fn a_route_is_read_as_it_is_written() {
        for text in ["10.9.0.0/16:10.5.0.254", "0.0.0.0/0:10.5.0.1", "10.9.0.7/32:0.0.0.0"] {
            assert_eq!(text.parse::<Route>().unwrap().to_string(), text);
        }
        assert_eq!("10.9.1.2/16:10.5.0.1".parse::<Route>().unwrap().to, Ipv4Addr::new(10, 9, 0, 0));
        for text in ["", "10.9.0.0/16", "10.9.0.0/33:10.5.0.1", "10.9.0.0:10.5.0.1", "a/1:b"] {
            assert_eq!(text.parse::<Route>(), Err(ParseRouteError), "{text}");
        }
    }
}
