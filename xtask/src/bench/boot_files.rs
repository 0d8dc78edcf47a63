//! Servers of boot files, each on a LAN of its own, with the same files.

use crate::say;
use anyhow::Result;
use fakeclient::room::Room;
use lab::{Client, Daemon, Lan, Site};
use std::net::Ipv4Addr;
use std::path::Path;
use wire::Mac;

/// Addresses for all, in place of the lab's hundred.
const POOL: &str = "10.77.0.10-10.77.0.250";

/// Where a file is, at each server, without a slash before it.
pub(super) fn path(name: &str) -> String {
    format!("boot/{name}/1/vmlinuz")
}

/// A server on a LAN of its own, and the host of all its clients, with an address for each.
pub(super) struct Place {
    client: Client,
    addresses: Vec<Ipv4Addr>,
    servers: Vec<Daemon>,
    _site: Option<Site>,
    _lan: Option<Lan>,
    _folder: tempfile::TempDir,
}

impl Place {
    /// Bootlace, with files of these names and sizes; its clients are machines.
    pub(super) fn of_bootlace(
        binary: &Path,
        files: &[(&str, u64)],
        n_clients: usize,
    ) -> Result<Self> {
        let site = Site::builder().binary(binary).pool(POOL).create(Lan::lay("files")?)?;
        for (name, n_bytes) in files {
            let version = site.root().join("var/lib/bootlace/images").join(name).join("1");
            std::fs::create_dir_all(&version)?;
            std::fs::write(version.join("image.toml"), about(name))?;
            std::fs::write(version.join("vmlinuz"), content(*n_bytes))?;
            std::fs::File::create(version.join("disk.raw"))?.set_len(4096)?;
        }
        let servers = vec![site.storage()?, site.serve()?];
        let client = site.lan().add_client("files", "52:54:00:00:02:01")?;
        // Hosts without a lease would be answered seldom.
        say(&format!("adding {n_clients} machines"));
        let macs: Vec<Mac> = (0..n_clients).map(|n| Mac([0x52, 0x54, 0, 0, 1, n as u8])).collect();
        for (n, mac) in macs.iter().enumerate() {
            site.run(&["machine", "set", &format!("pc-{n}"), "--mac", &mac.to_string()])?;
        }
        let placed = client.netns().inside(|| {
            let room = Room::open("eth0", macs)?;
            let placed = room.discover()?;
            room.request(&placed)?;
            Ok(placed)
        })?;
        let addresses = placed.iter().map(|pc| pc.address).collect();
        let folder = tempfile::tempdir()?;
        Self { client, addresses, servers, _site: Some(site), _lan: None, _folder: folder }.placed()
    }

    /// What `start` starts on its LAN, for the files of a folder and with a log.
    pub(super) fn of_another(
        files: &[(&str, u64)],
        n_clients: usize,
        start: impl FnOnce(&Lan, &Path, &Path) -> Result<Daemon>,
    ) -> Result<Self> {
        let lan = Lan::lay("files-peer")?;
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("files");
        for (name, n_bytes) in files {
            let path = root.join(path(name));
            std::fs::create_dir_all(path.parent().unwrap_or(&root))?;
            std::fs::write(path, content(*n_bytes))?;
        }
        let servers = vec![start(&lan, &root, &folder.path().join("log"))?];
        let client = lan.add_client("files-peer", "52:54:00:00:02:02")?;
        let addresses = (10..).take(n_clients).map(|host| Ipv4Addr::new(10, 77, 0, host)).collect();
        Self { client, addresses, servers, _site: None, _lan: Some(lan), _folder: folder }.placed()
    }

    /// Gives the host all addresses.
    fn placed(self) -> Result<Self> {
        for address in &self.addresses {
            self.client.netns().ip(&format!("address add {address}/24 dev eth0"))?;
        }
        Ok(self)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// The server of the files.
    pub(super) fn server(&self) -> u32 {
        self.servers.last().map_or(0, Daemon::id)
    }

    pub(super) fn stop(self) -> Result<()> {
        drop(self.client);
        self.servers.into_iter().rev().try_for_each(Daemon::stop)
    }
}

/// What an image version says of itself.
fn about(name: &str) -> String {
    format!(
        "image = \"{name}\"\nversion = 1\ndigest = \"00\"\nsize_bytes = 4096\n\
         file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
    )
}

/// Bytes of which no two blocks are the same.
fn content(n_bytes: u64) -> Vec<u8> {
    (0..n_bytes / 8).flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()).collect()
}
