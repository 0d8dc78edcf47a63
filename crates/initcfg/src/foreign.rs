//! Roots on servers that are not ours: a folder over NFS, a disk over iSCSI, NBD or AoE. One text names them
//! everywhere, from the administrator's keyboard to the kernel command line.

use crate::{LogicalVolumeName, RootKind};
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

/// TCP port of NBD.
const NBD_PORT: u16 = 10809;

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
    /// `nbd://ADDRESS[:PORT]/[EXPORT][?OPTION,OPTION…]`
    Nbd(NbdRoot),
    /// `aoe://SHELF.SLOT[?OPTION,OPTION…]`
    Aoe(AoeRoot),
}

impl RootUrl {
    /// How the root reaches the machine.
    pub const fn kind(&self) -> RootKind {
        match self {
            Self::Nfs(_) => RootKind::Nfs,
            Self::Iscsi(_) => RootKind::Iscsi,
            Self::Nbd(_) => RootKind::OtherNbd,
            Self::Aoe(_) => RootKind::OtherAoe,
        }
    }

    /// Whether what the machine writes stays in its memory.
    pub const fn is_read_only(&self) -> bool {
        match self {
            Self::Nfs(root) => root.is_read_only,
            Self::Iscsi(root) => root.on_disk.is_read_only,
            Self::Nbd(root) => root.on_disk.is_read_only,
            Self::Aoe(root) => root.on_disk.is_read_only,
        }
    }

    /// Where the server listens; over AoE it has no address.
    pub const fn server(&self) -> Option<SocketAddrV4> {
        match self {
            Self::Nfs(root) => Some(root.server),
            Self::Iscsi(root) => Some(root.portal),
            Self::Nbd(root) => Some(root.server),
            Self::Aoe(_) => None,
        }
    }

    /// Where the root is on its disk; `None`: it is a folder.
    pub const fn on_disk(&self) -> Option<&OnDisk> {
        match self {
            Self::Nfs(_) => None,
            Self::Iscsi(root) => Some(&root.on_disk),
            Self::Nbd(root) => Some(&root.on_disk),
            Self::Aoe(root) => Some(&root.on_disk),
        }
    }
}

/// Where a root is on a disk, and what becomes of writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// `partition=`: the one with the root file system. `None`: it fills the whole disk.
    pub partition: Option<u8>,
    /// `lv=`: the logical volume with the root file system, wherever on the disk its volume group is.
    pub logical_volume: Option<LogicalVolumeName>,
    /// `ro`: nothing is written to it; what the machine writes stays in its memory.
    pub is_read_only: bool,
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
    /// Where the root is on it.
    pub on_disk: OnDisk,
}

/// A disk over NBD of a server that wants no proof, such as nbd-server, nbdkit or qemu-nbd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdRoot {
    /// Where the server listens.
    pub server: SocketAddrV4,
    /// Name of the export; empty is the server's default one.
    pub export: String,
    /// Where the root is on it.
    pub on_disk: OnDisk,
}

/// A disk over AoE of any target, such as vblade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AoeRoot {
    /// Major address, 0 to 0xfffe.
    pub shelf: u16,
    /// Minor address, 0 to 0xfe.
    pub slot: u8,
    /// Where the root is on it.
    pub on_disk: OnDisk,
}

/// The text is no [`RootUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the address of a root: {problem}; use nfs://ADDRESS/FOLDER[?vers=3,ro], \
     iscsi://ADDRESS/TARGET/LUN[?partition=1,ro], nbd://ADDRESS/EXPORT or aoe://SHELF.SLOT, both with the options of iSCSI"
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
    if let Some(rest) = text.strip_prefix("iscsi://") {
        return parse_iscsi(rest).map(RootUrl::Iscsi);
    }
    if let Some(rest) = text.strip_prefix("nbd://") {
        return parse_nbd(rest).map(RootUrl::Nbd);
    }
    let rest = text.strip_prefix("aoe://");
    let rest = rest.ok_or("it begins with none of nfs://, iscsi://, nbd:// and aoe://")?;
    parse_aoe(rest).map(RootUrl::Aoe)
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
    Ok(IscsiRoot { portal, target: target.to_owned(), lun, on_disk: parse_on_disk(options)? })
}

