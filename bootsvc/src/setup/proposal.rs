//! What to tell PCs of a network, by what was heard there.

use crate::config::Pool;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Addresses that are proposed at most: what a few rooms need.
const POOL_MAX: u32 = 200;

/// Fewer are no proposal.
const POOL_MIN: u32 = 4;

/// Free addresses of the network `server`/`prefix`, outside those that are in use as far as was heard: as people like them,
/// from .100 to .199, or else the longest run beside the server. `None`: there are hardly any.
pub(crate) fn pool(server: Ipv4Addr, prefix: u8, used: &BTreeSet<Ipv4Addr>) -> Option<Pool> {
    // In a larger network, what has the same first three numbers.
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.max(24))).unwrap_or(0);
    let network = server.to_bits() & mask;
    let is_free =
        |bits: u32| bits != server.to_bits() && !used.contains(&Ipv4Addr::from_bits(bits));
    let pool = |first: u32, last: u32| Pool {
        first: Ipv4Addr::from_bits(first),
        last: Ipv4Addr::from_bits(last),
    };
    let (first, last) = (network.checked_add(1)?, (network | !mask).checked_sub(1)?);
    let usual = network.checked_add(100)?..=network.checked_add(199)?;
    if first <= *usual.start() && *usual.end() <= last && usual.clone().all(is_free) {
        return Some(pool(*usual.start(), *usual.end()));
    }
    let mut longest = None;
    let mut begin = first;
    for bits in first..=last.checked_add(1)? {
        if bits > last || !is_free(bits) {
            let length = bits - begin;
            if longest.is_none_or(|(_, longest)| length > longest) {
                longest = Some((begin, length));
            }
            begin = bits + 1;
        }
    }
    let (begin, length) = longest.filter(|(_, length)| *length >= POOL_MIN)?;
    Some(pool(begin, begin + length.min(POOL_MAX) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(server: &str, prefix: u8, used: &[&str]) -> Option<String> {
        let used = used.iter().map(|it| it.parse().unwrap()).collect();
        pool(server.parse().unwrap(), prefix, &used).map(|it| format!("{}-{}", it.first, it.last))
    }

    #[test]
    fn what_is_proposed_is_free_and_in_the_network() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(proposed("10.0.5.1", 24, &["10.0.5.20"]), some("10.0.5.100-10.0.5.199"));
        assert_eq!(proposed("10.0.5.1", 16, &[]), some("10.0.5.100-10.0.5.199"));
        assert_eq!(proposed("10.0.5.1", 24, &["10.0.5.150"]), some("10.0.5.2-10.0.5.149"));
        assert_eq!(proposed("10.0.5.150", 24, &[]), some("10.0.5.1-10.0.5.149"));
        assert_eq!(proposed("10.0.5.33", 27, &["10.0.5.40"]), some("10.0.5.41-10.0.5.62"));
        assert_eq!(proposed("10.0.5.1", 30, &[]), None);
        assert_eq!(proposed("10.0.5.1", 32, &[]), None);
        assert_eq!(proposed("255.255.255.254", 24, &[]), some("255.255.255.100-255.255.255.199"));
    }
}
