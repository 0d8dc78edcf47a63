//! A DHCP message, as both ends read and write it (RFC 2131 §2).

use crate::option_codes::{OPT_MESSAGE_TYPE, OPT_OVERLOAD};
use crate::options::{OptionWriter, Options};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::Range;
use wire::{Mac, Reader, Truncated};

/// Shortest message in bytes that is sent: some clients and relays drop what is shorter than BOOTP's (RFC 951 §3).
const MESSAGE_MIN: usize = 300;

/// `htype` and `hlen`: Ethernet, with addresses of 6 bytes.
const ETHERNET: (u8, u8) = (1, 6);

/// `op`: from a client, and from a server.
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;

/// What tells DHCP from other uses of BOOTP.
const COOKIE: [u8; 4] = [99, 130, 83, 99];

const CHADDR_PADDING: usize = 10;
const SNAME_BYTES: usize = 64;
const FILE_BYTES: usize = 128;
/// Where the field `file` is.
pub(crate) const FILE_FIELD: Range<usize> = 108..108 + FILE_BYTES;

/// In [`OPT_OVERLOAD`]: the field holds options.
pub(crate) const OVERLOAD_FILE: u8 = 1;
const OVERLOAD_SNAME: u8 = 2;

/// In [`Fields::flags`]: the client can only hear broadcasts.
pub(crate) const FLAG_BROADCAST: u16 = 0x8000;

/// What a client says (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// The client looks for servers that have an address for it.
    Discover,
    /// The client wants this address.
    Request,
    /// The client has found that somebody else has that address.
    Decline,
    /// The client does not need its address any more.
    Release,
    /// The client has an address and wants to know the rest.
    Inform,
}

/// What a server says (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// The client could have this address.
    Offer,
    /// The address is the client's.
    Ack,
    /// The client must not use the address.
    Nak,
}

impl RequestKind {
    /// The number of this kind in the option [`OPT_MESSAGE_TYPE`].
    pub const fn code(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Release => 7,
            Self::Inform => 8,
        }
    }
}

impl core::fmt::Display for RequestKind {
    /// As the RFC writes it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Discover => "DISCOVER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
        })
    }
}

impl ReplyKind {
    /// The number of this kind in the option [`OPT_MESSAGE_TYPE`].
    pub const fn code(self) -> u8 {
        match self {
            Self::Offer => 2,
            Self::Ack => 5,
            Self::Nak => 6,
        }
    }
}

/// What a message says, and thereby which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// From a client to servers.
    Request(RequestKind),
    /// From a server to a client.
    Reply(ReplyKind),
}

impl MessageKind {
    /// The kind with this number, which must fit the message's `op`.
    fn of_code(op: u8, code: u8) -> Option<Self> {
        use RequestKind::{Decline, Discover, Inform, Release, Request};
        let requests = [Discover, Request, Decline, Release, Inform].map(Self::Request);
        let replies = [ReplyKind::Offer, ReplyKind::Ack, ReplyKind::Nak].map(Self::Reply);
        let mut all = requests.into_iter().chain(replies);
        all.find(|kind| (kind.op(), kind.code()) == (op, code))
    }

    const fn code(self) -> u8 {
        match self {
            Self::Request(kind) => kind.code(),
            Self::Reply(kind) => kind.code(),
        }
    }

    const fn op(self) -> u8 {
        match self {
            Self::Request(_) => BOOT_REQUEST,
            Self::Reply(_) => BOOT_REPLY,
        }
    }
}

/// The datagram is no DHCP message for Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDhcp {
    /// The datagram ends inside the fixed fields.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The message is for another kind of network: hardware type, and bytes of an address.
    #[error("hardware type {0} with addresses of {1} bytes is not Ethernet")]
    NotEthernet(u8, u8),
    /// BOOTP or something else.
    #[error("not DHCP: the magic cookie is missing")]
    NoCookie,
    /// Plain BOOTP, a kind that nobody knows, or one that goes the other way.
    #[error("no DHCP message type, or one that does not go with op {op}")]
    NoMessageType {
        /// Which way the message says that it goes: 1 is from a client, 2 from a server.
        op: u8,
    },
}

/// The fixed fields, but those that say the same in each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// `xid`: chosen by the client, repeated by the server.
    pub(crate) transaction: u32,
    /// [`FLAG_BROADCAST`], and bits that must be zero.
    pub(crate) flags: u16,
    /// `ciaddr`: the address that the client uses already, or 0.0.0.0.
    pub(crate) client: Ipv4Addr,
    /// `yiaddr`: the address that the server offers or gives, or 0.0.0.0.
    pub(crate) yours: Ipv4Addr,
    /// `siaddr`: where the client finds its loader, or 0.0.0.0.
    pub(crate) next_server: Ipv4Addr,
    /// `giaddr`: the relay that passed the message on, or 0.0.0.0.
    pub(crate) relay: Ipv4Addr,
    /// `chaddr`: the client's NIC.
    pub(crate) mac: Mac,
}

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    pub(crate) fields: Fields,
    /// Options of the message, with those in the fields `file` and `sname` if they hold any.
    pub(crate) options: Options,
}

