//! What one boot of one machine needs to know, as it travels on the kernel command line.

use crate::{CaptureOrder, LogicalVolumeName, MTU_RANGE, RamSize, RootUrl, StorageNetwork};
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::RangeInclusive;
use wire::{Mac, Route};

/// Where the root disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// An NBD export.
    Nbd {
        /// Addresses of the storage server, the preferred first: 1 to 8.
        servers: Vec<SocketAddrV4>,
        /// Export name, without spaces and colons.
        export: String,
    },
    /// An AoE target on the boot NIC's network, or in the storage network if there is one.
    Aoe {
        /// Shelf (major address), 0 to 0xfffe.
        shelf: u16,
        /// Slot (minor address), 0 to 0xfe.
        slot: u8,
    },
    /// What a foreign server exports.
    Foreign(RootUrl),
}

/// Addresses of one storage server; a command line is short.
pub const NBD_SERVERS_MAX: usize = 8;

/// Numbers of VLANs that can be asked for: IEEE 802.1Q reserves 0 and 4095.
pub const VLAN_RANGE: RangeInclusive<u16> = 1..=4094;

/// Everything that `init` takes from the kernel command line. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConfig {
    /// The boot server: reports go to its [`REPORT_PORT`](crate::REPORT_PORT).
    pub server: Ipv4Addr,
    /// Number of this boot, chosen by the boot server; names it in reports.
    pub boot: u64,
    /// The NIC that carries the boot.
    pub mac: Mac,
    /// Leased address and prefix length (0 to 32); `None`: the machine asks by DHCP itself.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Default route.
    pub router: Option<Ipv4Addr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Name servers, in order of preference.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers (NTP), in order of preference.
    pub ntp: Vec<Ipv4Addr>,
    /// DNS domain of the site.
    pub domain: Option<String>,
    /// How large the NIC's packets may be, 1280 to 9000 bytes; `None`: as the driver sets it.
    pub mtu: Option<u16>,
    /// The VLAN that the machine is in, 1 to 4094; `None`: the network's own, without tags.
    pub vlan: Option<u16>,
    /// The network of its own over which the root disk is reached; `None`: the one that the machine boots from.
    pub storage: Option<StorageNetwork>,
    /// Name of the machine, which becomes its host name.
    pub host_name: String,
    /// Root disk.
    pub root: Root,
    /// Partition of the root disk that holds the root file system; `None` is the whole disk.
    pub partition: Option<u8>,
    /// The logical volume that does instead, on whatever partitions it lies.
    pub logical_volume: Option<LogicalVolumeName>,
    /// The root disk takes no writes: changes go to so much of the machine's memory.
    pub ram: Option<RamSize>,
    /// The boot sends what is on the PC's own disks to the boot server, and starts no system.
    pub capture: Option<CaptureOrder>,
}

/// A parameter of the command line is missing or can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A parameter that every boot needs is absent.
    #[error(
        "the kernel command line has no {0}: this initrd must be started with the command line \
         that the boot server renders"
    )]
    Missing(&'static str),
    /// A value has the wrong form.
    #[error("the kernel command line has {key}={value}, but {key} must be {wanted}")]
    Invalid {
        /// Name of the parameter.
        key: &'static str,
        /// Value as found.
        value: String,
        /// What would be right, in words.
        wanted: &'static str,
    },
}

const SERVER: &str = "bootlace.server";
const BOOT: &str = "bootlace.boot";
const NIC: &str = "bootlace.mac";
const ADDRESS: &str = "bootlace.address";
/// Instead of an address.
const BY_DHCP: &str = "dhcp";
const ROUTER: &str = "bootlace.router";
const ROUTES: &str = "bootlace.routes";
const DNS: &str = "bootlace.dns";
const NTP: &str = "bootlace.ntp";
const DOMAIN: &str = "bootlace.domain";
const MTU: &str = "bootlace.mtu";
const VLAN: &str = "bootlace.vlan";
const STORAGE: &str = "bootlace.storage";
const HOST_NAME: &str = "bootlace.host";
const ROOT: &str = "bootlace.root";
const PARTITION: &str = "bootlace.partition";
const LOGICAL_VOLUME: &str = "bootlace.logical_volume";
const RAM: &str = "bootlace.ram";
const CAPTURE: &str = "bootlace.capture";

