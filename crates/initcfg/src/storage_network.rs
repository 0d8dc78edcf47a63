//! A network that carries nothing but disks, on a network card of its own.

use crate::MTU_RANGE;
use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// A network over which a machine reaches its disk, beside the one that it boots from; displayed as `10.20.0.1/24`, or
/// with the size of its packets as `10.20.0.1/24,9000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageNetwork {
    /// The storage server's address there: the network card behind which it answers leads there.
    pub server: Ipv4Addr,
    /// Prefix length, 8 to 30.
    pub prefix: u8,
    /// How large packets may be there, 1280 to 9000 bytes; `None`: as the driver sets it.
    pub mtu: Option<u16>,
}

impl StorageNetwork {
    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    /// First address of the network.
    pub fn subnet(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.server.to_bits() & self.mask())
    }

    /// Whether the address is one of this network.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.server.to_bits()) & self.mask() == 0
    }

    /// The address here of the machine that has `boot` in the network that it boots from: that of its host in this network.
    /// So nobody gives it, and nobody must renew it.
    pub fn address_of(&self, boot: Ipv4Addr) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet().to_bits() | (boot.to_bits() & !self.mask()))
    }
}

impl fmt::Display for StorageNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.prefix)?;
        self.mtu.map_or(Ok(()), |mtu| write!(f, ",{mtu}"))
    }
}

/// The text names no such network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the server's address in a storage network, like 10.20.0.1/24")]
pub struct ParseStorageNetworkError;

impl FromStr for StorageNetwork {
    type Err = ParseStorageNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseStorageNetworkError> {
        let (place, mtu) = match text.split_once(',') {
            Some((place, mtu)) => (place, Some(mtu)),
            None => (text, None),
        };
        let read = || {
            let (server, prefix) = place.split_once('/')?;
            let mtu = match mtu {
                Some(mtu) => Some(mtu.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu))?),
                None => None,
            };
            let prefix = prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix))?;
            Some(Self { server: server.parse().ok()?, prefix, mtu })
        };
        read().ok_or(ParseStorageNetworkError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_network_is_the_servers_address_in_it() {
        for text in ["10.20.0.1/24", "10.20.0.1/8,9000", "10.20.255.254/30,1280"] {
            assert_eq!(text.parse::<StorageNetwork>().unwrap().to_string(), text);
            for end in 0..text.len() {
                let _ = text[..end].parse::<StorageNetwork>();
            }
        }
        for text in [
            "",
            "10.20.0.1",
            "10.20.0/24",
            "10.20.0.1/31",
            "10.20.0.1/7",
            "10.20.0.1/24,",
            "10.20.0.1/24,100",
            "server/24",
        ] {
            assert_eq!(text.parse::<StorageNetwork>(), Err(ParseStorageNetworkError), "{text}");
        }
    }

    #[test]
    fn a_machine_has_the_number_that_it_boots_with() {
        let check = |network: &str, boot: [u8; 4], expected: [u8; 4]| {
            let network: StorageNetwork = network.parse().unwrap();
            let address = network.address_of(boot.into());
            assert_eq!(address, Ipv4Addr::from(expected));
            assert!(network.holds(address) && !network.holds(boot.into()));
        };
        check("10.20.0.1/24", [10, 77, 0, 107], [10, 20, 0, 107]);
        check("10.20.0.1/16", [10, 77, 3, 107], [10, 20, 3, 107]);
        check("192.168.7.129/25", [10, 77, 3, 107], [192, 168, 7, 235]);
    }
}
