//! Roots on servers that are not ours: a folder over NFS, a disk over iSCSI. One text names them
//! everywhere, from the administrator's keyboard to the kernel command line.

use crate::RootKind;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::str::FromStr;
use wire::Mac;

/// Longest text in bytes: x86 kernels take a command line of 2,047 bytes in all.
const URL_MAX: usize = 512;

/// TCP port of NFS (RFC 7530 §3.1).
const NFS_PORT: u16 = 2049;

/// TCP port of iSCSI (RFC 7143 §4.2.7.1).
const ISCSI_PORT: u16 = 3260;

/// Longest name of a target in bytes (RFC 7143 §4.2.7.1).
const TARGET_MAX: usize = 223;

/// Largest number of a disk that fits the flat and the simple form of a LUN (SAM-5 §4.7).
const LUN_MAX: u16 = 0x3fff;

/// A root that a foreign server exports; its text is a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootUrl {
    /// `nfs://ADDRESS[:PORT]/FOLDER[?OPTION,OPTION…]`
    Nfs(NfsRoot),
    /// `iscsi://ADDRESS[:PORT]/TARGET[/LUN][?OPTION,OPTION…]`
    Iscsi(IscsiRoot),
}

impl RootUrl {
    /// How the root reaches the machine.
    pub const fn kind(&self) -> RootKind {
        match self {
            Self::Nfs(_) => RootKind::Nfs,
            Self::Iscsi(_) => RootKind::Iscsi,
        }
    }

    /// Whether what the machine writes stays in its memory.
    pub const fn is_read_only(&self) -> bool {
        match self {
            Self::Nfs(root) => root.is_read_only,
            Self::Iscsi(root) => root.is_read_only,
        }
    }
}

/// A folder over NFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsRoot {
    /// Where the NFS server listens.
    pub server: SocketAddrV4,
    /// The exported folder, from `/`.
    pub folder: String,
    /// `vers=`: the protocol. `None`: the newest that the server has.
    pub version: Option<NfsVersion>,
    /// `mountport=`: TCP port of the server's mountd, for NFS 3. `None`: its portmapper knows it.
    pub mount_port: Option<u16>,
    /// `ro`: nothing is written to it; what the machine writes stays in its memory.
    pub is_read_only: bool,
}

/// A version of NFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NfsVersion {
    /// NFS 3.
    V3,
    /// The newest minor version of NFS 4 that the server has.
    V4,
    /// NFS 4.1.
    V4_1,
    /// NFS 4.2.
    V4_2,
}

impl fmt::Display for NfsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V4_1 => "4.1",
            Self::V4_2 => "4.2",
        })
    }
}

/// A disk over iSCSI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiRoot {
    /// Where the target listens.
    pub portal: SocketAddrV4,
    /// Name of the target, like `iqn.2026-11.example:disk`.
    pub target: String,
    /// Number of the disk in the target.
    pub lun: u16,
    /// `partition=`: the one with the root file system. `None`: it fills the whole disk.
    pub partition: Option<u8>,
    /// `ro`: nothing is written to it; what the machine writes stays in its memory.
    pub is_read_only: bool,
}

/// The text is no [`RootUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the address of a root: {problem}; use nfs://ADDRESS/FOLDER[?vers=3,ro] or \
     iscsi://ADDRESS/TARGET/LUN[?partition=1,ro]"
)]
pub struct BadRootUrl {
    /// Text as given, cut.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl FromStr for RootUrl {
    type Err = BadRootUrl;

