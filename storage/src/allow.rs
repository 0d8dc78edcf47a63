//! Who may use a shared disk.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use wire::Mac;

/// One rule of `--allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Hosts whose address begins with these bits, over NBD.
    Network {
        /// Any address of the network.
        address: IpAddr,
        /// How many bits count.
        prefix: u8,
    },
    /// A station, over AoE.
    Station(Mac),
}

/// The text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: use 10.0.0.7, 10.0.0.0/24, fd00::/64 or 52:54:00:12:34:56")]
pub struct NotAllow(String);

impl FromStr for Allow {
    type Err = NotAllow;

    fn from_str(text: &str) -> Result<Self, NotAllow> {
        let wrong = || NotAllow(text.to_owned());
        if let Ok(mac) = text.parse() {
            return Ok(Self::Station(mac));
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix <= bits { Ok(Self::Network { address, prefix }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { address, prefix } => write!(f, "{address}/{prefix}"),
            Self::Station(mac) => mac.fmt(f),
        }
    }
}

impl Allow {
    /// Whether this rule lets the host in.
    pub(crate) fn admits(&self, host: IpAddr) -> bool {
        let Self::Network { address, prefix } = *self else { return false };
        match (address, host) {
            (IpAddr::V4(ours), IpAddr::V4(host)) => {
                let differ = ours.to_bits() ^ host.to_bits();
                differ.checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(host)) => {
                let differ = ours.to_bits() ^ host.to_bits();
                differ.checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_admits_its_network_and_nobody_else() {
        let check = |rule: &str, host: &str| {
            rule.parse::<Allow>().unwrap().admits(host.parse::<IpAddr>().unwrap())
        };
        assert!(check("10.0.0.7", "10.0.0.7") && !check("10.0.0.7", "10.0.0.6"));
        assert!(check("10.0.0.9/24", "10.0.0.255") && !check("10.0.0.0/24", "10.0.1.0"));
        assert!(check("0.0.0.0/0", "192.0.2.1") && !check("0.0.0.0/0", "::1"));
        assert!(check("fd00::/64", "fd00::1:2") && !check("fd00::/64", "fd00:0:0:1::"));
        assert!(check("::/0", "::1") && !check("52:54:00:00:00:01", "::1"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in
            ["", "host", "10.0.0.0/33", "10.0.0.0/x", "fd00::/129", "52:54:00", "10.0.0.0/-1"]
        {
            assert!(text.parse::<Allow>().is_err(), "{text}");
        }
        assert!(matches!("52:54:00:00:00:01".parse(), Ok(Allow::Station(_))));
    }
}
