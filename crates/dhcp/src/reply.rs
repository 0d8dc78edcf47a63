//! Replies, as bytes and where to send them.

use crate::message::{FLAG_BROADCAST, Fields, MessageKind, ReplyKind, emit};
use crate::option_codes::{
    HTTP_CLASS, IPXE_NO_PROXY, OPT_BOOT_FILE, OPT_BROADCAST_ADDRESS, OPT_CLASSLESS_ROUTES,
    OPT_CLIENT_ID, OPT_CLIENT_UUID, OPT_DNS_SERVER, OPT_DOMAIN_NAME, OPT_END, OPT_HOST_NAME,
    OPT_IPXE, OPT_LEASE_TIME, OPT_MESSAGE, OPT_MICROSOFT_ROUTES, OPT_NTP_SERVER,
    OPT_REBINDING_TIME, OPT_RELAY_INFORMATION, OPT_RENEWAL_TIME, OPT_ROUTER, OPT_SERVER_ID,
    OPT_SUBNET_MASK, OPT_SUBNET_SELECTION, OPT_TFTP_SERVER, OPT_VENDOR_CLASS, OPT_VENDOR_SPECIFIC,
    PXE_CLASS, PXE_DISCOVERY_CONTROL,
};
use crate::options::OptionWriter;
use crate::request::Request;
use crate::routes;
use crate::server::Config;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Firmware, Lease, Mac, Route};

/// In [`PXE_DISCOVERY_CONTROL`], bit 3: the client boots the file that the offer names, and looks no further.
pub(crate) const PXE_BOOT_FILE_AT_ONCE: u8 = 8;

/// Where a reply goes (RFC 2131 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the relay, at this port.
    Relay(Ipv4Addr, u16),
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
    /// What the reply says.
    pub kind: ReplyKind,
    /// The UDP payload: at least 300 bytes.
    pub bytes: Vec<u8>,
    /// Where the reply goes.
    pub to: Destination,
    /// The address that is offered or given; 0.0.0.0 in a NAK and in the answer to INFORM.
    pub address: Ipv4Addr,
    /// Must be stored for good before the reply leaves; `None`: what is stored already says enough.
    pub lease: Option<Lease>,
    /// Why the client is refused what it wants; `None` in other replies than a NAK.
    pub why: Option<String>,
}

impl Reply {
    /// Whether the client has the address now. An ACK to INFORM gives none.
    pub fn gives_address(&self) -> bool {
        self.kind == ReplyKind::Ack && !self.address.is_unspecified()
    }
}

/// Offers or gives `address` for `seconds`.
pub(crate) fn grant(
    config: &Config,
    request: &Request,
    kind: ReplyKind,
    address: Ipv4Addr,
    seconds: u32,
    lease: Option<Lease>,
) -> Reply {
    let mut options = head(config, request);
    options.put_u32(OPT_LEASE_TIME, seconds);
    options.put_addresses(OPT_SUBNET_MASK, &[config.netmask()]);
    options.put_addresses(OPT_BROADCAST_ADDRESS, &[config.broadcast()]);
    options.put_u32(OPT_RENEWAL_TIME, seconds / 2);
    options.put_u32(OPT_REBINDING_TIME, seconds - seconds / 8);
    settings(config, request, &mut options);
    let file = boot(config, request, &mut options);
    let to = if !request.relay.is_unspecified() {
        Destination::Relay(request.relay, request.relay_port)
    } else if let Some(client) = request.address_in_use() {
        Destination::Unicast(client)
    } else if request.wants_broadcast() {
        Destination::Broadcast
    } else {
        Destination::Frame(request.mac, address)
    };
    let bytes = finish(config, request, kind, address, file.as_deref(), options);
    Reply { kind, bytes, to, address, lease, why: None }
}

/// Answers INFORM: everything but an address and its times.
pub(crate) fn inform(config: &Config, request: &Request) -> Reply {
    let mut options = head(config, request);
    options.put_addresses(OPT_SUBNET_MASK, &[config.netmask()]);
    options.put_addresses(OPT_BROADCAST_ADDRESS, &[config.broadcast()]);
    settings(config, request, &mut options);
    let file = boot(config, request, &mut options);
    let file = file.as_deref();
    let bytes = finish(config, request, ReplyKind::Ack, Ipv4Addr::UNSPECIFIED, file, options);
    let to = Destination::Unicast(request.client);
    Reply {
        kind: ReplyKind::Ack,
        bytes,
        to,
        address: Ipv4Addr::UNSPECIFIED,
        lease: None,
        why: None,
    }
}

/// Refuses what the client wants, with a reason for its log.
pub(crate) fn refuse(config: &Config, request: &Request, why: String) -> Reply {
    let mut options = head(config, request);
    options.put(OPT_MESSAGE, why.as_bytes());
    let bytes = finish(config, request, ReplyKind::Nak, Ipv4Addr::UNSPECIFIED, None, options);
    let to = match request.address_in_use().filter(|_| request.is_routed) {
        _ if !request.relay.is_unspecified() => {
            Destination::Relay(request.relay, request.relay_port)
        }
        // Which no broadcast reaches.
        Some(client) => Destination::Unicast(client),
        None => Destination::Broadcast,
    };
    let address = Ipv4Addr::UNSPECIFIED;
    Reply { kind: ReplyKind::Nak, bytes, to, address, lease: None, why: Some(why) }
}

/// What every reply begins with, behind its kind.
fn head(config: &Config, request: &Request) -> OptionWriter {
    let mut options = OptionWriter::default();
    options.put_addresses(OPT_SERVER_ID, &[request.server_override().unwrap_or(config.server)]);
    options
}

