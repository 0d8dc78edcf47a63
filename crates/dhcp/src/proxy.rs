//! proxyDHCP: names a loader to firmware that gets its address from another server (PXE 2.1 §2.2.3, §2.2.4).
//!
//! BIOS ROMs take the loader from the offer. UEFI ROMs take an offer only for the news that there is a boot server, and ask that on
//! [`PROXY_PORT`] once they have their address: so their offer names no file.

use crate::message::{FLAG_BROADCAST, Fields, MessageKind, ReplyKind, RequestKind, emit};
use crate::option_codes::{
    HTTP_CLASS, IPXE_NO_PROXY, OPT_BOOT_FILE, OPT_CLIENT_ID, OPT_CLIENT_UUID, OPT_END, OPT_IPXE,
    OPT_RELAY_INFORMATION, OPT_SERVER_ID, OPT_TFTP_SERVER, OPT_VENDOR_CLASS, OPT_VENDOR_SPECIFIC,
    PXE_BOOT_ITEM, PXE_CLASS, PXE_DISCOVERY_CONTROL,
};
use crate::options::OptionWriter;
use crate::reply::{Destination, PXE_BOOT_FILE_AT_ONCE, Reply};
use crate::request::Request;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use wire::Firmware;

/// UDP port of boot servers, at which firmware asks that has an address.
pub const PROXY_PORT: u16 = 4011;

/// What the proxy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Our own address on the boot network.
    pub server: Ipv4Addr,
    /// Loader for PC BIOS, by TFTP from us; less than 128 bytes.
    pub bios_file: String,
    /// Loader for 64-bit UEFI, by TFTP or by HTTP from us; less than 100 bytes.
    pub uefi_x64_file: String,
    /// The same for UEFI of 64-bit ARM PCs.
    pub uefi_arm64_file: String,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyDecision {
    /// Send this. It holds no address.
    Reply(Box<Reply>),
    /// The client takes this address from another server, which answers it: nothing is to be sent.
    Takes(Ipv4Addr),
    /// Do nothing, for this reason.
    Silent(ProxySilence),
}

/// Why a request gets no answer of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxySilence {
    /// The client looks for an address only.
    #[error("it is no boot firmware: the other DHCP server answers it")]
    NoFirmware,
    /// There is no loader for such firmware.
    #[error("there is no loader for {0}")]
    NoLoader(Firmware),
    /// The message concerns an address only.
    #[error("it is about an address, which the other DHCP server has given")]
    AboutAddress,
    /// What comes to the boot server's port names no address to answer to.
    #[error("it asks for its loader, and has no address")]
    NoAddress,
}

impl ProxySilence {
    /// A word for it, for counting.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoFirmware => "no-firmware",
            Self::NoLoader(_) => "no-loader",
            Self::AboutAddress => "about-address",
            Self::NoAddress => "no-address",
        }
    }
}

/// Answers firmware beside another DHCP server. It remembers nothing.
#[derive(Clone, Debug)]
pub struct Proxy {
    config: ProxyConfig,
}

impl Proxy {
    /// A proxy that names these loaders.
    pub fn new(config: ProxyConfig) -> Self {
        Self { config }
    }

    /// Decides about a request that came to [`SERVER_PORT`](crate::SERVER_PORT).
    pub fn on_request(&self, request: &Request) -> ProxyDecision {
        match request.kind {
            RequestKind::Discover => match self.loader(request) {
                Ok(loader) => ProxyDecision::Reply(Box::new(self.offer(request, loader))),
                Err(why) => ProxyDecision::Silent(why),
            },
            RequestKind::Request => {
                let in_use = Some(request.client).filter(|client| !client.is_unspecified());
                match request.wanted.or(in_use) {
                    Some(address) => ProxyDecision::Takes(address),
                    None => ProxyDecision::Silent(ProxySilence::AboutAddress),
                }
            }
            RequestKind::Decline | RequestKind::Release | RequestKind::Inform => {
                ProxyDecision::Silent(ProxySilence::AboutAddress)
            }
        }
    }

    /// Decides about a request that came to [`PROXY_PORT`]. The reply goes back to where it came from.
    pub fn on_boot_request(&self, request: &Request) -> ProxyDecision {
        if !matches!(request.kind, RequestKind::Request | RequestKind::Inform) {
            return ProxyDecision::Silent(ProxySilence::AboutAddress);
        }
        if request.client.is_unspecified() {
            return ProxyDecision::Silent(ProxySilence::NoAddress);
        }
        match self.loader(request) {
            Ok((firmware, file)) => {
                let to = Destination::Unicast(request.client);
                let options = self.options(request, firmware, Some(&file));
                let ack = self.reply(request, (ReplyKind::Ack, to), Some(&file), &options);
                ProxyDecision::Reply(Box::new(ack))
            }
            Err(why) => ProxyDecision::Silent(why),
        }
    }