impl Message {
    /// Reads a datagram. Never panics, and never fails because of one bad option.
    pub(crate) fn parse(datagram: &[u8]) -> Result<Self, NotDhcp> {
        let mut reader = Reader::new(datagram);
        let op = reader.u8("op")?;
        let (htype, hlen) = (reader.u8("htype")?, reader.u8("hlen")?);
        if (htype, hlen) != ETHERNET {
            return Err(NotDhcp::NotEthernet(htype, hlen));
        }
        reader.u8("hops")?;
        let transaction = reader.u32("xid")?;
        reader.u16("secs")?;
        let fields = Fields {
            transaction,
            flags: reader.u16("flags")?,
            client: reader.u32("ciaddr")?.into(),
            yours: reader.u32("yiaddr")?.into(),
            next_server: reader.u32("siaddr")?.into(),
            relay: reader.u32("giaddr")?.into(),
            mac: Mac(reader.array("chaddr")?),
        };
        reader.bytes("padding of chaddr", CHADDR_PADDING)?;
        let sname = reader.bytes("sname", SNAME_BYTES)?;
        let file = reader.bytes("file", FILE_BYTES)?;
        if reader.array("cookie")? != COOKIE {
            return Err(NotDhcp::NoCookie);
        }
        let mut options = Options::default();
        options.read(reader.rest());
        // RFC 2132 §9.3: the file field first, then sname.
        let overload = options.array(OPT_OVERLOAD).map_or(0, |[fields]| fields);
        if overload & OVERLOAD_FILE != 0 {
            options.read(file);
        }
        if overload & OVERLOAD_SNAME != 0 {
            options.read(sname);
        }
        let kind = options.array(OPT_MESSAGE_TYPE);
        let kind = kind.and_then(|[code]| MessageKind::of_code(op, code));
        let kind = kind.ok_or(NotDhcp::NoMessageType { op })?;
        Ok(Self { kind, fields, options })
    }
}

/// Writes a message: its kind, its fields, the `options` behind the kind, and for firmware the server's name and
/// the `file` that it shall boot, each cut to what its field takes.
pub(crate) fn emit(
    kind: MessageKind,
    fields: &Fields,
    server_name: &str,
    file: &str,
    options: &OptionWriter,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let (htype, hlen) = ETHERNET;
    bytes.extend([kind.op(), htype, hlen, 0]);
    bytes.extend(fields.transaction.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(fields.flags.to_be_bytes());
    for address in [fields.client, fields.yours, fields.next_server, fields.relay] {
        bytes.extend(address.octets());
    }
    bytes.extend(fields.mac.0);
    bytes.extend([0; CHADDR_PADDING]);
    for (text, length) in [(server_name, SNAME_BYTES), (file, FILE_BYTES)] {
        let end = bytes.len() + length;
        // The last byte stays a NUL.
        bytes.extend(text.bytes().take(length - 1));
        bytes.resize(end, 0);
    }
    bytes.extend(COOKIE);
    // Some ROMs look for the message type at the start only.
    bytes.extend([OPT_MESSAGE_TYPE, 1, kind.code()]);
    options.append_to(&mut bytes);
    bytes.resize(bytes.len().max(MESSAGE_MIN), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::option_codes::{OPT_END, OPT_HOST_NAME};

    const FIELDS: Fields = Fields {
        transaction: 0x0102_0304,
        flags: FLAG_BROADCAST,
        client: Ipv4Addr::new(10, 0, 0, 1),
        yours: Ipv4Addr::new(10, 0, 0, 2),
        next_server: Ipv4Addr::new(10, 0, 0, 3),
        relay: Ipv4Addr::new(10, 0, 0, 4),
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };

    /// The fields that both ends write, at the places of RFC 2131, figure 1.
    #[test]
    fn fields_stand_where_they_belong_and_are_read_back_in_both_directions() {
        for (op, code, kind) in [
            (1, 1, MessageKind::Request(RequestKind::Discover)),
            (1, 3, MessageKind::Request(RequestKind::Request)),
            (1, 4, MessageKind::Request(RequestKind::Decline)),
            (1, 7, MessageKind::Request(RequestKind::Release)),
            (1, 8, MessageKind::Request(RequestKind::Inform)),
            (2, 2, MessageKind::Reply(ReplyKind::Offer)),
            (2, 5, MessageKind::Reply(ReplyKind::Ack)),
            (2, 6, MessageKind::Reply(ReplyKind::Nak)),
        ] {
            let mut options = OptionWriter::default();
            options.put(OPT_HOST_NAME, b"lab-07");
            let bytes = emit(kind, &FIELDS, "server", &"f".repeat(200), &options);
            assert_eq!(bytes[..12], [op, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0]);
            assert_eq!(bytes[12..28], [10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3, 10, 0, 0, 4]);
            assert_eq!(bytes[28..34], FIELDS.mac.0);
            assert_eq!((&bytes[44..50], bytes[50]), (&b"server"[..], 0));
            assert_eq!((bytes[234], bytes[235]), (b'f', 0), "a long name is cut before its NUL");
            assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, code]);
            assert_eq!(bytes[243..252], *b"\x0c\x06lab-07\xff");
            assert_eq!(bytes.len(), MESSAGE_MIN);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!((message.kind, message.fields), (kind, FIELDS));
            assert_eq!(message.options.bytes(OPT_HOST_NAME), Some(&b"lab-07"[..]));
            let mut other_way = bytes;
            other_way[0] = 3 - op;
            let error = Message::parse(&other_way).unwrap_err();
            assert_eq!(error, NotDhcp::NoMessageType { op: 3 - op });
        }
    }

    #[test]
    fn options_may_stand_in_the_fields_of_the_names() {
        let mut options = OptionWriter::default();
        options.put(OPT_OVERLOAD, &[OVERLOAD_FILE | OVERLOAD_SNAME]);
        let discover = MessageKind::Request(RequestKind::Discover);
        let mut bytes = emit(discover, &FIELDS, "", "", &options);
        // Of an option in several pieces that of the file field comes before that of sname.
        for (at, piece) in [(44, b"07"), (108, b"b-")] {
            bytes[at..at + 5].copy_from_slice(&[OPT_HOST_NAME, 2, piece[0], piece[1], OPT_END]);
        }
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.options.bytes(OPT_HOST_NAME), Some(&b"b-07"[..]));
    }
}
