//! `bootlace.toml`.

mod alerts;
mod error;
mod ldap;
mod nbd_tls;
mod networks;
mod storage_server;
/// Where a file is no UTF-8, such as one with umlauts of an old editor, or one of Windows that is UTF-16.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> ConfigError {
    let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    ConfigError::Wrong(format!(
        "{}, line {line}: this is no UTF-8: have your editor save the file as UTF-8",
        path.display()
    ))
}

#[cfg(test)]
mod reference;
mod values;

pub(crate) use alerts::{AlertsConfig, MailConfig, MailTls, WebhookConfig};
pub(crate) use error::ConfigError;
pub(crate) use ldap::LdapConfig;
pub(crate) use nbd_tls::NbdTls;
pub(crate) use networks::NetworkConfigs;
pub(crate) use storage_server::StorageConfig;
pub(crate) use values::{Pool, Subnet, check_local};

use error::show;
use initcfg::{RamSize, ZramPercent};
use model::{KernelArgs, LoaderFamily, SignedLoader, Strangers};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use values::{
    by_mac, choice, default_lease, domain, duration, menu_password, mtu, ram_size, reserved,
    routes, vlan, web_names, yes, zram,
};
use wire::{Mac, Route};

// The doc comments of the keys below are the page `docs/configuration.md`: what a key does, and in a list its
// value, its default and an example. The test in `config/reference.rs` compares them with the page and with
// what is read.

/// The daemon's settings, as written by the administrator.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The boot network: which interface it is on, and what machines are told about it. The only section that
    /// must be there. A site with several networks has one `[[network]]` for each, with two brackets; what holds for
    /// the whole site stands in the first. [How to serve several networks](how-to/several-networks.md).
    pub(crate) network: NetworkConfigs,
    /// What machines are given when they boot.
    #[serde(default)]
    pub(crate) boot: BootSettings,
    /// The web page and the JSON API.
    #[serde(default)]
    pub(crate) web: WebConfig,
    /// The storage server: how machines reach their disks.
    #[serde(default)]
    pub(crate) storage: StorageConfig,
    /// What the servers may do on their host.
    #[serde(default)]
    pub(crate) service: ServiceConfig,
    /// A directory whose people are let in beside those who have an account here.
    /// [How that is set up](how-to/directory.md).
    #[serde(default)]
    pub(crate) ldap: Option<LdapConfig>,
    /// Who is told of [findings](findings.md) without looking at a page, by mail or by a webhook.
    /// [How that is set up](how-to/alerts.md).
    #[serde(default)]
    pub(crate) alerts: AlertsConfig,
}

