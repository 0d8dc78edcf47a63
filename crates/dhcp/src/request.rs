//! Requests, read from foreign bytes.

use crate::message::{FLAG_BROADCAST, Message, MessageKind, NotDhcp, RequestKind};
use crate::option_codes::{
    BIOS_HTTP, HTTP_CLASS, OPT_CLIENT_ARCHITECTURE, OPT_CLIENT_ID, OPT_CLIENT_UUID, OPT_HOST_NAME,
    OPT_IPXE, OPT_PARAMETER_LIST, OPT_RELAY_INFORMATION, OPT_REQUESTED_ADDRESS, OPT_SERVER_ID,
    OPT_SUBNET_SELECTION, OPT_USER_CLASS, OPT_VENDOR_CLASS, OPT_VENDOR_SPECIFIC, PXE_BOOT_ITEM,
    PXE_CLASS, RELAY_LINK_SELECTION, RELAY_SERVER_OVERRIDE, RELAY_SOURCE_PORT,
};
use crate::options::Options;
use crate::{SERVER_PORT, can_be_host};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::{Firmware, Mac};

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the client says.
    pub kind: RequestKind,
    /// Number that the reply repeats.
    pub transaction: u32,
    /// Flags as sent; the uppermost bit asks for broadcast replies.
    pub flags: u16,
    /// Address that the client uses already, or 0.0.0.0.
    pub client: Ipv4Addr,
    /// Relay that passed the message on, or 0.0.0.0.
    pub relay: Ipv4Addr,
    /// The relay's port to which answers go. Nothing of the message: whoever knows from which it came says it, if the relay
    /// [wants that](Self::names_relay_port).
    pub relay_port: u16,
    /// The client's NIC.
    pub mac: Mac,
    /// Address that it wants (option 50).
    pub wanted: Option<Ipv4Addr>,
    /// Server that it has chosen (option 54).
    pub server: Option<Ipv4Addr>,
    /// Kind of the firmware that asks, by PXE or by UEFI HTTP Boot; `None` if it is no firmware.
    pub firmware: Option<Firmware>,
    /// It is firmware or a loader that boots from the network, or says so: its vendor class begins as theirs.
    pub is_boot_client: bool,
    /// Loader that it gets, below 100 bytes. Nothing of the message: whoever has the request answered may set it; `None`: the
    /// configuration's for this firmware.
    pub loader: Option<String>,
    /// The host name that it is told if it asks. Nothing of the message: whoever knows the client says it.
    pub name: Option<String>,
    /// It is told of none, not even of the usual one.
    pub gets_no_loader: bool,
    /// It came by a router and no relay. Nothing of the message: whoever knows how it came says it.
    pub is_routed: bool,
    /// Whether it is iPXE, which waits for a proxy unless it is told not to.
    pub is_ipxe: bool,
    /// SMBIOS UUID as sent (option 97): a type byte and 16 bytes.
    pub uuid: Option<[u8; 17]>,
    /// Item of a boot menu that it has chosen, as sent: its type and layer (in option 43).
    pub boot_item: Option<[u8; 4]>,
    /// Host name (option 12), printable characters only, at most 63.
    pub host_name: Option<String>,
    /// Client identifier (option 61), which the reply repeats.
    pub client_id: Option<Vec<u8>>,
    /// Relay information (option 82), which the reply repeats as its last option.
    pub relay_information: Option<Vec<u8>>,
    /// An address of the network that a relay asks for (option 118), which the reply repeats.
    pub subnet: Option<Ipv4Addr>,
    /// Options that it asks for (option 55); empty means all.
    pub parameters: Vec<u8>,
}

/// The datagram is no request that a DHCP server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// The datagram is no DHCP message.
    #[error(transparent)]
    NotDhcp(#[from] NotDhcp),
    /// The message is a server's, perhaps another one's on this network.
    #[error("a server's reply, not a client's request")]
    Reply,
    /// A group's address can't be a client.
    #[error("{0} can't be a client's hardware address")]
    BadMac(Mac),
    /// Nobody can be answered there.
    #[error("{0} can't be a relay's address")]
    BadRelay(Ipv4Addr),
}

