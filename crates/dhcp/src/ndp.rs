//! The one word of IPv6 that a boot server needs to know (RFC 4861).
//!
//! iPXE configures IPv6 beside IPv4 and loads nothing before both have ended. Where no router answers its
//! solicitations that takes 16 s; one advertisement without a router ends it at once.

use core::net::Ipv6Addr;
use wire::{Mac, Reader};

const ROUTER_SOLICITATION: u8 = 133;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// A router advertisement that advertises nothing: no router (lifetime 0), no prefix, no DHCPv6
/// (RFC 4861 §4.2). The checksum is zero; the operating system sets it.
pub const NO_ROUTER: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The NIC that asks for routers, if the ICMPv6 message from `source` is a solicitation (RFC 4861 §4.1).
///
/// It is named in an option, or else by an address that was made of it (RFC 4291, appendix A). `None`
/// for everything else.
pub fn solicitor(message: &[u8], source: Ipv6Addr) -> Option<Mac> {
    let mut reader = Reader::new(message);
    let [kind, code, ..] = reader.array::<8>("router solicitation").ok()?;
    if (kind, code) != (ROUTER_SOLICITATION, 0) {
        return None;
    }
    if reader.remaining() == 0 {
        return maker(source);
    }
    loop {
        let kind = reader.u8("option type").ok()?;
        // In units of 8 bytes, type and length included; 0 is forbidden.
        let length = usize::from(reader.u8("option length").ok()?) * 8;
        let value = reader.bytes("option", length.checked_sub(2)?).ok()?;
        if kind == SOURCE_LINK_LAYER_ADDRESS {
            return value.try_into().ok().map(Mac);
        }
    }
}

/// The NIC that made this link-local address of its own.
fn maker(address: Ipv6Addr) -> Option<Mac> {
    match address.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => {
            Some(Mac([a ^ 2, b, c, d, e, f]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe77, 2);

    /// As iPXE sends it, after an unknown option.
    const SOLICITATION: [u8; 24] =
        [133, 0, 0x5f, 0x11, 0, 0, 0, 0, 14, 1, 9, 9, 9, 9, 9, 9, 1, 1, 0x52, 0x54, 0, 0x77, 0, 1];

    #[test]
    fn a_solicitation_tells_who_asks() {
        assert_eq!(solicitor(&SOLICITATION, ADDRESS), Some(Mac([0x52, 0x54, 0, 0x77, 0, 1])));
        let bare = &SOLICITATION[..8];
        assert_eq!(solicitor(bare, ADDRESS), Some(Mac([0x52, 0x54, 0, 0x77, 0, 2])));
        let random = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0x1234, 0x5677, 2);
        assert_eq!(solicitor(bare, random), None);
    }

    #[test]
    fn other_messages_and_broken_ones_are_none() {
        for end in (0..SOLICITATION.len()).filter(|&end| end != 8) {
            assert_eq!(solicitor(&SOLICITATION[..end], ADDRESS), None, "{end}");
        }
        let changed = |index: usize, byte: u8| -> Vec<u8> {
            let mut message = SOLICITATION.to_vec();
            message[index] = byte;
            message
        };
        assert_eq!(solicitor(&changed(0, 134), ADDRESS), None);
        assert_eq!(solicitor(&changed(1, 1), ADDRESS), None);
        assert_eq!(solicitor(&changed(9, 0), ADDRESS), None, "an option without length never ends");
        assert_eq!(solicitor(&changed(17, 2), ADDRESS), None, "no Ethernet address");
    }
}