/// `[network]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfig {
    /// The interface of the boot network. Its first IPv4 address is the boot server's, so it needs one before
    /// Bootlace starts.
    ///
    /// - Value: the name of an interface, as `ip link` shows it
    /// - Required
    /// - Example: `interface = "enp3s0"`
    pub(crate) interface: String,
    /// The network of PCs that are not on the interface itself but behind a relay, such as a router or a switch with
    /// `ip helper-address`. The relay reaches the boot server at the interface's address, and so do the PCs; `router`
    /// must be set.
    ///
    /// - Value: a network in CIDR notation
    /// - Default: none; the PCs are on the interface, in the network of its first address
    /// - Example: `subnet = "10.20.0.0/16"`
    #[serde(default)]
    pub(crate) subnet: Option<Subnet>,
    /// Who gives PCs their addresses. With `dhcp` Bootlace does, and must be alone in that. With `proxy` another DHCP server does,
    /// and Bootlace beside it only tells PCs in their firmware where their loader is; nothing need be changed on the other one.
    /// With `external` Bootlace answers no DHCP at all, and the other server is told to name the loader (`bootlace net recipe`
    /// prints how). `auto` is `dhcp`, and Bootlace does not start beside another server; with `dhcp` it starts and tells of it.
    /// `bootlace setup` writes what fits. [All about it](how-to/another-dhcp-server.md).
    ///
    /// - Value: `auto`, `dhcp`, `proxy` or `external`
    /// - Default: `mode = "auto"`
    /// - Example: `mode = "proxy"`
    #[serde(default)]
    pub(crate) mode: Mode,
    /// The addresses that Bootlace leases. They must lie in the interface's network, and must not include the
    /// server's own address. Where another server gives the addresses (`mode`) it means nothing, and may be missing.
    ///
    /// - Value: `FIRST-LAST`, both included
    /// - Required
    /// - Example: `pool = "10.0.5.100-10.0.5.199"`
    #[serde(default)]
    pub(crate) pool: Option<Pool>,
    /// The default route of the machines.
    ///
    /// - Value: an IPv4 address
    /// - Default: none; machines reach their own network only
    /// - Example: `router = "10.0.5.254"`
    pub(crate) router: Option<Ipv4Addr>,
    /// Further routes of the machines, and of other clients that ask for them (DHCP option 121): networks that they reach by
    /// another router than `router`.
    ///
    /// - Value: a table, networks to the addresses of routers; at most 20
    /// - Default: none
    /// - Example: `routes = { "10.9.0.0/16" = "10.0.5.253" }`
    #[serde(default, deserialize_with = "routes")]
    pub(crate) routes: Vec<Route>,
    /// The name servers of the machines.
    ///
    /// - Value: a list of at most 8 IPv4 addresses, the preferred one first
    /// - Default: `dns = []`
    /// - Example: `dns = ["10.0.5.1", "9.9.9.9"]`
    #[serde(default)]
    pub(crate) dns: Vec<Ipv4Addr>,
    /// The time servers (NTP) of the machines, and of other clients that ask for them (DHCP option 42). In machines
    /// systemd-timesyncd and chrony use them.
    ///
    /// - Value: a list of at most 8 IPv4 addresses, the preferred one first
    /// - Default: `ntp = []`; machines ask whom their image names
    /// - Example: `ntp = ["10.0.5.1"]`
    #[serde(default)]
    pub(crate) ntp: Vec<Ipv4Addr>,
    /// The DNS domain of the machines.
    ///
    /// - Value: a domain name
    /// - Default: none
    /// - Example: `domain = "lab.example"`
    #[serde(default, deserialize_with = "domain")]
    pub(crate) domain: Option<String>,
    /// How large the machines' packets may be. Before a machine attaches its root it proves, with a ping of that
    /// size, that the network carries such packets to its storage server. If it does not, the machine takes 1500
    /// and says so. Less than 1500 also bounds the blocks that firmware and loaders get by TFTP, for networks behind
    /// [a tunnel, a VPN or PPPoE](how-to/large-packets.md#a-way-that-carries-less).
    ///
    /// - Value: bytes, 1280 to 9000
    /// - Default: what the machine's driver sets, usually 1500
    /// - Example: `mtu = 9000`
    #[serde(default, deserialize_with = "mtu")]
    pub(crate) mtu: Option<u16>,
    /// The VLAN that machines tag their packets with, once Linux runs; the running system keeps it. Firmware and
    /// GRUB know nothing of it. The server needs no setting here: its interface must be in that VLAN. Machines
    /// then always get the initrd for all machines.
    ///
    /// - Value: the number of a VLAN, 1 to 4094
    /// - Default: none; packets have no tag
    /// - Example: `vlan = 12`
    #[serde(default, deserialize_with = "vlan")]
    pub(crate) vlan: Option<u16>,
    /// A network of its own over which the machines have their disks, by another of their network cards. The server must
    /// have an address in it; machines get theirs from nobody, but have the same number in it as in the network that they boot
    /// from. A machine whose card does not lead there has its disk over the network that it boots from, which is a finding.
    /// [All about it](how-to/storage-network.md).
    ///
    /// - Value: a network in CIDR notation, at least as large as the one that the machines boot from
    /// - Default: none; disks come over the network that machines boot from
    /// - Example: `storage_network = "10.20.0.0/24"`
    #[serde(default)]
    pub(crate) storage_network: Option<Subnet>,
    /// How large the machines' packets may be in the storage network. As with `mtu`, a machine takes 1500 if larger ones don't get
    /// through.
    ///
    /// - Value: bytes, 1280 to 9000
    /// - Default: what the machine's driver sets, usually 1500
    /// - Example: `storage_mtu = 9000`
    #[serde(default, deserialize_with = "mtu")]
    pub(crate) storage_mtu: Option<u16>,
    /// Addresses that belong to one network card for ever. They need not lie in the pool. `bootlace lease fix` does the same without a
    /// restart; [what stands here counts more](how-to/addresses.md#fix-an-address).
    ///
    /// - Value: a table of MAC addresses, each with an IPv4 address
    /// - Default: `reserve = {}`
    /// - Example: `reserve = { "52:54:00:12:34:56" = "10.0.5.20" }`
    #[serde(default, rename = "reserve", deserialize_with = "reserved")]
    pub(crate) reserved: BTreeMap<Mac, Ipv4Addr>,
    /// How a machine's kernel gets its address. With `lease` it takes the one that its firmware was leased from
    /// the kernel command line, without a second round of DHCP. With `dhcp` it asks by DHCP itself, and renews the
    /// lease while it runs; so it does in any case if another server gives the addresses (`mode`).
    ///
    /// - Value: `lease` or `dhcp`
    /// - Default: `address_by = "lease"`
    /// - Example: `address_by = "dhcp"`
    #[serde(default)]
    pub(crate) address_by: AddressBy,
    /// Whether Bootlace gives addresses though another DHCP server answers on this network. PCs then take an address
    /// and a loader from whichever is faster: set it only if the other one leaves the machines alone. Without it,
    /// Bootlace does not start beside another one, and tells of one that appears later.
    ///
    /// - Value: `true` or `false`
    /// - Default: `beside_others = false`
    /// - Example: `beside_others = true`
    #[serde(default)]
    pub(crate) beside_others: bool,
    /// Whether Bootlace gives addresses to devices that don't boot from it, too, such as phones and printers. Without it they hear nothing
    /// of it: only PCs in their firmware, machines, and cards with an address in `reserve` get one, and what firmware has started.
    ///
    /// - Value: `true` or `false`
    /// - Default: `serve_everyone = false`
    /// - Example: `serve_everyone = true`
    #[serde(default)]
    pub(crate) serve_everyone: bool,
    /// How long a machine has its address until it must ask again. A PC that is no machine has it for 5 minutes, and
    /// for as long as it waits to be adopted; all of those together get half of the pool at most, so that machines
    /// always find an address.
    ///
    /// - Value: a time such as `30m`, `12h` or `7d`, from `1m` to `365d`
    /// - Default: `lease = "12h"`
    /// - Example: `lease = "2h"`
    #[serde(default = "default_lease", deserialize_with = "duration")]
    pub(crate) lease: Duration,
    /// Whether PCs in their firmware are told that there is no IPv6 router. Those with iPXE, which every virtual
    /// machine has, otherwise wait 16 seconds for one. Turn it off where switches report such messages.
    ///
    /// - Value: `true` or `false`
    /// - Default: `answer_router_solicitations = true`
    /// - Example: `answer_router_solicitations = false`
    #[serde(default = "yes")]
    pub(crate) answer_router_solicitations: bool,
}