impl BootConfig {
    /// Renders the parameters for the kernel command line, separated by single spaces.
    pub fn to_command_line(&self) -> String {
        let mut line = String::new();
        let mut put = |key: &str, value: &dyn core::fmt::Display| {
            let space = if line.is_empty() { "" } else { " " };
            // Writing to a String does not fail.
            let _ = write!(line, "{space}{key}={value}");
        };
        put(SERVER, &self.server);
        put(BOOT, &self.boot);
        put(NIC, &self.mac);
        match self.address {
            Some((address, prefix)) => put(ADDRESS, &alloc::format!("{address}/{prefix}")),
            None => put(ADDRESS, &BY_DHCP),
        }
        if let Some(router) = self.router {
            put(ROUTER, &router);
        }
        if !self.routes.is_empty() {
            let routes: Vec<String> = self.routes.iter().map(Route::to_string).collect();
            put(ROUTES, &routes.join(","));
        }
        for (key, servers) in [(DNS, &self.dns), (NTP, &self.ntp)] {
            if !servers.is_empty() {
                let servers: Vec<String> = servers.iter().map(Ipv4Addr::to_string).collect();
                put(key, &servers.join(","));
            }
        }
        if let Some(domain) = &self.domain {
            put(DOMAIN, domain);
        }
        if let Some(mtu) = self.mtu {
            put(MTU, &mtu);
        }
        if let Some(vlan) = self.vlan {
            put(VLAN, &vlan);
        }
        if let Some(storage) = self.storage {
            put(STORAGE, &storage);
        }
        put(HOST_NAME, &self.host_name);
        match &self.root {
            Root::Nbd { servers, export } => {
                let servers: Vec<String> = servers.iter().map(SocketAddrV4::to_string).collect();
                put(ROOT, &alloc::format!("nbd:{}:{export}", servers.join(",")));
            }
            Root::Aoe { shelf, slot } => put(ROOT, &alloc::format!("aoe:{shelf}.{slot}")),
            Root::Foreign(url) => put(ROOT, url),
        }
        if let Some(partition) = self.partition {
            put(PARTITION, &partition);
        }
        if let Some(volume) = &self.logical_volume {
            put(LOGICAL_VOLUME, volume);
        }
        if let Some(ram) = self.ram {
            put(RAM, &ram);
        }
        if let Some(capture) = &self.capture {
            put(CAPTURE, capture);
        }
        line
    }