impl Request {
    /// Reads a datagram. Never panics, and never fails because of one bad option.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotARequest> {
        let Message { kind, fields, options } = Message::parse(datagram)?;
        let MessageKind::Request(kind) = kind else { return Err(NotARequest::Reply) };
        if fields.mac.is_multicast() || fields.mac == Mac([0; 6]) {
            return Err(NotARequest::BadMac(fields.mac));
        }
        let relay = fields.relay;
        if !relay.is_unspecified() && !can_be_host(relay) {
            return Err(NotARequest::BadRelay(relay));
        }
        let is_set = |address: &Ipv4Addr| !address.is_unspecified();
        Ok(Self {
            kind,
            transaction: fields.transaction,
            flags: fields.flags,
            // Some clients name an old address while they look for a new one.
            client: match kind {
                RequestKind::Discover => Ipv4Addr::UNSPECIFIED,
                _ => fields.client,
            },
            relay,
            relay_port: SERVER_PORT,
            mac: fields.mac,
            wanted: options.address(OPT_REQUESTED_ADDRESS).filter(is_set),
            server: options.address(OPT_SERVER_ID).filter(is_set),
            firmware: firmware(&options),
            is_boot_client: options
                .bytes(OPT_VENDOR_CLASS)
                .is_some_and(|class| class.starts_with(PXE_CLASS) || class.starts_with(HTTP_CLASS)),
            loader: None,
            name: None,
            gets_no_loader: false,
            is_routed: false,
            is_ipxe: is_ipxe(&options),
            uuid: options.array(OPT_CLIENT_UUID),
            boot_item: boot_item(&options),
            host_name: options.bytes(OPT_HOST_NAME).and_then(host_name),
            client_id: options.bytes(OPT_CLIENT_ID).map(<[u8]>::to_vec),
            relay_information: options.bytes(OPT_RELAY_INFORMATION).map(<[u8]>::to_vec),
            subnet: options.address(OPT_SUBNET_SELECTION).filter(is_set),
            parameters: options.bytes(OPT_PARAMETER_LIST).unwrap_or_default().to_vec(),
        })
    }

    /// The address that the client has, and answers ARP for. One that asks for an address (option 50) has none yet, whatever
    /// stands in `ciaddr` (table 5): some firmware leaves a former one there.
    pub fn address_in_use(&self) -> Option<Ipv4Addr> {
        let may_have = match self.kind {
            RequestKind::Discover | RequestKind::Decline => false,
            RequestKind::Request => self.wanted.is_none(),
            RequestKind::Release | RequestKind::Inform => true,
        };
        Some(self.client).filter(|client| may_have && !client.is_unspecified())
    }

    /// An address of the client's network, as the relay names it (RFC 3527).
    pub(crate) fn link_selection(&self) -> Option<Ipv4Addr> {
        self.of_relay(RELAY_LINK_SELECTION)
    }

    /// The address by which the client shall know us, the relay's (RFC 5107): it then speaks to the relay all its life.
    pub(crate) fn server_override(&self) -> Option<Ipv4Addr> {
        self.of_relay(RELAY_SERVER_OVERRIDE)
    }

    /// Whether the relay wants answers at the port from which it asks (RFC 8357).
    pub fn names_relay_port(&self) -> bool {
        self.relay_options().is_some_and(|options| options.bytes(RELAY_SOURCE_PORT).is_some())
    }

    fn of_relay(&self, code: u8) -> Option<Ipv4Addr> {
        self.relay_options()?.address(code).filter(|address| !address.is_unspecified())
    }

    /// What the relay says of itself. Without a relay nobody says it but the client.
    fn relay_options(&self) -> Option<Options> {
        let mut options = Options::default();
        options.read(self.relay_information.as_ref().filter(|_| !self.relay.is_unspecified())?);
        Some(options)
    }

    /// Whether the client can only hear broadcasts.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & FLAG_BROADCAST != 0
    }

    /// Whether the client asked for the option, or for all.
    pub(crate) fn asks_for(&self, code: u8) -> bool {
        self.parameters.is_empty() || self.parameters.contains(&code)
    }
}

fn firmware(options: &Options) -> Option<Firmware> {
    let class = options.bytes(OPT_VENDOR_CLASS)?;
    let is_http = class.starts_with(HTTP_CLASS);
    if !is_http && !class.starts_with(PXE_CLASS) {
        return None;
    }
    // It is a list; the first that we have a loader for counts. How it is fetched, the class says. Without the list the class may
    // name the kind; PXE before 2.1 does not, and is a BIOS.
    let of_class = class_architecture(class).map(u16::to_be_bytes);
    let kinds = match options
        .bytes(OPT_CLIENT_ARCHITECTURE)
        .filter(|list| list.len() >= 2)
        .or(of_class.as_ref().map(|it| &it[..]))
    {
        None if !is_http => return Some(Firmware::Bios),
        told => told?,
    };
    let kinds = kinds.chunks_exact(2).map(|pair| {
        match Firmware::of_code(u16::from_be_bytes([pair[0], pair[1]])) {
            Firmware::Bios if is_http => Firmware::Other(BIOS_HTTP),
            kind if is_http => kind.by_http(),
            kind => kind.by_pxe(),
        }
    });
    kinds.clone().find(|kind| !matches!(kind, Firmware::Other(_))).or_else(|| kinds.clone().next())
}

/// The architecture in a class like `PXEClient:Arch:00007:UNDI:003016` (PXE 2.1, table 2-3; UEFI 2.10, table 24.1).
fn class_architecture(class: &[u8]) -> Option<u16> {
    let mut parts = core::str::from_utf8(class).ok()?.trim_end_matches('\0').split(':').skip(1);
    let number = (parts.next()? == "Arch").then(|| parts.next())??;
    number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Options of PXE stand in option 43 as options do in a message.
fn boot_item(options: &Options) -> Option<[u8; 4]> {
    let mut of_pxe = Options::default();
    of_pxe.read(options.bytes(OPT_VENDOR_SPECIFIC)?);
    of_pxe.array(PXE_BOOT_ITEM)
}

/// iPXE sends its name bare or as counted strings (RFC 3004), and its own option 175.
fn is_ipxe(options: &Options) -> bool {
    let class = options.bytes(OPT_USER_CLASS).unwrap_or_default();
    options.bytes(OPT_IPXE).is_some() || class.windows(4).any(|bytes| bytes == b"iPXE")
}

pub(crate) fn host_name(bytes: &[u8]) -> Option<String> {
    let name: String = bytes
        .iter()
        .take(63)
        .take_while(|&&byte| byte != 0)
        .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect();
    if name.is_empty() { None } else { Some(name) }
}