/// Who gives PCs their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// We do, and don't start beside somebody else.
    #[default]
    Auto,
    /// We do.
    Dhcp,
    /// Somebody else does, and we name the loader.
    Proxy,
    /// Somebody else does both.
    External,
}

impl Mode {
    /// Whether it is us.
    pub(crate) fn leases(self) -> bool {
        matches!(self, Self::Auto | Self::Dhcp)
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dhcp => "dhcp",
            Self::Proxy => "proxy",
            Self::External => "external",
        }
    }
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
    /// Kernel parameters of all machines. A machine's own come after them.
    ///
    /// - Value: at most 1024 printable ASCII characters; no parameter may begin with `bootlace.`
    /// - Default: `kernel_args = ""`
    /// - Example: `kernel_args = "quiet console=tty0 console=ttyS0,115200"`
    pub(crate) kernel_args: KernelArgs,
    /// Whether machines get small initrds made for their hardware, from their second boot on. They load faster; if
    /// one fails, the machine gets the initrd for all machines again.
    ///
    /// - Value: `true` or `false`
    /// - Default: `fitted_initrds = true`
    /// - Example: `fitted_initrds = false`
    pub(crate) fitted_initrds: bool,
    /// How long a machine that can't start shows the reason before it restarts. With 0 it shows it until somebody
    /// switches the machine off.
    ///
    /// - Value: seconds
    /// - Default: `reboot_after_failure_seconds = 60`
    /// - Example: `reboot_after_failure_seconds = 0`
    pub(crate) reboot_after_failure_seconds: u32,
    /// How much of its memory a machine gives to what it writes, in write mode `ram` and with a read-only root on
    /// another server.
    ///
    /// - Value: a part of the memory, `1%` to `90%`, or MiB, from `16M`
    /// - Default: `ram = "50%"`
    /// - Example: `ram = "2048M"`
    #[serde(deserialize_with = "ram_size")]
    pub(crate) ram: RamSize,
    /// How much [compressed swap space](how-to/further-disks.md#swap-space) machines have in their own memory, which are given no more
    /// than 4 GiB of it and whose image does not see to that itself. What it holds takes a half to a third of its size. With 0 they
    /// have none.
    ///
    /// - Value: percent of the memory, 0 to 200
    /// - Default: `zram = 100`
    /// - Example: `zram = 0`
    #[serde(deserialize_with = "zram")]
    pub(crate) zram: Option<ZramPercent>,
    /// The busybox of rescue shells. It must be static.
    ///
    /// - Value: the path of a file
    /// - Default: `/bin/busybox` or `/usr/bin/busybox`, whichever is there
    /// - Example: `rescue_busybox = "/opt/busybox-static"`
    pub(crate) rescue_busybox: Option<PathBuf>,
    /// What PCs do that are [no machines](how-to/boot-menus.md#pcs-that-are-no-machines) and boot from the network. With `wait` they
    /// wait in the loader until somebody adopts them; with `local-disk` they start from their own disk after ten seconds, unless
    /// somebody at the PC presses Esc; with `nothing` they get no loader.
    ///
    /// - Value: `wait`, `local-disk` or `nothing`
    /// - Default: `wait`, and where another server gives the addresses (`mode`), `local-disk`
    /// - Example: `strangers = "nothing"`
    pub(crate) strangers: Option<Strangers>,
    /// What opens the locked lines of [menus](how-to/boot-menus.md). The user's name is `admin`. PCs get this text without a
    /// proof of who they are, so anybody in their network can try to guess the password from it: take a long one, and one that opens
    /// nothing else.
    ///
    /// - Value: a line that the command `grub-mkpasswd-pbkdf2` prints
    /// - Default: there is none, and no menu can have locked lines
    /// - Example: `menu_password = "grub.pbkdf2.sha512.10000.5A82.C0FF"`
    #[serde(deserialize_with = "menu_password")]
    pub(crate) menu_password: Option<String>,
    /// Which loaders PCs get: GRUB, Bootlace's own or the distribution's, or [iPXE](how-to/ipxe.md), with scripts of Bootlace's. Whatever
    /// is set, iPXE is refused by firmware whose Secure Boot is on, so PCs of which that is known get the signed GRUB all the same. In the
    /// mode `external` the other server names the loader.
    ///
    /// - Value: `grub` or `ipxe`
    /// - Default: `loader = "grub"`
    /// - Example: `loader = "ipxe"`
    #[serde(deserialize_with = "choice")]
    pub(crate) loader: LoaderFamily,
    /// The same for single PCs, such as those whose firmware GRUB does not get on with.
    ///
    /// - Value: MAC addresses, each with `grub` or `ipxe`
    /// - Default: `loader_of = {}`
    /// - Example: `loader_of = { "52:54:00:12:34:56" = "ipxe" }`
    #[serde(deserialize_with = "by_mac")]
    pub(crate) loader_of: BTreeMap<Mac, LoaderFamily>,
    /// When PCs with 64-bit UEFI get the distribution's signed loader, shim, which PCs with [Secure Boot](how-to/secure-boot.md)
    /// need. With `auto` they get it unless it is known that their Secure Boot is off, or iPXE asks, or the server has none.
    ///
    /// - Value: `auto`, `always` or `never`
    /// - Default: `secure_boot = "auto"`
    /// - Example: `secure_boot = "never"`
    #[serde(deserialize_with = "choice")]
    pub(crate) secure_boot: SignedLoader,
    /// The same for single PCs.
    ///
    /// - Value: MAC addresses, each with `auto`, `always` or `never`
    /// - Default: `secure_boot_of = {}`
    /// - Example: `secure_boot_of = { "52:54:00:12:34:56" = "never" }`
    #[serde(deserialize_with = "by_mac")]
    pub(crate) secure_boot_of: BTreeMap<Mac, SignedLoader>,
    /// Where the signed loader is: a folder with `shimx64.efi` and `grubx64.efi`, or as Debian's packages name them,
    /// `shimx64.efi.signed` and `grubnetx64.efi.signed`. It starts the kernels that its own distribution has signed.
    ///
    /// - Value: the path of a folder
    /// - Default: where the packages `shim-signed` and `grub-efi-amd64-signed` put it
    /// - Example: `signed_loader = "/srv/debian-13-loader"`
    pub(crate) signed_loader: Option<PathBuf>,
    /// Where GRUB's modules for [arm64 PCs](how-to/arm64.md) are, of which their loader is made: the folder `arm64-efi` of Debian's package
    /// `grub-efi-arm64-bin`. Without it such PCs get no loader.
    ///
    /// - Value: the path of a folder
    /// - Default: `/usr/lib/grub/arm64-efi`, if that is there
    /// - Example: `arm64_grub = "/srv/arm64/usr/lib/grub/arm64-efi"`
    pub(crate) arm64_grub: Option<PathBuf>,
    /// Where the signed loader for arm64 PCs is, as [`signed_loader`](#signed_loader) is for others: a folder with `shimaa64.efi` and `grubaa64.efi`,
    /// or as Debian's packages name them, `shimaa64.efi.signed` and `grubnetaa64.efi.signed`.
    ///
    /// - Value: the path of a folder
    /// - Default: where the packages `shim-signed` and `grub-efi-arm64-signed` put it, if it is there
    /// - Example: `arm64_signed_loader = "/srv/arm64-loader"`
    pub(crate) arm64_signed_loader: Option<PathBuf>,
}