fn parse_nbd(text: &str) -> Result<NbdRoot, &'static str> {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let problem = "it has no export: a / alone stands for the server's default one";
    let (server, export) = place.split_once('/').ok_or(problem)?;
    Ok(NbdRoot {
        server: parse_server(server, NBD_PORT)?,
        export: export.to_owned(),
        on_disk: parse_on_disk(options)?,
    })
}

fn parse_aoe(text: &str) -> Result<AoeRoot, &'static str> {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let (shelf, slot) = place.split_once('.').ok_or("it has no SHELF.SLOT such as 1.7")?;
    // The last of each is for all.
    let shelf = shelf.parse().ok().filter(|&shelf| shelf != u16::MAX);
    let slot = slot.parse().ok().filter(|&slot| slot != u8::MAX);
    Ok(AoeRoot {
        shelf: shelf.ok_or("its shelf is not a number from 0 to 65534")?,
        slot: slot.ok_or("its slot is not a number from 0 to 254")?,
        on_disk: parse_on_disk(options)?,
    })
}

fn parse_on_disk(options: &str) -> Result<OnDisk, &'static str> {
    let mut found = OnDisk::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("partition", number)) => {
                let number = number.parse().ok().filter(|&number| number > 0);
                found.partition =
                    Some(number.ok_or("its partition is not a number from 1 to 255")?);
            }
            Some(("lv", name)) => {
                let name = name.parse().map_err(|_| "its lv is not GROUP/NAME")?;
                found.logical_volume = Some(name);
            }
            None if option == "ro" => found.is_read_only = true,
            _ => return Err("it has other options than partition, lv and ro"),
        }
    }
    match (&found.partition, &found.logical_volume) {
        (Some(_), Some(_)) => {
            Err("it has both partition and lv: the volume is found wherever it is")
        }
        _ => Ok(found),
    }
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
            Self::Nbd(root) => root.fmt(f),
            Self::Aoe(root) => root.fmt(f),
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
        write_on_disk(f, &self.on_disk)
    }
}

impl fmt::Display for NbdRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nbd://")?;
        write_server(f, self.server, NBD_PORT)?;
        write!(f, "/{}", self.export)?;
        write_on_disk(f, &self.on_disk)
    }
}

impl fmt::Display for AoeRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aoe://{}.{}", self.shelf, self.slot)?;
        write_on_disk(f, &self.on_disk)
    }
}

fn write_on_disk(f: &mut fmt::Formatter<'_>, on_disk: &OnDisk) -> fmt::Result {
    let partition = on_disk.partition.map(|number| format!("partition={number}"));
    let volume = on_disk.logical_volume.as_ref().map(|name| format!("lv={name}"));
    write_options(f, [partition, volume, read_only(on_disk.is_read_only)])
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
        good("iscsi://10.0.0.5/iqn.x?lv=rhel/root", "iscsi://10.0.0.5/iqn.x/0?lv=rhel/root");
        good("nbd://10.0.0.5:10809/", "nbd://10.0.0.5/");
        good("nbd://10.0.0.5:10810/vg0/f-40?ro", "nbd://10.0.0.5:10810/vg0/f-40?ro");
        good("aoe://1.7", "aoe://1.7");
        good("aoe://0.0?ro,lv=vg/lv", "aoe://0.0?lv=vg/lv,ro");
    }

    fn bad(text: &str, problem: &str) {
        let error = text.parse::<RootUrl>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        bad("", "begins with none of");
        bad("nbd:10.0.0.5:10809:pc-1", "begins with none of");
        bad("nbd://10.0.0.5", "no export");
        bad("nbd://disks/fedora", "must be an IPv4 address");
        bad("nbd://10.0.0.5/a?tls", "other options");
        bad("aoe://1", "no SHELF.SLOT");
        bad("aoe://e1.7", "its shelf");
        bad("aoe://65535.0", "from 0 to 65534");
        bad("aoe://1.255", "from 0 to 254");
        bad("aoe://1.7?lv=root", "GROUP/NAME");
        bad("aoe://1.7?lv=vg/root,partition=2", "both partition and lv");
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
