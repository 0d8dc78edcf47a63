//! Numbers of DHCP options (RFC 2132, and IANA's registry "BOOTP Vendor Extensions and DHCP Options").

/// Mask of the client's network.
pub const OPT_SUBNET_MASK: u8 = 1;
/// Default routes, the preferred first.
pub const OPT_ROUTER: u8 = 3;
/// Name servers, the preferred first.
pub const OPT_DNS_SERVER: u8 = 6;
/// The client's host name.
pub const OPT_HOST_NAME: u8 = 12;
/// The client's DNS domain.
pub const OPT_DOMAIN_NAME: u8 = 15;
/// Broadcast address of the client's network.
pub const OPT_BROADCAST_ADDRESS: u8 = 28;
/// Time servers (NTP), the preferred first.
pub const OPT_NTP_SERVER: u8 = 42;
/// Options of the client's maker; of PXE, if the vendor class is its.
pub const OPT_VENDOR_SPECIFIC: u8 = 43;
/// The address that the client wants.
pub const OPT_REQUESTED_ADDRESS: u8 = 50;
/// How long the lease lasts, in seconds.
pub const OPT_LEASE_TIME: u8 = 51;
/// Which of the fields `file` and `sname` hold options.
pub const OPT_OVERLOAD: u8 = 52;
/// What kind of message it is: the one option that each has.
pub const OPT_MESSAGE_TYPE: u8 = 53;
/// The server that speaks, or that the client has chosen.
pub const OPT_SERVER_ID: u8 = 54;
/// Numbers of the options that the client asks for.
pub const OPT_PARAMETER_LIST: u8 = 55;
/// Why a server refuses, for the client's log.
pub const OPT_MESSAGE: u8 = 56;
/// Longest message that the client takes, in bytes.
pub const OPT_MESSAGE_SIZE_MAX: u8 = 57;
/// When the lease is to be renewed (T1), in seconds.
pub const OPT_RENEWAL_TIME: u8 = 58;
/// When the lease is to be sought from any server (T2), in seconds.
pub const OPT_REBINDING_TIME: u8 = 59;
/// What the client is: firmware says [`PXE_CLASS`] or [`HTTP_CLASS`].
pub const OPT_VENDOR_CLASS: u8 = 60;
/// By what the client wants to be known.
pub const OPT_CLIENT_ID: u8 = 61;
/// Name or address of the TFTP server.
pub const OPT_TFTP_SERVER: u8 = 66;
/// The loader's name on the TFTP server.
pub const OPT_BOOT_FILE: u8 = 67;
/// What uses the client (RFC 3004): `iPXE`.
pub const OPT_USER_CLASS: u8 = 77;
/// What a relay wants back untouched (RFC 3046).
pub const OPT_RELAY_INFORMATION: u8 = 82;
/// The firmware's architecture (RFC 4578 §2.1).
pub const OPT_CLIENT_ARCHITECTURE: u8 = 93;
/// The PC's SMBIOS UUID behind a type byte (RFC 4578 §2.3).
pub const OPT_CLIENT_UUID: u8 = 97;
/// The network that a relay wants an address of (RFC 3011).
pub const OPT_SUBNET_SELECTION: u8 = 118;
/// Routes to networks of any size (RFC 3442). Who takes them heeds no [`OPT_ROUTER`].
pub const OPT_CLASSLESS_ROUTES: u8 = 121;
/// The same, as older Windows asks for it.
pub const OPT_MICROSOFT_ROUTES: u8 = 249;
/// Options of iPXE.
pub const OPT_IPXE: u8 = 175;

/// In [`OPT_RELAY_INFORMATION`]: an address of the network that the client is in, if the relay's own is none (RFC 3527).
pub const RELAY_LINK_SELECTION: u8 = 5;
/// In [`OPT_RELAY_INFORMATION`]: the address by which the client shall know its server (RFC 5107).
pub const RELAY_SERVER_OVERRIDE: u8 = 11;
/// In [`OPT_RELAY_INFORMATION`], empty: the relay wants answers at the port that it asks from (RFC 8357).
pub const RELAY_SOURCE_PORT: u8 = 19;

/// In [`OPT_VENDOR_SPECIFIC`] of PXE: how the client finds boot servers (PXE 2.1, table 2-1).
pub const PXE_DISCOVERY_CONTROL: u8 = 6;
/// In [`OPT_VENDOR_SPECIFIC`] of PXE: the item of a boot menu that the client has chosen, which the answer repeats (PXE 2.1, table 2-1).
pub const PXE_BOOT_ITEM: u8 = 71;
/// In [`OPT_IPXE`]: whether iPXE shall not wait for a proxy.
pub const IPXE_NO_PROXY: u8 = 0xb0;

/// How [`OPT_VENDOR_CLASS`] of firmware begins that fetches its loader by TFTP.
pub const PXE_CLASS: &[u8] = b"PXEClient";
/// How [`OPT_VENDOR_CLASS`] of firmware begins that fetches its loader by HTTP (UEFI 2.5 and later, HTTP Boot). It heeds no offer
/// without it.
pub const HTTP_CLASS: &[u8] = b"HTTPClient";
/// In [`OPT_CLIENT_ARCHITECTURE`]: PC BIOS that boots by HTTP.
pub(crate) const BIOS_HTTP: u16 = 0x14;

/// One byte of nothing.
pub const OPT_PAD: u8 = 0;
/// Nothing follows.
pub const OPT_END: u8 = 255;