impl BootSettings {
    /// Whether some PC is to get iPXE, so that there must be it.
    pub(crate) fn needs_ipxe(&self) -> bool {
        let says = |it: &LoaderFamily| *it == LoaderFamily::Ipxe;
        says(&self.loader) || self.loader_of.values().any(says)
    }

    /// Whether some PC must get the signed loader, so that there must be one.
    pub(crate) fn needs_signed_loader(&self) -> bool {
        let says = |it: &SignedLoader| *it == SignedLoader::Always;
        self.signed_loader.is_some()
            || says(&self.secure_boot)
            || self.secure_boot_of.values().any(says)
    }
}

impl Default for BootSettings {
    fn default() -> Self {
        Self {
            kernel_args: KernelArgs::default(),
            fitted_initrds: true,
            reboot_after_failure_seconds: initcfg::REBOOT_SECONDS,
            ram: RamSize::default(),
            zram: ZramPercent::new(100),
            rescue_busybox: None,
            strangers: None,
            menu_password: None,
            loader: LoaderFamily::default(),
            loader_of: BTreeMap::new(),
            secure_boot: SignedLoader::default(),
            secure_boot_of: BTreeMap::new(),
            signed_loader: None,
            arm64_grub: None,
            arm64_signed_loader: None,
        }
    }
}

