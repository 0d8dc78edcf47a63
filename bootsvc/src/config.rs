//! `bootlace.toml`.

mod error;
mod values;

pub(crate) use error::ConfigError;
pub(crate) use values::{Pool, check_local};

use error::show;
use initcfg::RamSize;
use model::KernelArgs;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use values::{default_lease, duration, local_mac, mtu, nbd_addresses, ram_size, vlan, yes};
use wire::Mac;

/// The daemon's settings, as written by the administrator.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The boot network.
    pub(crate) network: NetworkConfig,
    /// What machines are given.
    #[serde(default)]
    pub(crate) boot: BootSettings,
    /// The web page.
    #[serde(default)]
    pub(crate) web: WebConfig,
    /// The storage server.
    #[serde(default)]
    pub(crate) storage: StorageConfig,
}

/// `[network]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfig {
    /// Interface of the boot network; its first IPv4 address is the server's.
    pub(crate) interface: String,
    /// Addresses to lease, `FIRST-LAST`.
    pub(crate) pool: Pool,
    /// Default route of the machines.
    pub(crate) router: Option<Ipv4Addr>,
    /// Name servers of the machines.
    #[serde(default)]
    pub(crate) dns: Vec<Ipv4Addr>,
    /// DNS domain of the machines.
    pub(crate) domain: Option<String>,
    /// How large the machines' packets may be, in bytes; a machine whose network does not carry them takes
    /// 1500. Without this key as the driver sets it.
    #[serde(default, deserialize_with = "mtu")]
    pub(crate) mtu: Option<u16>,
    /// The VLAN that machines tag their packets with, once Linux runs.
    #[serde(default, deserialize_with = "vlan")]
    pub(crate) vlan: Option<u16>,
    /// Addresses that belong to one NIC for ever; they need not lie in the pool.
    #[serde(default, rename = "reserve")]
    pub(crate) reserved: BTreeMap<Mac, Ipv4Addr>,
    /// Whether machines take the address that their firmware was leased, or ask by DHCP once more.
    #[serde(default)]
    pub(crate) address_by: AddressBy,
    /// How long a lease lasts, like `12h`.
    #[serde(default = "default_lease", deserialize_with = "duration")]
    pub(crate) lease: Duration,
    /// Whether iPXE is told that there is no IPv6 router; otherwise it waits 16 s for one.
    #[serde(default = "yes")]
    pub(crate) answer_router_solicitations: bool,
}

/// How a machine's kernel comes to its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AddressBy {
    /// It is on its command line: no second round of DHCP, and boots go on without a DHCP server.
    #[default]
    Lease,
    /// It asks itself, and renews the lease while it runs.
    Dhcp,
}

/// `[boot]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BootSettings {
    /// Kernel parameters of all machines.
    pub(crate) kernel_args: KernelArgs,
    /// Whether machines get small initrds made for their hardware, from their second boot on.
    pub(crate) fitted_initrds: bool,
    /// How long a machine shows why it can't start before it starts again; 0: for ever.
    pub(crate) reboot_after_failure_seconds: u32,
    /// How much of their memory machines in write mode `ram` give to what they write: `50%`, `2048M`.
    #[serde(deserialize_with = "ram_size")]
    pub(crate) ram: RamSize,
    /// The static busybox of rescue shells; without this key `/bin/busybox` or `/usr/bin/busybox`.
    pub(crate) rescue_busybox: Option<PathBuf>,
}

impl Default for BootSettings {
    fn default() -> Self {
        Self {
            kernel_args: KernelArgs::default(),
            fitted_initrds: true,
            reboot_after_failure_seconds: initcfg::REBOOT_SECONDS,
            ram: RamSize::default(),
            rescue_busybox: None,
        }
    }
}

/// `[web]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebConfig {
    /// Where the pages are.
    pub(crate) listen: SocketAddr,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) }
    }
}

/// `[storage]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StorageConfig {
    /// TCP port of NBD.
    pub(crate) nbd_port: u16,
    /// Addresses of this server for NBD, the preferred first, at most 8; without this key the boot
    /// network's. Machines take the first that answers, and move over when it is lost.
    #[serde(deserialize_with = "nbd_addresses")]
    pub(crate) nbd_addresses: Vec<Ipv4Addr>,
    /// Interfaces for AoE; without this key the boot network's.
    pub(crate) aoe_interfaces: Option<Vec<String>>,
    /// Certificate and key with which NBD clients may use TLS; without this key none can.
    pub(crate) nbd_tls: Option<NbdTls>,
    /// MAC address from which AoE is served, a locally administered one; without this key each
    /// interface's own. A server that takes this one's place takes it over.
    #[serde(deserialize_with = "local_mac")]
    pub(crate) aoe_mac: Option<Mac>,
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
        }
    }
}