    fn from_str(text: &str) -> Result<Self, BadRootUrl> {
        parse(text).map_err(|problem| BadRootUrl { text: text.chars().take(80).collect(), problem })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RootUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for RootUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<RootUrl, &'static str> {
    if text.len() > URL_MAX {
        return Err("it is longer than 512 bytes");
    }
    // What neither GRUB, nor the kernel, nor a mount option takes for something of its own.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:._-+@~?=,".contains(&byte);
    if !text.bytes().all(is_plain) {
        return Err("it may have letters, digits and / : . _ - + @ ~ only");
    }
    if let Some(rest) = text.strip_prefix("nfs://") {
        return parse_nfs(rest).map(RootUrl::Nfs);
    }
    let rest = text.strip_prefix("iscsi://").ok_or("it begins with neither nfs:// nor iscsi://")?;
    parse_iscsi(rest).map(RootUrl::Iscsi)
}

/// `ADDRESS[:PORT]`
fn parse_server(text: &str, port: u16) -> Result<SocketAddrV4, &'static str> {
    let (address, port) = match text.split_once(':') {
        Some((address, port)) => (address, port.parse().map_err(|_| "its port is not a number")?),
        None => (text, port),
    };
    let problem = "its server must be an IPv4 address, since machines ask no name server before they have a root";
    let address: Ipv4Addr = address.parse().map_err(|_| problem)?;
    Ok(SocketAddrV4::new(address, port))
}

fn parse_nfs(text: &str) -> Result<NfsRoot, &'static str> {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let at = place.find('/').ok_or("it has no folder")?;
    let (server, folder) = place.split_at(at);
    // The kernel takes a comma for the end of the server's options.
    if folder.contains(['?', '=', ',']) {
        return Err("its folder has one of the characters ? = ,");
    }
    let mut root = NfsRoot {
        server: parse_server(server, NFS_PORT)?,
        folder: folder.to_owned(),
        version: None,
        mount_port: None,
        is_read_only: false,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("vers", version)) => root.version = Some(parse_version(version)?),
            Some(("mountport", port)) => {
                let port = port.parse().map_err(|_| "its mountport is not a number")?;
                root.mount_port = Some(port);
            }
            None if option == "ro" => root.is_read_only = true,
            _ => return Err("it has other options than vers, mountport and ro"),
        }
    }
    Ok(root)
}

fn parse_version(text: &str) -> Result<NfsVersion, &'static str> {
    Ok(match text {
        "3" => NfsVersion::V3,
        "4" => NfsVersion::V4,
        "4.1" => NfsVersion::V4_1,
        "4.2" => NfsVersion::V4_2,
        _ => return Err("its vers is none of 3, 4, 4.1 and 4.2"),
    })
}

fn parse_iscsi(text: &str) -> Result<IscsiRoot, &'static str> {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let mut parts = place.split('/');
    let portal = parse_server(parts.next().unwrap_or_default(), ISCSI_PORT)?;
    let target = parts.next().ok_or("it has no target")?;
    let is_known = ["iqn.", "eui.", "naa."].iter().any(|start| target.starts_with(start));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-".contains(&byte);
    if !is_known || target.len() > TARGET_MAX || !target.bytes().all(is_plain) {
        return Err("its target is not a name like iqn.2026-11.example:disk");
    }
    let lun = match parts.next() {
        Some(lun) => {
            lun.parse().ok().filter(|&lun| lun <= LUN_MAX).ok_or("its LUN is not a number")?
        }
        None => 0,
    };
    if parts.next().is_some() {
        return Err("something follows its LUN");
    }
    let target = target.to_owned();
    let mut root = IscsiRoot { portal, target, lun, partition: None, is_read_only: false };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.strip_prefix("partition=") {
            Some(number) => {
                let number = number.parse().ok().filter(|&number| number > 0);
                root.partition = Some(number.ok_or("its partition is not a number from 1 to 255")?);
            }
            None if option == "ro" => root.is_read_only = true,
            None => return Err("it has other options than partition and ro"),
        }
    }
    Ok(root)
}

/// `ADDRESS`, and the port if it is not the usual one.
fn write_server(f: &mut fmt::Formatter<'_>, server: SocketAddrV4, usual_port: u16) -> fmt::Result {
    write!(f, "{}", server.ip())?;
    match server.port() {
        port if port == usual_port => Ok(()),
        port => write!(f, ":{port}"),
    }
}

impl fmt::Display for RootUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nfs(root) => root.fmt(f),
            Self::Iscsi(root) => root.fmt(f),
        }
    }
}

