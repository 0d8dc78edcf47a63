//! Datagrams as they are on the wire.

use alloc::vec::Vec;
use wire::{Reader, Truncated};

// Kinds of packets (RFC 1350 §5; the last RFC 2347).
const OP_READ: u16 = 1;
const OP_WRITE: u16 = 2;
const OP_DATA: u16 = 3;
const OP_ACK: u16 = 4;
const OP_ERROR: u16 = 5;
pub(crate) const OP_OPTION_ACK: u16 = 6;

/// A parsed datagram, borrowed from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ: the client wants a file.
    Read(ReadRequest<'a>),
    /// WRQ: the client wants to store a file. A boot server never accepts it.
    Write,
    /// DATA: a block of the file.
    Data {
        /// Block number, modulo 65536.
        block: u16,
        /// The block's bytes.
        bytes: &'a [u8],
    },
    /// ACK: the client has everything up to a block.
    Ack {
        /// Block number, modulo 65536.
        block: u16,
    },
    /// ERROR: the other side ended the transfer.
    Error {
        /// Error code of RFC 1350 or 2347.
        code: u16,
        /// The text, without its NUL. Any bytes.
        message: &'a [u8],
    },
    /// OACK: raw name and value pairs.
    OptionAck(Vec<(&'a [u8], &'a [u8])>),
}

/// RRQ: what a client asks for, and how it wants to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    /// File name as the client wrote it. Any bytes except NUL; see [`crate::normalize`].
    pub path: &'a [u8],
    /// Transfer mode.
    pub mode: Mode,
    /// Options with values that we understand.
    pub asked: Asked,
}

/// Transfer mode of a request. Case doesn't matter on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The file's bytes as they are.
    Octet,
    /// Text with network line ends.
    Netascii,
    /// `mail`, or something that no standard names. Answered with an error.
    Unsupported,
}

/// Options of a request. `None` also stands for a value that its RFC doesn't allow: such an option
/// is left out of the answer, and the transfer goes on without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `blksize`: at least 8 (RFC 2348). Larger numbers than 65464 are kept, as the answer may be less.
    pub block_size: Option<u32>,
    /// `timeout`: 1 to 255 seconds (RFC 2349).
    pub timeout_s: Option<u8>,
    /// `tsize`: the client wants to know the file's size.
    pub size: bool,
    /// `windowsize`: 1 to 65535 blocks (RFC 7440).
    pub window: Option<u16>,
}

/// The bytes are not a TFTP packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet ended early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// No packet type has this number.
    #[error("no TFTP packet has opcode {0}")]
    Opcode(u16),
}

impl<'a> Packet<'a> {
    /// Parses a datagram. Never panics.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(datagram);
        Ok(match fields.u16("opcode")? {
            OP_READ => {
                let path = fields.cstr("file name")?;
                let mode = match fields.cstr("mode")? {
                    mode if mode.eq_ignore_ascii_case(b"octet") => Mode::Octet,
                    mode if mode.eq_ignore_ascii_case(b"netascii") => Mode::Netascii,
                    _ => Mode::Unsupported,
                };
                Self::Read(ReadRequest { path, mode, asked: asked(&pairs(&mut fields)) })
            }
            OP_WRITE => Self::Write,
            OP_DATA => Self::Data { block: fields.u16("block")?, bytes: fields.rest() },
            OP_ACK => Self::Ack { block: fields.u16("block")? },
            OP_ERROR => {
                let code = fields.u16("error code")?;
                // Some clients leave the NUL out.
                let message = fields.rest();
                let end = message.iter().position(|&byte| byte == 0).unwrap_or(message.len());
                Self::Error { code, message: &message[..end] }
            }
            OP_OPTION_ACK => Self::OptionAck(pairs(&mut fields)),
            other => return Err(Malformed::Opcode(other)),
        })
    }
}

/// Name and value pairs up to the end. Whatever is cut off or padding behind them is ignored: ROMs
/// exist that send their whole buffer.
fn pairs<'a>(fields: &mut Reader<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    let mut pairs = Vec::new();
    while let (Ok(name), Ok(value)) = (fields.cstr("option"), fields.cstr("value")) {
        if name.is_empty() {
            break;
        }
        pairs.push((name, value));
    }
    pairs
}