    /// The firmware, and its loader as it must be named to it.
    fn loader(&self, request: &Request) -> Result<(Firmware, String), ProxySilence> {
        let firmware = request.firmware.ok_or(ProxySilence::NoFirmware)?;
        if request.gets_no_loader {
            return Err(ProxySilence::NoLoader(firmware));
        }
        let usual = match firmware {
            Firmware::Bios => &self.config.bios_file,
            Firmware::UefiX64 | Firmware::UefiX64Http => &self.config.uefi_x64_file,
            Firmware::UefiArm64 | Firmware::UefiArm64Http => &self.config.uefi_arm64_file,
            Firmware::Other(_) => return Err(ProxySilence::NoLoader(firmware)),
        };
        let file = request.loader.as_ref().unwrap_or(usual);
        Ok(match firmware.is_http() {
            // With the address: the proxy tells of no name server.
            true => (firmware, format!("http://{}/{file}", self.config.server)),
            false => (firmware, file.clone()),
        })
    }

    fn offer(&self, request: &Request, (firmware, file): (Firmware, String)) -> Reply {
        // iPXE takes what is named at once on any firmware, and would ask at the other port otherwise, too.
        let at_once = !firmware.is_uefi_pxe() || request.is_ipxe;
        let file = Some(file.as_str()).filter(|_| at_once);
        let to = match request.relay {
            relay if relay.is_unspecified() => Destination::Broadcast,
            relay => Destination::Relay(relay, request.relay_port),
        };
        let options = self.options(request, firmware, file);
        self.reply(request, (ReplyKind::Offer, to), file, &options)
    }

    fn options(&self, request: &Request, firmware: Firmware, file: Option<&str>) -> OptionWriter {
        let mut options = OptionWriter::default();
        options.put_addresses(OPT_SERVER_ID, &[self.config.server]);
        let class = if firmware.is_http() { HTTP_CLASS } else { PXE_CLASS };
        options.put(OPT_VENDOR_CLASS, class);
        if let Some(uuid) = request.uuid {
            options.put(OPT_CLIENT_UUID, &uuid);
        }
        if let Some(file) = file {
            // With a NUL: some ROMs read on behind the option.
            options.put(OPT_TFTP_SERVER, format!("{}\0", self.config.server).as_bytes());
            options.put(OPT_BOOT_FILE, format!("{file}\0").as_bytes());
        }
        let mut vendor = Vec::new();
        if firmware == Firmware::Bios {
            vendor.extend([PXE_DISCOVERY_CONTROL, 1, PXE_BOOT_FILE_AT_ONCE]);
        }
        if let Some(item) = request.boot_item {
            vendor.extend([PXE_BOOT_ITEM, 4]);
            vendor.extend(item);
        }
        if !vendor.is_empty() {
            vendor.push(OPT_END);
            options.put(OPT_VENDOR_SPECIFIC, &vendor);
        }
        if request.is_ipxe {
            options.put(OPT_IPXE, &[IPXE_NO_PROXY, 1, 1]);
        }
        if let Some(id) = &request.client_id {
            // RFC 6842.
            options.put(OPT_CLIENT_ID, id);
        }
        if let Some(information) = &request.relay_information {
            // RFC 3046 section 2.2: untouched, and last.
            options.put(OPT_RELAY_INFORMATION, information);
        }
        options
    }

    fn reply(
        &self,
        request: &Request,
        (kind, to): (ReplyKind, Destination),
        file: Option<&str>,
        options: &OptionWriter,
    ) -> Reply {
        let fields = Fields {
            transaction: request.transaction,
            // There is no address in the offer by which a relay could send it otherwise.
            flags: match to {
                Destination::Relay(..) => request.flags | FLAG_BROADCAST,
                _ => request.flags,
            },
            client: request.client,
            yours: Ipv4Addr::UNSPECIFIED,
            next_server: self.config.server,
            relay: request.relay,
            mac: request.mac,
        };
        let name = file.map(|_| self.config.server.to_string()).unwrap_or_default();
        let file = file.unwrap_or_default();
        let bytes = emit(MessageKind::Reply(kind), &fields, &name, file, options);
        Reply { kind, bytes, to, address: Ipv4Addr::UNSPECIFIED, lease: None, why: None }
    }
}