/// What the site's administrator configured, as far as the client asked for it.
fn settings(config: &Config, request: &Request, options: &mut OptionWriter) {
    if let Some(router) = config.router.filter(|_| request.asks_for(OPT_ROUTER)) {
        options.put_addresses(OPT_ROUTER, &[router]);
    }
    // Those who name no options know their name, or none.
    let asks = !request.parameters.is_empty() && request.asks_for(OPT_HOST_NAME);
    if let Some(name) = request.name.as_ref().filter(|_| asks) {
        options.put(OPT_HOST_NAME, name.as_bytes());
    }
    if !config.routes.is_empty() {
        // Who takes these does not take the other one (RFC 3442).
        let default = config.router.and_then(|router| Route::new(Ipv4Addr::UNSPECIFIED, 0, router));
        let all: Vec<Route> = config.routes.iter().copied().chain(default).collect();
        for code in [OPT_CLASSLESS_ROUTES, OPT_MICROSOFT_ROUTES] {
            // The older one is for who names it.
            let is_wanted = code == OPT_CLASSLESS_ROUTES || !request.parameters.is_empty();
            if is_wanted && request.asks_for(code) {
                options.put(code, &routes::to_bytes(&all));
            }
        }
    }
    if !config.dns.is_empty() && request.asks_for(OPT_DNS_SERVER) {
        options.put_addresses(OPT_DNS_SERVER, &config.dns);
    }
    if !config.ntp.is_empty() && request.asks_for(OPT_NTP_SERVER) {
        options.put_addresses(OPT_NTP_SERVER, &config.ntp);
    }
    if let Some(domain) = config.domain.as_ref().filter(|_| request.asks_for(OPT_DOMAIN_NAME)) {
        options.put(OPT_DOMAIN_NAME, domain.as_bytes());
    }
}

/// What firmware needs to fetch its loader; returns what stands in the field for the file's name.
fn boot(config: &Config, request: &Request, options: &mut OptionWriter) -> Option<String> {
    let firmware = request.firmware.filter(|_| !request.gets_no_loader)?;
    let usual = match firmware {
        Firmware::Bios => &config.bios_file,
        Firmware::UefiX64 | Firmware::UefiX64Http => &config.uefi_x64_file,
        Firmware::UefiArm64 | Firmware::UefiArm64Http => &config.uefi_arm64_file,
        Firmware::Other(_) => return None,
    };
    let file = request.loader.as_ref().unwrap_or(usual);
    let place = match firmware.is_http() {
        // With the address: firmware asks no name server unless it is told one.
        true => format!("http://{}/{file}", config.server),
        false => file.clone(),
    };
    // With a NUL: some ROMs read on behind the option (and EDK2 writes one there).
    options.put(OPT_TFTP_SERVER, format!("{}\0", config.server).as_bytes());
    options.put(OPT_BOOT_FILE, format!("{place}\0").as_bytes());
    match firmware {
        // A BIOS ROM waits for a proxy unless it is told to boot the file. UEFI gets neither option by PXE: with a
        // vendor class it takes the offer for a boot server's and asks port 4011 first.
        Firmware::Bios => {
            options.put(OPT_VENDOR_CLASS, PXE_CLASS);
            options.put(
                OPT_VENDOR_SPECIFIC,
                &[PXE_DISCOVERY_CONTROL, 1, PXE_BOOT_FILE_AT_ONCE, OPT_END],
            );
        }
        Firmware::UefiX64Http | Firmware::UefiArm64Http => {
            options.put(OPT_VENDOR_CLASS, HTTP_CLASS)
        }
        Firmware::UefiX64 | Firmware::UefiArm64 | Firmware::Other(_) => {}
    }
    if request.is_ipxe {
        // It saves three seconds of waiting for a proxy.
        options.put(OPT_IPXE, &[IPXE_NO_PROXY, 1, 1]);
    }
    Some(place)
}

fn finish(
    config: &Config,
    request: &Request,
    kind: ReplyKind,
    address: Ipv4Addr,
    file: Option<&str>,
    mut options: OptionWriter,
) -> Vec<u8> {
    let is_refusal = kind == ReplyKind::Nak;
    // Table 3 allows it in no NAK.
    if let Some(uuid) = request.uuid.filter(|_| !is_refusal) {
        options.put(OPT_CLIENT_UUID, &uuid);
    }
    if let Some(id) = &request.client_id {
        // RFC 6842.
        options.put(OPT_CLIENT_ID, id);
    }
    if let Some(subnet) = request.subnet.filter(|_| !is_refusal) {
        options.put_addresses(OPT_SUBNET_SELECTION, &[subnet]);
    }
    if let Some(information) = &request.relay_information {
        // RFC 3046 section 2.2: untouched, and last.
        options.put(OPT_RELAY_INFORMATION, information);
    }
    let fields = Fields {
        transaction: request.transaction,
        // The client takes no address from a relay that speaks to the one that it is refused (RFC 2131 §4.3.2).
        flags: match is_refusal && !request.relay.is_unspecified() {
            true => request.flags | FLAG_BROADCAST,
            false => request.flags,
        },
        client: request.address_in_use().filter(|_| !is_refusal).unwrap_or(Ipv4Addr::UNSPECIFIED),
        yours: address,
        next_server: if file.is_some() { config.server } else { Ipv4Addr::UNSPECIFIED },
        relay: request.relay,
        mac: request.mac,
    };
    let server_name = file.map(|_| config.server.to_string()).unwrap_or_default();
    emit(MessageKind::Reply(kind), &fields, &server_name, file.unwrap_or_default(), &options)
}
