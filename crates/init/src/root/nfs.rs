//! Mounts a folder of a foreign server over NFS as the root. The kernel does all of NFS itself; here is how
//! it is asked, and what its answers mean.

use crate::console::Console;
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::net::tcp;
use crate::patience::Patience;
use crate::root::ROOT;
use crate::root::mount::{mount_at, mount_memory, mount_with_memory};
use initcfg::{BootConfig, NfsRoot, NfsVersion, RamSize};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const SILENT_AT_FIRST: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What one try of one version came to.
enum Trial {
    Mounted,
    OtherVersion,
    Refused(Errno),
}

/// Mounts, for as long as it takes; returns what is mounted, for people.
pub(crate) fn mount(
    root: &NfsRoot,
    config: &BootConfig,
    address: Ipv4Addr,
    modules: &Modules,
    console: &Console,
) -> Result<String, Failure> {
    // NFS 4 servers tell their clients apart by these, and take two of the same name for one that has
    // restarted. Before the mount, for the kernel asks only then.
    let _ = rustix::system::sethostname(config.host_name.as_bytes());
    let unique = format!("nfs4_unique_id={}", config.mac.compact());
    modules.load("nfs", &unique).map_err(|error| cannot_load("nfs", &error, modules))?;
    for module in modules_of(root.version) {
        modules.load(module, "").map_err(|error| cannot_load(module, &error, modules))?;
    }
    let mut patience = Patience::new(console, "attach");
    let started = Instant::now();
    let mut retry = RETRY_FIRST;
    let version = loop {
        let why = match try_all(root, address) {
            Ok(version) => break version,
            Err(why) => why,
        };
        if started.elapsed() > SILENT_AT_FIRST {
            patience.waiting(&why);
        }
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    };
    let device = device(root);
    let kind = format!("NFS {version} {device}");
    // Who may not write, be it for all of the export or for root only, can't run a system on it.
    let is_writable = config.ram.is_none() && rustix::fs::access(ROOT, Access::WRITE_OK).is_ok();
    if is_writable {
        return Ok(kind);
    }
    rustix::mount::unmount(ROOT, rustix::mount::UnmountFlags::empty())
        .map_err(|error| cannot_mount(&device, &error.into()))?;
    modules.load("overlay", "").map_err(|error| cannot_load("overlay", &error, modules))?;
    let options = options(root, version, address);
    if config.ram.is_none() {
        mount_memory(RamSize::default())?;
    }
    mount_with_memory(&device, file_system(version), &options)
        .map_err(|error| cannot_mount(&device, &error))?;
    Ok(format!("{kind}, read-only, with changes in memory"))
}

fn cannot_mount(device: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("can't mount {device}: {error}"),
        "look at the log of the NFS server; the machine restarts and tries again",
    )
}

fn modules_of(version: Option<NfsVersion>) -> &'static [&'static str] {
    match version {
        None => &["nfsv3", "nfsv4"],
        Some(NfsVersion::V3) => &["nfsv3"],
        Some(NfsVersion::V4 | NfsVersion::V4_1 | NfsVersion::V4_2) => &["nfsv4"],
    }
}

/// Versions to try, the best first, in the kernel's words.
const fn versions(wanted: Option<NfsVersion>) -> &'static [&'static str] {
    match wanted {
        None => &["4.2", "4.1", "4.0", "3"],
        Some(NfsVersion::V4) => &["4.2", "4.1", "4.0"],
        Some(NfsVersion::V4_2) => &["4.2"],
        Some(NfsVersion::V4_1) => &["4.1"],
        Some(NfsVersion::V3) => &["3"],
    }
}