/// `[web]`.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebConfig {
    /// Where the pages, the API and `/metrics` are. On another address than a loopback one they are encrypted, and the
    /// server starts only if there is [an account](how-to/accounts.md) of an administrator.
    ///
    /// - Value: `ADDRESS:PORT`
    /// - Default: `listen = "127.0.0.1:8080"`
    /// - Example: `listen = "127.0.0.1:8000"`
    pub(crate) listen: SocketAddr,
    /// By which names browsers may call the server, beside its IP addresses, `localhost` and its own host name. They
    /// stand in its certificate, too, if that is our own. Other names are refused: a stranger's page could have them.
    ///
    /// - Value: a list of names
    /// - Default: `names = []`
    /// - Example: `names = ["boot.school.example"]`
    #[serde(deserialize_with = "web_names")]
    pub(crate) names: Vec<String>,
    /// Whether browsers are talked to by TLS (`https`). Without `certificate` Bootlace makes an authority of its own,
    /// of which `bootlace check` shows the fingerprint, and renews its certificate by itself.
    /// [What browsers say to that](how-to/tls.md#the-web-page).
    ///
    /// - Value: `true` or `false`; with `false` only a loopback address is possible
    /// - Default: `false` on loopback addresses such as `127.0.0.1`, `true` on all others
    /// - Example: `tls = true`
    pub(crate) tls: Option<bool>,
    /// The certificate for browsers, with those of intermediate authorities behind it. It is read again when the file
    /// changes.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none; with TLS Bootlace makes one
    /// - Example: `certificate = "/etc/bootlace/web.pem"`
    pub(crate) certificate: Option<PathBuf>,
    /// The private key of `certificate`. It is read again when the file changes.
    ///
    /// - Value: the path of a PEM file
    /// - Default: none
    /// - Example: `key = "/etc/bootlace/web-key.pem"`
    pub(crate) key: Option<PathBuf>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            names: Vec::new(),
            tls: None,
            certificate: None,
            key: None,
        }
    }
}

