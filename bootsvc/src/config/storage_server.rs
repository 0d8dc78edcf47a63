//! `[storage]` in `bootlace.toml`.

use super::NbdTls;
use super::values::{local_mac, nbd_addresses, nights, port, size};
use std::net::Ipv4Addr;
use wire::Mac;

/// `[storage]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StorageConfig {
    /// The TCP port of NBD.
    ///
    /// - Value: a port number
    /// - Default: `nbd_port = 10809`
    /// - Example: `nbd_port = 10810`
    #[serde(deserialize_with = "port")]
    pub(crate) nbd_port: u16,
    /// The addresses of this server for NBD. Machines take the first that answers, and move over to another when
    /// the connection is lost.
    ///
    /// - Value: a list of 1 to 8 IPv4 addresses, the preferred one first
    /// - Default: the server's address in the storage network (`storage_network`), if there is one, and that on the boot network
    /// - Example: `nbd_addresses = ["10.0.5.1", "10.0.6.1"]`
    #[serde(deserialize_with = "nbd_addresses")]
    pub(crate) nbd_addresses: Vec<Ipv4Addr>,
    /// The interfaces on which AoE is served. With an empty list it is not served at all.
    ///
    /// - Value: a list of interface names
    /// - Default: the interfaces of the boot network and of the storage network
    /// - Example: `aoe_interfaces = ["enp3s0", "enp4s0"]`
    pub(crate) aoe_interfaces: Option<Vec<String>>,
    /// The certificate and the key with which NBD clients may use TLS.
    ///
    /// - Value: a table with the keys below
    /// - Default: none; nobody can use TLS
    /// - Example: `nbd_tls = { certificate = "/etc/bootlace/cert.pem", key = "/etc/bootlace/key.pem" }`
    pub(crate) nbd_tls: Option<NbdTls>,
    /// The MAC address from which AoE is served. A server that takes this one's place takes the address over, and
    /// machines notice nothing.
    ///
    /// - Value: a locally administered MAC address: one that begins with `02`, for example
    /// - Default: each interface's own
    /// - Example: `aoe_mac = "02:00:00:00:01:00"`
    #[serde(deserialize_with = "local_mac")]
    pub(crate) aoe_mac: Option<Mac>,
    /// How much room what one machine writes may take on the storage server. When it takes as much, the machine's
    /// writes wait. A change needs a restart of the storage server only, which running machines survive.
    ///
    /// - Value: `64M` or more, in MiB, GiB or TiB
    /// - Default: none; as much as its disk is large
    /// - Example: `layer_max = "20G"`
    #[serde(deserialize_with = "size")]
    pub(crate) layer_max: Option<u64>,
    /// Of how many nights snapshots are kept of the disks of machines in write mode `persistent`. One is made each night in which
    /// something was written since the last one; what people make is kept until they delete it.
    ///
    /// - Value: 0 to 30; 0 makes none at night
    /// - Default: 7
    /// - Example: `snapshots_kept = 14`
    #[serde(deserialize_with = "nights")]
    pub(crate) snapshots_kept: u32,
}

impl StorageConfig {
    /// By whom machines know the storage server; `None` if they attach NBD roots without TLS.
    ///
    /// # Errors
    /// The file is of no use.
    pub(crate) fn machine_ca(&self) -> Result<Option<Vec<u8>>, storage::TlsError> {
        let path = self.nbd_tls.as_ref().and_then(|tls| tls.machine_ca.as_deref());
        path.map(storage::read_authorities).transpose()
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            nbd_port: 10809,
            nbd_addresses: Vec::new(),
            aoe_interfaces: None,
            nbd_tls: None,
            aoe_mac: None,
            layer_max: None,
            snapshots_kept: 7,
        }
    }
}