    /// Reads the parameters from a whole kernel command line. Other parameters are ignored; of a
    /// repeated one the last counts, as for the kernel's own.
    pub fn parse(command_line: &str) -> Result<Self, ConfigError> {
        let value = |key: &'static str| {
            command_line
                .split_ascii_whitespace()
                .filter_map(|word| word.split_once('='))
                .rfind(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        let required = |key| value(key).ok_or(ConfigError::Missing(key));
        Ok(Self {
            server: field(SERVER, required(SERVER)?, "an IPv4 address")?,
            boot: field(BOOT, required(BOOT)?, "a number")?,
            mac: field(NIC, required(NIC)?, "a MAC address like 52:54:00:12:34:56")?,
            address: parse_address(required(ADDRESS)?)?,
            router: value(ROUTER).map(|text| field(ROUTER, text, "an IPv4 address")).transpose()?,
            routes: match value(ROUTES) {
                Some(list) => list
                    .split(',')
                    .map(|text| field(ROUTES, text, "routes like 10.9.0.0/16:10.5.0.254"))
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
            dns: addresses(DNS, value(DNS))?,
            ntp: addresses(NTP, value(NTP))?,
            domain: value(DOMAIN).map(ToOwned::to_owned),
            mtu: value(MTU).map(parse_mtu).transpose()?,
            vlan: value(VLAN).map(parse_vlan).transpose()?,
            storage: value(STORAGE)
                .map(|text| field(STORAGE, text, "the server's address there, like 10.20.0.1/24"))
                .transpose()?,
            host_name: required(HOST_NAME)?.to_owned(),
            root: parse_root(required(ROOT)?)?,
            partition: value(PARTITION)
                .map(|text| field(PARTITION, text, "a partition number from 1 to 255"))
                .transpose()?,
            logical_volume: value(LOGICAL_VOLUME)
                .map(|text| field(LOGICAL_VOLUME, text, "a logical volume like GROUP/NAME"))
                .transpose()?,
            ram: value(RAM)
                .map(|text| field(RAM, text, "a part of the memory like 50% or 2048M"))
                .transpose()?,
            capture: value(CAPTURE)
                .map(|text| field(CAPTURE, text, "an order like restart,disk=sda2,without=/home"))
                .transpose()?,
        })
    }
}

fn field<T: core::str::FromStr>(
    key: &'static str,
    value: &str,
    wanted: &'static str,
) -> Result<T, ConfigError> {
    value.parse().map_err(|_| invalid(key, value, wanted))
}

fn addresses(key: &'static str, list: Option<&str>) -> Result<Vec<Ipv4Addr>, ConfigError> {
    let list = list.into_iter().flat_map(|list| list.split(','));
    list.map(|text| field(key, text, "IPv4 addresses separated by commas")).collect()
}

fn invalid(key: &'static str, value: &str, wanted: &'static str) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_owned(), wanted }
}

fn parse_address(text: &str) -> Result<Option<(Ipv4Addr, u8)>, ConfigError> {
    if text == BY_DHCP {
        return Ok(None);
    }
    let wanted = "an IPv4 address with its prefix length, like 10.0.0.5/24, or dhcp";
    let bad = || invalid(ADDRESS, text, wanted);
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    if prefix > 32 {
        return Err(bad());
    }
    Ok(Some((address.parse().map_err(|_| bad())?, prefix)))
}

fn parse_mtu(text: &str) -> Result<u16, ConfigError> {
    let mtu = text.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu));
    mtu.ok_or_else(|| invalid(MTU, text, "a number of bytes from 1280 to 9000"))
}

fn parse_vlan(text: &str) -> Result<u16, ConfigError> {
    let vlan = text.parse().ok().filter(|vlan| VLAN_RANGE.contains(vlan));
    vlan.ok_or_else(|| invalid(VLAN, text, "a number from 1 to 4094"))
}