/// `[service]`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceConfig {
    /// The user that the servers become when they are started as root. State, images and disks belong to this user;
    /// what root owns there is taken over at the start. With `root` they stay root, which is not wise.
    ///
    /// - Value: the name of a user
    /// - Default: the owner of `DIR` with `--root DIR`, or else `bootlace`; without such a user they stay root, and
    ///   say so
    /// - Example: `user = "bootlace"`
    pub(crate) user: Option<String>,
    /// The group whose members may use the boot server by commands, as root may: `bootlace status`, `bootlace machine`
    /// and so on. They may do all that the page can, and need not be able to read state or configuration.
    ///
    /// - Value: the name or the number of a group
    /// - Default: `bootlace-admin`; without such a group only root and the servers' user may
    /// - Example: `admin_group = "lab-admins"`
    pub(crate) admin_group: Option<String>,
}

impl Config {
    /// Files that the servers need with this configuration, such as keys.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let storage = self.storage.nbd_tls.iter().flat_map(|tls| {
            let more = [&tls.client_ca, &tls.machine_ca].into_iter().flatten();
            [&tls.certificate, &tls.key].into_iter().chain(more)
        });
        let web = [&self.web.certificate, &self.web.key].into_iter().flatten();
        let ldap = self.ldap.iter().flat_map(LdapConfig::files);
        let mut files = Vec::new();
        for file in storage.chain(web).chain(self.alerts.files()).chain(ldap) {
            if !files.contains(file) {
                files.push(file.clone());
            }
        }
        files
    }

    /// Reads the file.
    ///
    /// # Errors
    /// See [`ConfigError`]; unknown keys are errors and name the nearest right one.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        // One that is a pipe would be waited for.
        if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            let source = std::io::Error::other("it is no file");
            return Err(ConfigError::Unreadable { path: path.into(), source });
        }
        match std::fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
                let config = Self::parse(path, &text)?;
                let is_strange =
                    |file: &PathBuf| std::fs::metadata(file).is_ok_and(|about| !about.is_file());
                match config.files().into_iter().find(is_strange) {
                    Some(file) => Err(ConfigError::Wrong(format!(
                        "{}: it names {}, which is no file",
                        path.display(),
                        file.display()
                    ))),
                    None => Ok(config),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigError::Missing { path: path.into(), what: "there is nothing" })
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.into(), source }),
        }
    }

    /// Reads what is or will be at this path.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        if toml::from_str(text).is_ok_and(|table: toml::Table| table.is_empty()) {
            let what = "the section [network] is missing";
            return Err(ConfigError::Missing { path: path.into(), what });
        }
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Wrong(show(path, text, error.span(), error.message())))?;
        if let Some((at, message)) = config.network.misplaced(text) {
            return Err(ConfigError::Wrong(show(path, text, Some(at..at), &message)));
        }
        Ok(config)
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
    fn the_configuration_that_a_package_brings_sets_nothing_and_all_in_it_is_right() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/bootlace.toml");
        let text = std::fs::read_to_string(path).unwrap();
        refuse(&text, &["not configured yet", "[network]", "bootlace.toml"]);
        // What stands behind a `#` without a space is a setting.
        let line = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => String::new(),
        };
        let all: String = text.lines().map(line).collect();
        let config = Config::parse(Path::new("x"), &all).unwrap();
        assert_eq!(config.network.interface, "enp3s0");
        assert!(all.lines().count() > 10, "{all}");
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
    fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
        refuse("interface = \"br0\"\n", &["line 1", "`interface` belongs below [network]"]);
        refuse(&format!("{GOOD}nbd_port = 10810\n"), &["line 4", "belongs below [storage]"]);
        refuse("[network]\ninterface = \"br0\"\n", &["`pool` is missing below [network]"]);
        let several = GOOD.replace("[network]", "[[network]]");
        let second = |lines: &str| format!("{several}\n[[network]]\ninterface = \"br1\"\n{lines}");
        refuse(&second(""), &["line 5", "`pool` is missing below [network]", "[[network]]"]);
        let site = second("pool = \"10.78.0.2-10.78.0.9\"\nmode = \"proxy\"\n");
        refuse(&site, &["line 8", "`mode` holds for the whole site", "the first [[network]]"]);
        refuse(&format!("{several}[[network]]\n"), &["`interface` is missing below [network]"]);
        refuse(
            &format!("{GOOD}[[network]]\n"),
            &["line 4", "[[network]] with two brackets for each"],
        );
        refuse("network = []\n", &["[network] is missing"]);
        let subnet = |value: &str| format!("{GOOD}subnet = \"{value}\"\n");
        refuse(&subnet("10.20.0.0"), &["line 4", "write ADDRESS/LENGTH"]);
        refuse(&subnet("10.20.0.1/16"), &["line 4", "write \"10.20.0.0/16\""]);
        refuse("", &["the section [network] is missing"]);
        let tls = "[storage.nbd_tls]\ncertificate = \"/c\"\n[web]\nlisten = \"127.0.0.1:8080\"\n";
        refuse(
            &format!("{GOOD}{tls}"),
            &["`key` is missing below [storage.nbd_tls]", "4 | [storage.nbd_tls]"],
        );
        let tls = "[storage]\nnbd_tls = { certificate = \"/c\" }\n";
        refuse(&format!("{GOOD}{tls}"), &["`key` is missing in the braces of `nbd_tls`"]);
    }

    /// What libraries say of values is for programmers.
    #[test]
    fn values_of_the_wrong_kind_say_in_plain_words_what_to_write() {
        let wrong = [
            ("lease = 3600", "3600 can't stand here: write text in quotes"),
            ("dns = \"10.77.0.1\"", "\"10.77.0.1\" can't stand here: write a list in brackets"),
            ("dns = [\"dns.example\"]", "not an IPv4 address: write four numbers"),
            ("router = 10", "write an address in quotes"),
            ("mtu = \"9000\"", "\"9000\" can't stand here: write a whole number, without quotes"),
            ("beside_others = \"yes\"", "write true or false, without quotes"),
            ("address_by = \"static\"", "`static` can't stand here: write \"lease\" or \"dhcp\""),
            ("domain = “lab.example”", "needs quotes, and straight ones"),
            ("interface = \"br1\"", "there twice"),
            ("reserve = []", "a list can't stand here: write a table in braces"),
            ("reserve = { \"52:54:00\" = \"10.77.0.20\" }", "not a MAC address"),
            (
                "reserve = { \"52:54:00:12:34:56\" = \"10.77.0.20\", \"52-54-00-12-34-56\" = \"10.77.0.21\" }",
                "52:54:00:12:34:56 has two addresses, 10.77.0.21 and 10.77.0.20",
            ),
            ("[web]\nlisten = 8080", "write ADDRESS:PORT in quotes"),
            ("[web]\nlisten = \"8080\"", "write ADDRESS:PORT"),
            (
                "[storage]\nnbd_port = 70000",
                "70000 can't stand here: write a number from 0 to 65535",
            ),
            ("[boot]\nkernel_args = [\"quiet\"]", "write text in quotes"),
            ("[boot]\nrescue_busybox = 1", "write text in quotes"),
            ("[boot]\nreboot_after_failure_seconds = -1", "write a number from 0 to"),
            ("[storage]\nnbd_tls = \"cert.pem\"", "write a table in braces"),
        ];
        for (line, words) in wrong {
            refuse(&format!("{GOOD}{line}\n"), &[words]);
        }
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        refuse(&GOOD.replace("-10", " to 10"), &["line 3", "write FIRST-LAST"]);
        refuse(
            &GOOD.replace("100-", "250-"),
            &["10.77.0.250 comes after its last", "write \"10.77.0.199-10.77.0.250\""],
        );
        refuse(&format!("{GOOD}lease = \"soon\"\n"), &["line 4", "like \"12h\""]);
        refuse(
            &format!("{GOOD}[boot]\nkernel_args = \"bootlace.boot=1\"\n"),
            &["set by the boot server"],
        );
        refuse(&format!("{GOOD}mtu = 9001\n"), &["line 4", "write 1280 to 9000"]);
        refuse(
            &format!("{GOOD}vlan = 0\n"),
            &["line 4", "0 is not a valid VLAN number: write 1 to 4094"],
        );
        refuse(&format!("{GOOD}[storage]\nnbd_addresses = []\n"), &["line 5", "write 1 to 8"]);
        refuse(&format!("{GOOD}[storage]\nnbd_port = 0\n"), &["line 5", "write 1 to 65535"]);
        for domain in ["", "lab example", "lab..example", "schülerlabor.example", "."] {
            refuse(&format!("{GOOD}domain = \"{domain}\"\n"), &["line 4", "not a domain name"]);
        }
        refuse(&format!("{GOOD}[boot]\nram = \"5G\"\n"), &["line 5", "like 2048M"]);
        refuse(
            &format!("{GOOD}[storage]\naoe_mac = \"00:55:00:00:00:01\"\n"),
            &["line 5", "use one that begins with 02"],
        );
        refuse(
            &format!("{GOOD}[storage]\nlayer_max = \"63M\"\n"),
            &["line 5", "write 64M or more"],
        );
        let tls = "nbd_tls = { certificate = \"c.pem\", key = \"k.pem\", require = true }\n";
        refuse(&format!("{GOOD}[storage]\n{tls}"), &["line 5", "leave `require` out"]);
        let tls = tls.replace("require = true", "machine_ca = \"a.pem\", client_ca = \"a.pem\"");
        refuse(&format!("{GOOD}[storage]\n{tls}"), &["no certificates of their own"]);
        let mail = "[alerts.mail]\nhost = \"mail.lab.example\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\n";
        let user = "user = \"me\"\n";
        refuse(&format!("{GOOD}{mail}{user}"), &["give both `user` and `password_file`"]);
        let password = "password_file = \"/p\"\ntls = \"none\"\n";
        refuse(&format!("{GOOD}{mail}{user}{password}"), &["in clear text"]);
        let hook = "[alerts.webhook]\nurl = \"http://lab.example/\"\ntoken_file = \"/t\"\n";
        refuse(&format!("{GOOD}{hook}"), &["in clear text", "https://"]);
        refuse("[network\n", &["line 1"]);
        refuse("", &["network"]);
    }
}
