//! Replies, as bytes and where to send them.

use crate::options::OptionWriter;
use crate::request::Request;
use crate::server::Config;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Firmware, Lease, Mac};

/// Shortest reply in bytes: some clients drop what is shorter than BOOTP's message (RFC 951 §3).
const REPLY_MIN: usize = 300;

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// You could have this address.
    Offer,
    /// The address is yours.
    Ack,
    /// The address is not for you.
    Nak,
}

/// Where a reply goes (RFC 2131 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the relay's server port.
    Relay(Ipv4Addr),
    /// To a client that has this address.
    Unicast(Ipv4Addr),
    /// To everybody on the network where the request came from.
    Broadcast,
    /// In a frame to a client that does not answer ARP for its address yet.
    Frame(Mac, Ipv4Addr),
}

/// A reply to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub kind: ReplyKind,
    /// The UDP payload.
    pub bytes: Vec<u8>,
    /// Where it goes.
    pub to: Destination,
    /// The address that is offered or given; 0.0.0.0 in a NAK and in the answer to INFORM.
    pub address: Ipv4Addr,
    /// Must be stored for good before the reply leaves.
    pub lease: Option<Lease>,
}

/// Offers or gives `address`.
pub(crate) fn grant(
    config: &Config,
    request: &Request,
    kind: ReplyKind,
    address: Ipv4Addr,
    lease: Option<Lease>,
) -> Reply {
    let seconds = config.lease_seconds;
    let mut options = head(config, kind);
    options.put_u32(51, seconds);
    options.put_addresses(1, &[config.netmask()]);
    options.put_addresses(28, &[config.broadcast()]);
    options.put_u32(58, seconds / 2);
    options.put_u32(59, seconds / 8 * 7);
    settings(config, request, &mut options);
    let file = boot(config, request, &mut options);
    let to = if !request.relay.is_unspecified() {
        Destination::Relay(request.relay)
    } else if !request.client.is_unspecified() {
        Destination::Unicast(request.client)
    } else if request.wants_broadcast() {
        Destination::Broadcast
    } else {
        Destination::Frame(request.mac, address)
    };
    let bytes = emit(config, request, address, file, options);
    Reply { kind, bytes, to, address, lease }
}

/// Answers INFORM: everything but an address and its times.
pub(crate) fn inform(config: &Config, request: &Request) -> Reply {
    let mut options = head(config, ReplyKind::Ack);
    options.put_addresses(1, &[config.netmask()]);
    options.put_addresses(28, &[config.broadcast()]);
    settings(config, request, &mut options);
    let file = boot(config, request, &mut options);
    let bytes = emit(config, request, Ipv4Addr::UNSPECIFIED, file, options);
    let to = Destination::Unicast(request.client);
    Reply { kind: ReplyKind::Ack, bytes, to, address: Ipv4Addr::UNSPECIFIED, lease: None }
}

/// Refuses what the client wants, with a reason for its log.
pub(crate) fn refuse(config: &Config, request: &Request, why: &str) -> Reply {
    let mut options = head(config, ReplyKind::Nak);
    options.put(56, why.as_bytes());
    let bytes = emit(config, request, Ipv4Addr::UNSPECIFIED, None, options);
    let to = match request.relay {
        relay if relay.is_unspecified() => Destination::Broadcast,
        relay => Destination::Relay(relay),
    };
    Reply { kind: ReplyKind::Nak, bytes, to, address: Ipv4Addr::UNSPECIFIED, lease: None }
}

/// The options that come first: some ROMs look for the message type at the start only.
fn head(config: &Config, kind: ReplyKind) -> OptionWriter {
    let kind = match kind {
        ReplyKind::Offer => 2,
        ReplyKind::Ack => 5,
        ReplyKind::Nak => 6,
    };
    let mut options = OptionWriter::default();
    options.put(53, &[kind]);
    options.put_addresses(54, &[config.server]);
    options
}

/// What the site's administrator configured, as far as the client asked for it.
fn settings(config: &Config, request: &Request, options: &mut OptionWriter) {
    if let Some(router) = config.router.filter(|_| request.asks_for(3)) {
        options.put_addresses(3, &[router]);
    }
    if !config.dns.is_empty() && request.asks_for(6) {
        options.put_addresses(6, &config.dns);
    }
    if let Some(domain) = config.domain.as_ref().filter(|_| request.asks_for(15)) {
        options.put(15, domain.as_bytes());
    }
}

/// What firmware needs to fetch its loader; returns the file's name.
fn boot<'a>(config: &'a Config, request: &Request, options: &mut OptionWriter) -> Option<&'a str> {
    let file = match request.firmware? {
        Firmware::Bios => &config.bios_file,
        Firmware::UefiX64 => &config.uefi_x64_file,
        Firmware::Other(_) => return None,
    };
    // With a NUL: some ROMs read on behind the option (and EDK2 writes one there).
    options.put(66, format!("{}\0", config.server).as_bytes());
    options.put(67, format!("{file}\0").as_bytes());
    if request.firmware == Some(Firmware::Bios) {
        // A BIOS ROM waits for a proxy unless it is told to boot the file (PXE_DISCOVERY_CONTROL bit
        // 3). UEFI gets neither option: with 60 it takes the offer for a boot server's and asks port
        // 4011 first.
        options.put(60, b"PXEClient");
        options.put(43, &[6, 1, 8, 255]);
    }
    if request.is_ipxe {
        // no-pxedhcp: saves iPXE three seconds of waiting for a proxy.
        options.put(175, &[0xb0, 1, 1]);
    }
    Some(file)
}

fn emit(
    config: &Config,
    request: &Request,
    address: Ipv4Addr,
    file: Option<&str>,
    mut options: OptionWriter,
) -> Vec<u8> {
    if let Some(uuid) = request.uuid {
        options.put(97, &uuid);
    }
    if let Some(id) = &request.client_id {
        // RFC 6842.
        options.put(61, id);
    }
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&[2, 1, 6, 0]);
    bytes.extend_from_slice(&request.transaction.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&request.flags.to_be_bytes());
    bytes.extend_from_slice(&request.client.octets());
    bytes.extend_from_slice(&address.octets());
    let next_server = if file.is_some() { config.server } else { Ipv4Addr::UNSPECIFIED };
    bytes.extend_from_slice(&next_server.octets());
    bytes.extend_from_slice(&request.relay.octets());
    bytes.extend_from_slice(&request.mac.0);
    bytes.extend_from_slice(&[0; 10]);
    let server_name = file.map(|_| config.server.to_string());
    for (text, length) in [(server_name.as_deref(), 64), (file, 128)] {
        let text = text.unwrap_or_default().as_bytes();
        let end = bytes.len() + length;
        // The last byte stays a NUL.
        bytes.extend_from_slice(&text[..text.len().min(length - 1)]);
        bytes.resize(end, 0);
    }
    bytes.extend_from_slice(&[99, 130, 83, 99]);
    if let Some(information) = &request.relay_information {
        // RFC 3046 section 2.2: untouched, and last.
        options.put(82, information);
    }
    bytes.extend_from_slice(&options.finish());
    if bytes.len() < REPLY_MIN {
        bytes.resize(REPLY_MIN, 0);
    }
    bytes
}