/// Understood options. Of a repeated option the first one counts.
fn asked(pairs: &[(&[u8], &[u8])]) -> Asked {
    let value = |name: &str| {
        let (_, value) = pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))?;
        // `parse` accepts a sign; the wire format doesn't.
        let is_digits = value.iter().all(u8::is_ascii_digit);
        core::str::from_utf8(value).ok().filter(|_| is_digits)?.parse::<u32>().ok()
    };
    Asked {
        block_size: value("blksize").filter(|&size| size >= 8),
        timeout_s: value("timeout").and_then(|s| u8::try_from(s).ok()).filter(|&s| s > 0),
        size: pairs.iter().any(|(key, _)| key.eq_ignore_ascii_case(b"tsize")),
        window: value("windowsize").and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0),
    }
}

/// The first four bytes of a DATA packet; the block's bytes follow.
pub fn data_header(block: u16) -> [u8; 4] {
    numbers(OP_DATA, block)
}

/// The two numbers with which most packets begin.
const fn numbers(first: u16, second: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
    [a, b, c, d]
}

/// The bytes of an ACK packet for `block`.
pub fn ack(block: u16) -> [u8; 4] {
    numbers(OP_ACK, block)
}

/// The bytes of an ERROR packet, with a message for people.
pub fn error(code: u16, message: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(5 + message.len());
    packet.extend_from_slice(&numbers(OP_ERROR, code));
    packet.extend_from_slice(message.as_bytes());
    packet.push(0);
    packet
}

/// The bytes of an RRQ packet, for clients: `options` are pairs of name and value.
pub fn read_request(path: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = OP_READ.to_be_bytes().to_vec();
    for text in
        [path, mode].into_iter().chain(options.iter().flat_map(|&(name, value)| [name, value]))
    {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked_by(options: &[(&str, &str)]) -> Asked {
        let packet = read_request("f", "OcTeT", options);
        let Ok(Packet::Read(request)) = Packet::parse(&packet) else { panic!("not a request") };
        assert_eq!(request.mode, Mode::Octet);
        request.asked
    }

    #[test]
    fn requests_of_real_firmware_are_understood() {
        let ovmf = asked_by(&[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]);
        assert_eq!(
            ovmf,
            Asked { block_size: Some(1468), timeout_s: None, size: true, window: Some(4) }
        );
        assert_eq!(asked_by(&[("BLKSIZE", "1432"), ("TIMEOUT", "3")]).block_size, Some(1432));
    }

    #[test]
    fn an_option_with_a_bad_value_counts_as_not_asked() {
        for value in ["7", "0", "abc", "", "-8", "+512", "99999999999", "\u{fc}"] {
            assert_eq!(asked_by(&[("blksize", value)]), Asked::default(), "blksize {value}");
        }
        for value in ["0", "256", "x"] {
            assert_eq!(asked_by(&[("timeout", value)]), Asked::default(), "timeout {value}");
        }
        for value in ["0", "65536", "x"] {
            assert_eq!(asked_by(&[("windowsize", value)]), Asked::default(), "windowsize {value}");
        }
        let first_counts = asked_by(&[("blksize", "600"), ("multicast", ""), ("blksize", "700")]);
        assert_eq!(first_counts.block_size, Some(600));
    }

    #[test]
    fn padding_behind_a_request_is_ignored() {
        let mut packet = read_request("f", "octet", &[("blksize", "1024")]);
        packet.extend_from_slice(&[0; 40]);
        let Ok(Packet::Read(request)) = Packet::parse(&packet) else { panic!("not a request") };
        assert_eq!(request.asked.block_size, Some(1024));
    }

    #[test]
    fn no_prefix_panics_and_short_ones_are_errors() {
        let request = read_request("grub/grub.cfg", "octet", &[("blksize", "1024")]);
        for end in 0..request.len() {
            let is_whole_without_options = end >= 22;
            assert_eq!(Packet::parse(&request[..end]).is_ok(), is_whole_without_options, "{end}");
        }
        assert_eq!(Packet::parse(&[0, 9]), Err(Malformed::Opcode(9)));
        for end in 0..4 {
            assert!(Packet::parse(&ack(7)[..end]).is_err());
            assert!(Packet::parse(&data_header(7)[..end]).is_err());
        }
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        assert_eq!(Packet::parse(&ack(65535)), Ok(Packet::Ack { block: 65535 }));
        assert_eq!(Packet::parse(&data_header(3)), Ok(Packet::Data { block: 3, bytes: b"" }));
        let packet = error(1, "file not found");
        let message = &b"file not found"[..];
        assert_eq!(Packet::parse(&packet), Ok(Packet::Error { code: 1, message }));
        assert_eq!(Packet::parse(&packet[..18]), Ok(Packet::Error { code: 1, message }), "no NUL");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(opcode in 0u8..8, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut datagram = std::vec![0, opcode];
            datagram.extend(rest);
            crate::fuzz(&datagram);
        }
    }
}