/// `nbd_tls` in `[storage]`: files in PEM format.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "NbdTlsText")]
pub(crate) struct NbdTls {
    /// The server's certificate, and those of intermediate authorities behind it.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// Authorities of which clients that use TLS must show a certificate.
    pub(crate) client_ca: Option<PathBuf>,
    /// The authority of `certificate`: machines attach their NBD roots over TLS, and know the server by
    /// it. The certificate must name the server's IP addresses.
    pub(crate) machine_ca: Option<PathBuf>,
    /// Clients without TLS are refused.
    pub(crate) require: bool,
}

/// As it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NbdTlsText {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    machine_ca: Option<PathBuf>,
    #[serde(default)]
    require: bool,
}

impl TryFrom<NbdTlsText> for NbdTls {
    type Error = &'static str;

    fn try_from(text: NbdTlsText) -> Result<Self, Self::Error> {
        let NbdTlsText { certificate, key, client_ca, machine_ca, require } = text;
        match &machine_ca {
            None if require => {
                Err("with `require` machines would not start, unless they use TLS, too: give \
                 `machine_ca`, or leave `require` out")
            }
            Some(_) if client_ca.is_some() => Err(
                "machines have no certificates of their own: leave out `client_ca` or `machine_ca`",
            ),
            _ => Ok(Self { certificate, key, client_ca, machine_ca, require }),
        }
    }
}

impl NbdTls {
    /// For the storage server.
    pub(crate) fn files(&self) -> storage::TlsConfig {
        storage::TlsConfig {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            is_required: self.require,
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`ConfigError`]; unknown keys are errors and name the nearest right one.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigError::Missing { path: path.into() })
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.into(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|error| ConfigError::Wrong(show(path, text, error.span(), error.message())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(text: &str, words: &[&str]) {
        let error = Config::parse(Path::new("/etc/bootlace/bootlace.toml"), text).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is not in:\n{error}");
        }
    }

    const GOOD: &str = "[network]\ninterface = \"br0\"\npool = \"10.77.0.100-10.77.0.199\"\n";

    #[test]
    fn two_lines_are_a_configuration() {
        let config = Config::parse(Path::new("x"), GOOD).unwrap();
        assert_eq!(config.network.lease, Duration::from_secs(43_200));
        assert_eq!(config.web.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.storage.nbd_port, 10809);
        assert_eq!(config.network.address_by, AddressBy::Lease);
        let config = Config::parse(Path::new("x"), &format!("{GOOD}address_by = \"dhcp\"\n"));
        assert_eq!(config.unwrap().network.address_by, AddressBy::Dhcp);
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_line_and_the_nearest_right_one() {
        refuse(
            "[network]\ninterfaec = \"br0\"\n",
            &["bootlace.toml, line 2", "2 | interfaec", "did you mean `interface`?"],
        );
        refuse(&format!("{GOOD}\n[wbe]\nlisten = \"\"\n"), &["line 5", "did you mean `web`?"]);
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        refuse(&GOOD.replace("-10", " to 10"), &["line 3", "write FIRST-LAST"]);
        refuse(&GOOD.replace("100-", "250-"), &["write FIRST-LAST"]);
        refuse(&format!("{GOOD}lease = \"soon\"\n"), &["line 4", "like \"12h\""]);
        refuse(
            &format!("{GOOD}[boot]\nkernel_args = \"bootlace.boot=1\"\n"),
            &["set by the boot server"],
        );
        refuse(&format!("{GOOD}mtu = 9001\n"), &["line 4", "write 1280 to 9000"]);
        refuse(
            &format!("{GOOD}vlan = 0\n"),
            &["line 4", "0 is no number of a VLAN: write 1 to 4094"],
        );
        refuse(&format!("{GOOD}[storage]\nnbd_addresses = []\n"), &["line 5", "write 1 to 8"]);
        refuse(&format!("{GOOD}[boot]\nram = \"5G\"\n"), &["line 5", "like 2048M"]);
        refuse(
            &format!("{GOOD}[storage]\naoe_mac = \"00:55:00:00:00:01\"\n"),
            &["line 5", "use one that begins with 02"],
        );
        let tls = "nbd_tls = { certificate = \"c.pem\", key = \"k.pem\", require = true }\n";
        refuse(&format!("{GOOD}[storage]\n{tls}"), &["line 5", "leave `require` out"]);
        let tls = tls.replace("require = true", "machine_ca = \"a.pem\", client_ca = \"a.pem\"");
        refuse(&format!("{GOOD}[storage]\n{tls}"), &["no certificates of their own"]);
        refuse("[network\n", &["line 1"]);
        refuse("", &["network"]);
    }
}
