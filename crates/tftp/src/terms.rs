//! Settling of options: what the client asked for against what we do.

use crate::packet::{Asked, Mode, OP_OPTION_ACK};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

/// Block size without an option (RFC 1350).
pub const BLOCK_SIZE_DEFAULT: u16 = 512;
/// Most blocks that are sent without waiting for an ACK. More gained nothing on a LAN when measured,
/// and long bursts overrun small receivers.
pub const WINDOW_BLOCKS_MAX: u16 = 64;
/// Most bytes that are sent without waiting for an ACK: a quarter of Linux' default receive buffer,
/// in which a datagram takes up to twice its size.
pub const WINDOW_BYTES_MAX: u32 = 64 << 10;

/// What both sides agreed on for one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes in every block but the last.
    pub block_size: u16,
    /// Blocks that are sent for one ACK.
    pub window: u16,
    /// Longest pause before a retransmission that the client asked for.
    pub timeout: Option<Duration>,
    /// The OACK packet, if the client asked for anything that we understand.
    pub option_ack: Option<Vec<u8>>,
}

impl Terms {
    /// Settles a request for a file of `size` bytes. `block_size_max` is what fits into one frame of
    /// the network: the MTU less 32. Only asked options are answered, and never with more than was
    /// asked, as UEFI refuses such answers.
    pub fn settle(asked: &Asked, mode: Mode, size: u64, block_size_max: u16) -> Self {
        let mut option_ack = OP_OPTION_ACK.to_be_bytes().to_vec();
        let mut answer = |name: &str, value: &str| {
            for text in [name, value] {
                option_ack.extend_from_slice(text.as_bytes());
                option_ack.push(0);
            }
        };
        let mut terms =
            Self { block_size: BLOCK_SIZE_DEFAULT, window: 1, timeout: None, option_ack: None };
        if asked.size {
            answer("tsize", &size.to_string());
        }
        if let Some(wanted) = asked.block_size {
            // 65464 is the most that RFC 2348 allows.
            let granted = wanted.min(u32::from(block_size_max.min(65464)));
            terms.block_size = u16::try_from(granted).unwrap_or(BLOCK_SIZE_DEFAULT);
            answer("blksize", &granted.to_string());
        }
        if let Some(seconds) = asked.timeout_s {
            terms.timeout = Some(Duration::from_secs(seconds.into()));
            answer("timeout", &seconds.to_string());
        }
        if let (Some(wanted), Mode::Octet) = (asked.window, mode) {
            let fitting = WINDOW_BYTES_MAX / u32::from(terms.block_size.max(1));
            let fitting = u16::try_from(fitting).unwrap_or(WINDOW_BLOCKS_MAX);
            terms.window = wanted.min(WINDOW_BLOCKS_MAX).min(fitting).max(1);
            answer("windowsize", &terms.window.to_string());
        }
        terms.option_ack = (option_ack.len() > 2).then_some(option_ack);
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &[(&str, &str)], expected: &[u8]) {
        let packet = crate::read_request("f", "octet", options);
        let Ok(crate::Packet::Read(request)) = crate::Packet::parse(&packet) else { panic!() };
        let terms = Terms::settle(&request.asked, request.mode, 70_000, 1468);
        let option_ack = terms.option_ack.unwrap_or_default();
        let text = std::string::String::from_utf8_lossy(&option_ack).into_owned();
        assert_eq!(option_ack.strip_prefix(&[0, 6]).unwrap_or(&[]), expected, "{text:?}");
    }

    #[test]
    fn only_asked_options_are_answered_and_never_with_more() {
        check(&[], b"");
        check(&[("multicast", ""), ("blksize", "7")], b"");
        check(&[("tsize", "0")], b"tsize\x0070000\0");
        check(&[("blksize", "1024")], b"blksize\x001024\0");
        check(&[("blksize", "65464")], b"blksize\x001468\0");
        check(&[("blksize", "70000")], b"blksize\x001468\0");
        check(&[("blksize", "8")], b"blksize\x008\0");
        check(&[("timeout", "255")], b"timeout\x00255\0");
        check(&[("windowsize", "4")], b"windowsize\x004\0");
        check(
            &[("windowsize", "65535"), ("blksize", "1468")],
            b"blksize\x001468\0windowsize\x0044\0",
        );
        check(&[("windowsize", "65535")], b"windowsize\x0064\0");
    }

    #[test]
    fn text_mode_has_no_window() {
        let asked = Asked { window: Some(8), ..Asked::default() };
        let terms = Terms::settle(&asked, Mode::Netascii, 1, 1468);
        assert_eq!((terms.window, terms.option_ack), (1, None));
    }
}