/// Mounts with the first version that the server has; otherwise says what is wrong.
fn try_all(root: &NfsRoot, own_address: Ipv4Addr) -> Result<&'static str, String> {
    let server = root.server;
    // The kernel's own tries take minutes and end in one word for everything.
    TcpStream::connect_timeout(&SocketAddr::V4(server), CONNECT_TIMEOUT).map_err(|error| {
        format!("waiting for the NFS server {server}: {}", tcp::unreachable(&error, "NFS server"))
    })?;
    let mut refusal = None;
    for &version in versions(root.version) {
        match try_one(root, version, own_address) {
            Trial::Mounted => return Ok(version),
            Trial::OtherVersion => {}
            // A server that has NFS 4 may export the folder by NFS 3 only: the first answer is the better one.
            Trial::Refused(error) => refusal = refusal.or(Some((version, error))),
        }
    }
    let folder = &root.folder;
    Err(match refusal {
        Some((version, error)) => {
            format!("the NFS server {server} does not give {folder}: {}", in_words(error, version))
        }
        None => format!(
            "the NFS server {server} has none of the versions {}: set another one with vers=",
            versions(root.version).join(", ")
        ),
    })
}

fn try_one(root: &NfsRoot, version: &str, own_address: Ipv4Addr) -> Trial {
    let options = options(root, version, own_address);
    let flags = if root.is_read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    match mount_at(&device(root), ROOT, file_system(version), flags, &options) {
        Ok(()) => Trial::Mounted,
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PROTONOSUPPORT | Errno::INVAL) => Trial::OtherVersion,
            Some(error) => Trial::Refused(error),
            None => Trial::Refused(Errno::IO),
        },
    }
}

fn device(root: &NfsRoot) -> String {
    format!("{}:{}", root.server.ip(), root.folder)
}

fn file_system(version: &str) -> &'static str {
    if version == "3" { "nfs" } else { "nfs4" }
}

/// Mount options, as the kernel wants them from mount.nfs (nfs(5)). Requests are repeated for ever (`hard`),
/// so that an outage of the server only makes the machine wait.
fn options(root: &NfsRoot, version: &str, own_address: Ipv4Addr) -> String {
    let (address, port) = (root.server.ip(), root.server.port());
    let common = format!("vers={version},addr={address},port={port},proto=tcp,hard,sec=sys");
    if version != "3" {
        return format!("{common},clientaddr={own_address}");
    }
    // No lock daemon runs yet, and nobody else shares this root: locks need not leave the machine.
    let mount_port = root.mount_port.map_or_else(String::new, |port| format!(",mountport={port}"));
    format!("{common},nolock,mountproto=tcp,mountvers=3,mountaddr={address}{mount_port}")
}

/// What the errors of a mount mean.
fn in_words(error: Errno, version: &str) -> String {
    match error {
        Errno::ACCESS | Errno::PERM => {
            "it does not let this machine in: is it exported, and to this machine's address?"
                .to_owned()
        }
        Errno::NOENT | Errno::NOTDIR => "there is no such folder, or it is not exported".to_owned(),
        Errno::STALE => "the folder was replaced: export it again".to_owned(),
        Errno::CONNREFUSED | Errno::TIMEDOUT | Errno::HOSTUNREACH if version == "3" => {
            "its mount daemon does not answer: set its port with mountport=, or use NFS 4"
                .to_owned()
        }
        error => io::Error::from(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use initcfg::RootUrl;

    fn check(url: &str, version: &str, expected: &str) {
        let Ok(RootUrl::Nfs(root)) = url.parse() else { panic!("{url}") };
        assert_eq!(options(&root, version, Ipv4Addr::new(10, 0, 0, 9)), expected);
        assert_eq!(device(&root), "10.0.0.5:/srv");
    }

    #[test]
    fn the_kernel_is_told_what_mount_nfs_would_tell_it() {
        check(
            "nfs://10.0.0.5/srv",
            "4.2",
            "vers=4.2,addr=10.0.0.5,port=2049,proto=tcp,hard,sec=sys,clientaddr=10.0.0.9",
        );
        check(
            "nfs://10.0.0.5:2050/srv?mountport=9",
            "3",
            "vers=3,addr=10.0.0.5,port=2050,proto=tcp,hard,sec=sys,nolock,mountproto=tcp,mountvers=3,\
             mountaddr=10.0.0.5,mountport=9",
        );
    }

    #[test]
    fn versions_are_tried_from_the_newest() {
        assert_eq!(versions(None), ["4.2", "4.1", "4.0", "3"]);
        assert_eq!(versions(Some(NfsVersion::V4)), ["4.2", "4.1", "4.0"]);
        assert_eq!(file_system("3"), "nfs");
    }
}
