//! DHCP options: a reader that never gives up (what is broken is skipped, what is long is joined), and a
//! writer that keeps the order.

use crate::option_codes::{OPT_END, OPT_PAD};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Bytes that the pieces of one option may have together (RFC 3396 sets no bound; no client needs more).
const OPTION_MAX: usize = 1024;

/// Options by code; pieces of one code are joined in their order (RFC 3396).
#[derive(Debug, Default)]
pub(crate) struct Options {
    by_code: BTreeMap<u8, Vec<u8>>,
}

impl Options {
    /// Reads one field of options. Stops at END or where the field ends inside an option.
    pub(crate) fn read(&mut self, mut field: &[u8]) {
        while let [code, rest @ ..] = field {
            match *code {
                OPT_PAD => field = rest,
                OPT_END => return,
                code => {
                    let [length, rest @ ..] = rest else { return };
                    let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
                        return;
                    };
                    let joined = self.by_code.entry(code).or_default();
                    let space = OPTION_MAX.saturating_sub(joined.len());
                    joined.extend_from_slice(&value[..value.len().min(space)]);
                    field = rest;
                }
            }
        }
    }

    pub(crate) fn bytes(&self, code: u8) -> Option<&[u8]> {
        self.by_code.get(&code).map(Vec::as_slice)
    }

    /// The option as so many bytes; `None` if it is absent or has another length.
    pub(crate) fn array<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.bytes(code)?.try_into().ok()
    }

    /// The option as a number; `None` if it is absent or has another length.
    pub(crate) fn u32(&self, code: u8) -> Option<u32> {
        self.array(code).map(u32::from_be_bytes)
    }

    /// The option as one address; `None` if it is absent or has another length.
    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.array::<4>(code).map(Ipv4Addr::from)
    }

    /// The whole addresses of the option; none if it is absent.
    pub(crate) fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> {
        let pieces = self.bytes(code).unwrap_or_default().chunks_exact(4);
        pieces.map(|piece| Ipv4Addr::new(piece[0], piece[1], piece[2], piece[3]))
    }
}

/// Options of a reply, in the order in which they are added.
#[derive(Debug, Default)]
pub(crate) struct OptionWriter {
    bytes: Vec<u8>,
}

impl OptionWriter {
    /// Adds an option. A value that is longer than its length byte can say is left out: boot ROMs and
    /// GRUB can't join the pieces of RFC 3396.
    pub(crate) fn put(&mut self, code: u8, value: &[u8]) {
        if let Ok(length) = u8::try_from(value.len()) {
            self.bytes.extend_from_slice(&[code, length]);
            self.bytes.extend_from_slice(value);
        }
    }

    pub(crate) fn put_u32(&mut self, code: u8, value: u32) {
        self.put(code, &value.to_be_bytes());
    }

    pub(crate) fn put_addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        let value: Vec<u8> = addresses.iter().flat_map(|address| address.octets()).collect();
        self.put(code, &value);
    }

    /// Writes all options and the END behind what is there.
    pub(crate) fn append_to(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(&self.bytes);
        message.push(OPT_END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::option_codes::{
        OPT_CLIENT_ARCHITECTURE, OPT_HOST_NAME, OPT_LEASE_TIME, OPT_MESSAGE_SIZE_MAX,
        OPT_MESSAGE_TYPE, OPT_ROUTER, OPT_VENDOR_SPECIFIC,
    };

    #[test]
    fn a_broken_option_hides_nothing_behind_it() {
        let mut options = Options::default();
        // A one-byte option 57, an ASCII option 81, then the architecture.
        options.read(&[57, 1, 9, 81, 2, b'x', b'y', 93, 2, 0, 7, 255, 12, 1, b'z']);
        assert_eq!(options.array::<2>(OPT_CLIENT_ARCHITECTURE), Some([0, 7]));
        assert_eq!(options.array::<2>(OPT_MESSAGE_SIZE_MAX), None);
        assert_eq!(options.bytes(OPT_HOST_NAME), None, "after the end there is nothing");
    }

    #[test]
    fn options_keep_their_order_and_too_long_ones_are_left_out() {
        let mut options = OptionWriter::default();
        options.put(OPT_MESSAGE_TYPE, &[2]);
        options.put(OPT_VENDOR_SPECIFIC, &[0; 256]);
        let addresses = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
        options.put_addresses(OPT_ROUTER, &addresses);
        options.put_u32(OPT_LEASE_TIME, 0x0102_0304);
        let mut bytes = Vec::new();
        options.append_to(&mut bytes);
        assert_eq!(bytes, [53, 1, 2, 3, 8, 10, 77, 0, 1, 10, 77, 0, 2, 51, 4, 1, 2, 3, 4, 255]);
    }

    #[test]
    fn pieces_are_joined_and_bounded() {
        let mut options = Options::default();
        options.read(&[43, 2, 1, 2, 0, 0, 60, 1, 9, 43, 1, 3]);
        assert_eq!(options.bytes(OPT_VENDOR_SPECIFIC), Some(&[1, 2, 3][..]));
        let piece = [&[OPT_VENDOR_SPECIFIC, 255][..], &[7; 255]].concat();
        for _ in 0..100 {
            options.read(&piece);
        }
        assert_eq!(options.bytes(OPT_VENDOR_SPECIFIC).map(<[u8]>::len), Some(OPTION_MAX));
    }
}