impl fmt::Display for NfsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nfs://")?;
        write_server(f, self.server, NFS_PORT)?;
        f.write_str(&self.folder)?;
        let version = self.version.map(|version| format!("vers={version}"));
        let mount_port = self.mount_port.map(|port| format!("mountport={port}"));
        write_options(f, [version, mount_port, read_only(self.is_read_only)])
    }
}

impl fmt::Display for IscsiRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("iscsi://")?;
        write_server(f, self.portal, ISCSI_PORT)?;
        write!(f, "/{}/{}", self.target, self.lun)?;
        let partition = self.partition.map(|number| format!("partition={number}"));
        write_options(f, [partition, read_only(self.is_read_only)])
    }
}

fn read_only(is_read_only: bool) -> Option<String> {
    is_read_only.then(|| "ro".to_owned())
}

fn write_options<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    options: [Option<String>; N],
) -> fmt::Result {
    for (index, option) in options.into_iter().flatten().enumerate() {
        write!(f, "{}{option}", if index == 0 { '?' } else { ',' })?;
    }
    Ok(())
}

/// The name by which a machine introduces itself to iSCSI targets: the EUI-64 of its boot NIC (RFC 7143
/// §4.2.7.3), so that it needs nobody's domain and never changes.
pub fn iscsi_initiator(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac.0;
    format!("eui.{a:02x}{b:02x}{c:02x}fffe{d:02x}{e:02x}{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn good(text: &str, shown: &str) {
        let url: RootUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), shown);
        assert_eq!(shown.parse(), Ok(url));
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        good("nfs://10.0.0.5/srv/debian-12", "nfs://10.0.0.5/srv/debian-12");
        good("nfs://10.0.0.5:2049/?ro", "nfs://10.0.0.5/?ro");
        good("nfs://10.0.0.5:2050/a?ro,vers=3", "nfs://10.0.0.5:2050/a?vers=3,ro");
        good("nfs://10.0.0.5/a?vers=3,mountport=9", "nfs://10.0.0.5/a?vers=3,mountport=9");
        good("nfs://10.0.0.5/a?vers=4.2", "nfs://10.0.0.5/a?vers=4.2");
        good("iscsi://10.0.0.5/iqn.2026-11.x:d", "iscsi://10.0.0.5/iqn.2026-11.x:d/0");
        good("iscsi://10.0.0.5:3261/eui.02/7", "iscsi://10.0.0.5:3261/eui.02/7");
        good("iscsi://10.0.0.5/iqn.x/0?ro,partition=2", "iscsi://10.0.0.5/iqn.x/0?partition=2,ro");
    }

    fn bad(text: &str, problem: &str) {
        let error = text.parse::<RootUrl>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        bad("", "begins with neither");
        bad("nfs://10.0.0.5", "no folder");
        bad("nfs://server/srv", "must be an IPv4 address");
        bad("nfs://10.0.0.5/srv?nolock", "other options");
        bad("nfs://10.0.0.5/srv?vers=2", "none of 3, 4");
        bad("nfs://10.0.0.5/a b", "letters, digits");
        bad("nfs://10.0.0.5/a,b", "? = ,");
        bad("nfs://10.0.0.5:x/a", "its port");
        bad("iscsi://10.0.0.5", "no target");
        bad("iscsi://10.0.0.5/disk", "not a name like");
        bad("iscsi://10.0.0.5/iqn.2026-11.x:d/16384", "its LUN");
        bad("iscsi://10.0.0.5/iqn.2026-11.x:d/0/1", "follows its LUN");
        bad("iscsi://10.0.0.5/iqn.2026-11.x:d/0?partition=0", "from 1 to 255");
        bad("iscsi://10.0.0.5/iqn.2026-11.x:d/0?vers=3", "other options");
        bad(&"n".repeat(513), "longer than 512");
    }

    #[test]
    fn a_machine_is_named_by_its_card() {
        assert_eq!(iscsi_initiator(Mac([0x52, 0x54, 0, 0, 0, 1])), "eui.525400fffe000001");
    }
}
