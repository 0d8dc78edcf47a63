//! DHCP options: a reader that never gives up (what is broken is skipped, what is long is joined), and a
//! writer that keeps the order.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Bytes that the pieces of one option may have together (RFC 3396 sets no bound; no client needs more).
const OPTION_MAX: usize = 1024;

const PAD: u8 = 0;
const END: u8 = 255;

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
                PAD => field = rest,
                END => return,
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

    /// All options, with the END.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_option_hides_nothing_behind_it() {
        let mut options = Options::default();
        // A one-byte option 57, an ASCII option 81, then the architecture.
        options.read(&[57, 1, 9, 81, 2, b'x', b'y', 93, 2, 0, 7, 255, 12, 1, b'z']);
        assert_eq!(options.array::<2>(93), Some([0, 7]));
        assert_eq!(options.array::<2>(57), None);
        assert_eq!(options.bytes(12), None, "after the end there is nothing");
    }

    #[test]
    fn options_keep_their_order_and_too_long_ones_are_left_out() {
        let mut options = OptionWriter::default();
        options.put(53, &[2]);
        options.put(43, &[0; 256]);
        options.put_addresses(3, &[Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)]);
        options.put_u32(51, 0x0102_0304);
        assert_eq!(
            options.finish(),
            [53, 1, 2, 3, 8, 10, 77, 0, 1, 10, 77, 0, 2, 51, 4, 1, 2, 3, 4, 255]
        );
    }

    #[test]
    fn pieces_are_joined_and_bounded() {
        let mut options = Options::default();
        options.read(&[43, 2, 1, 2, 0, 0, 60, 1, 9, 43, 1, 3]);
        assert_eq!(options.bytes(43), Some(&[1, 2, 3][..]));
        let piece = [&[43, 255][..], &[7; 255]].concat();
        for _ in 0..100 {
            options.read(&piece);
        }
        assert_eq!(options.bytes(43).map(<[u8]>::len), Some(OPTION_MAX));
    }
}
