//! Classless static routes (RFC 3442): a network is as many bytes as its prefix needs, and each is followed by its router.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::Route;

/// Routes that are read; no site has more.
const ROUTES_MAX: usize = 64;

/// The content of the option.
pub(crate) fn to_bytes(routes: &[Route]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for route in routes {
        bytes.push(route.prefix);
        bytes.extend(route.to.octets().iter().take(n_bytes(route.prefix)));
        bytes.extend(route.via.octets());
    }
    bytes
}

/// What the option says; `None` if it is cut off, or nothing.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = bytes.split_first() {
        let n_bytes = n_bytes(prefix);
        let (told, rest) = rest.split_at_checked(n_bytes)?;
        let (via, rest) = rest.split_first_chunk::<4>()?;
        let mut to = [0; 4];
        to.get_mut(..n_bytes)?.copy_from_slice(told);
        routes.push(Route::new(Ipv4Addr::from(to), prefix, Ipv4Addr::from(*via))?);
        bytes = rest;
    }
    routes.truncate(ROUTES_MAX);
    (!routes.is_empty()).then_some(routes)
}

/// So many bytes of the network are written.
fn n_bytes(prefix: u8) -> usize {
    usize::from(prefix.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        // RFC 3442, the table of descriptors: 0/0, 10/8, 10.0.0/24, 10.17/16, 10.27.129/24, 10.229.0.128/25, 10.198.122.47/32.
        let via = [10, 0, 0, 1];
        let parts: [(&[u8], &str); 7] = [
            (&[0], "0.0.0.0/0"),
            (&[8, 10], "10.0.0.0/8"),
            (&[24, 10, 0, 0], "10.0.0.0/24"),
            (&[16, 10, 17], "10.17.0.0/16"),
            (&[24, 10, 27, 129], "10.27.129.0/24"),
            (&[25, 10, 229, 0, 128], "10.229.0.128/25"),
            (&[32, 10, 198, 122, 47], "10.198.122.47/32"),
        ];
        let mut bytes = Vec::new();
        let mut routes = Vec::new();
        for (descriptor, network) in parts {
            bytes.extend(descriptor);
            bytes.extend(via);
            routes.push(alloc::format!("{network}:10.0.0.1").parse::<Route>().unwrap());
        }
        assert_eq!(to_bytes(&routes), bytes);
        assert_eq!(parse(&bytes).unwrap(), routes);
        for end in 0..bytes.len() {
            let _ = parse(&bytes[..end]);
        }
        assert_eq!(parse(&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1]), None);
        assert_eq!(parse(&[]), None);
    }
}