fn parse_root(text: &str) -> Result<Root, ConfigError> {
    let wanted = "nbd:ADDRESS:PORT[,ADDRESS:PORT…]:EXPORT, aoe:SHELF.SLOT, or the URL of a root on another server";
    let bad = || invalid(ROOT, text, wanted);
    if text.contains("://") {
        return text.parse().map(Root::Foreign).map_err(|_| bad());
    }
    if let Some(rest) = text.strip_prefix("nbd:") {
        let (list, export) = rest.rsplit_once(':').ok_or_else(bad)?;
        let servers: Option<Vec<SocketAddrV4>> =
            list.split(',').take(NBD_SERVERS_MAX + 1).map(|server| server.parse().ok()).collect();
        let servers = servers.filter(|servers| servers.len() <= NBD_SERVERS_MAX).ok_or_else(bad)?;
        return Ok(Root::Nbd { servers, export: export.to_owned() });
    }
    let (shelf, slot) =
        text.strip_prefix("aoe:").and_then(|rest| rest.split_once('.')).ok_or_else(bad)?;
    Ok(Root::Aoe {
        shelf: shelf.parse().ok().filter(|&shelf| shelf != u16::MAX).ok_or_else(bad)?,
        slot: slot.parse().ok().filter(|&slot| slot != u8::MAX).ok_or_else(bad)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BootConfig {
        BootConfig {
            server: Ipv4Addr::new(10, 77, 0, 1),
            boot: 42,
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: Some((Ipv4Addr::new(10, 77, 0, 100), 24)),
            router: Some(Ipv4Addr::new(10, 77, 0, 254)),
            routes: alloc::vec!["10.9.0.0/16:10.77.0.253".parse().unwrap()],
            dns: alloc::vec![Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(9, 9, 9, 9)],
            ntp: alloc::vec![Ipv4Addr::new(10, 77, 0, 2)],
            domain: Some("lab.example".to_owned()),
            mtu: Some(9000),
            vlan: Some(12),
            storage: Some("10.20.0.1/24,9000".parse().unwrap()),
            host_name: "lab-07".to_owned(),
            root: Root::Nbd {
                servers: alloc::vec![SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 10809)],
                export: "lab-07".to_owned(),
            },
            partition: None,
            logical_volume: None,
            ram: None,
            capture: None,
        }
    }

    #[test]
    fn what_the_server_renders_is_what_init_reads() {
        let nbd = example();
        let aoe = BootConfig {
            root: Root::Aoe { shelf: 1, slot: 7 },
            address: None,
            partition: Some(2),
            logical_volume: Some("ubuntu-vg/ubuntu-lv".parse().unwrap()),
            ram: Some(RamSize::Percent(50)),
            capture: Some("poweroff,disk=sda2,without=/home".parse().unwrap()),
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            mtu: None,
            vlan: None,
            storage: None,
            ..example()
        };
        let second = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 9), 10810);
        let mut several = example();
        if let Root::Nbd { servers, .. } = &mut several.root {
            servers.push(second);
        }
        assert!(several.to_command_line().contains("nbd:10.77.0.1:10809,10.77.0.9:10810:lab-07"));
        let foreign =
            |url: &str| BootConfig { root: Root::Foreign(url.parse().unwrap()), ..example() };
        let nfs = foreign("nfs://10.0.0.5/srv/debian-12?vers=4.2,ro");
        let iscsi = foreign("iscsi://10.0.0.5:3261/iqn.2026-11.example:disk/1");
        let other_nbd = foreign("nbd://10.0.0.5/fedora?lv=vg0/root");
        let other_aoe = foreign("aoe://7.3?partition=2");
        for config in [nbd, aoe, several, nfs, iscsi, other_nbd, other_aoe] {
            let line = alloc::format!("console=ttyS0 {} quiet\n", config.to_command_line());
            assert_eq!(BootConfig::parse(&line), Ok(config));
        }
    }

    #[test]
    fn a_missing_or_wrong_parameter_is_named() {
        let line = example().to_command_line();
        let error = BootConfig::parse(&line.replace("bootlace.server", "other")).unwrap_err();
        assert_eq!(error, ConfigError::Missing("bootlace.server"));
        for (right, wrong) in [
            ("address=10.77.0.100/24", "address=10.77.0.100"),
            ("address=10.77.0.100/24", "address=10.77.0.100/33"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=nbd:10.77.0.1"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=nbd:10.77.0.1:10809,:lab-07"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=nbd:10.77.0.1:lab-07"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=aoe:65535.1"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=nfs://server/srv"),
            ("root=nbd:10.77.0.1:10809:lab-07", "root=ftp://10.0.0.5/srv"),
            ("mac=52:54:00:00:00:01", "mac=52:54"),
            ("mtu=9000", "mtu=9001"),
            ("mtu=9000", "mtu=jumbo"),
            ("vlan=12", "vlan=0"),
            ("vlan=12", "vlan=4095"),
            ("storage=10.20.0.1/24", "storage=10.20.0.0"),
            ("host=lab-07", "host=lab-07 bootlace.ram=all"),
            ("host=lab-07", "host=lab-07 bootlace.capture=all"),
        ] {
            let error = BootConfig::parse(&line.replace(right, wrong)).unwrap_err();
            assert!(matches!(error, ConfigError::Invalid { .. }), "{wrong}: {error}");
        }
    }
}
