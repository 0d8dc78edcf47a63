//! Where the state of a site is.

use crate::clock::Clock;
use crate::commands::Commands;
use model::{Architecture, Level, LoaderFamily, Network, Role, Rooms, SignedLoader, UserName};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use wire::Mac;

/// What [`crate::Service::open`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub database: PathBuf,
    /// The image store.
    pub images: PathBuf,
    /// Where built initrds are kept; safe to delete.
    pub initrds: PathBuf,
    /// Compressed modules of earlier initrds; safe to delete.
    pub modules: PathBuf,
    /// Kernel logs of failed boots.
    pub kernel_logs: PathBuf,
    /// Disk files that wait to be imported: [`Incoming`](crate::incoming::Incoming).
    pub incoming: PathBuf,
    /// Long work: [`Jobs`](crate::jobs::Jobs).
    pub jobs: PathBuf,
    /// Socket of who builds images, as root; it need not be there.
    pub builder_socket: PathBuf,
    /// Where an older Bootlace kept what machines are made of: it is moved into the database.
    pub hardware: PathBuf,
    /// Whether machines get initrds made for their hardware.
    pub fitted_initrds: bool,
    /// Socket of the storage server.
    pub storage_socket: PathBuf,
    /// The static `bootlace-init`; `None`: no initrd can be built.
    pub init: Option<PathBuf>,
    /// The same for images of arm64; `None`: machines can't boot those.
    pub init_arm64: Option<PathBuf>,
    /// Machines attach NBD roots over TLS, and know the storage server by these authorities (PEM). `init`
    /// must be the one for that.
    pub nbd_ca: Option<Vec<u8>>,
    /// How long a machine shows why it can't start before it restarts; 0: for ever.
    pub reboot_after_failure_seconds: u32,
    /// The busybox of rescue shells; `None`: the host's.
    pub rescue_busybox: Option<PathBuf>,
    /// The boot network, or the first of several; `None` in processes that serve no machine.
    pub network: Option<Network>,
    /// The others.
    pub more_networks: Vec<Network>,
    /// What PCs get whose address is in none of them, as another DHCP server gives it, behind a router; `None`: as in the first.
    pub network_elsewhere: Option<Network>,
    /// Who gives addresses in them, and which.
    pub leasing: Leasing,
    /// Which PCs get which loader.
    pub loader_rules: LoaderRules,
    /// Of what alerts are sent, and how.
    pub alerts: AlertOptions,
    /// Who is let in beside those who have an account here; `None`: nobody.
    pub directory: Option<DirectoryOptions>,
    /// How commands begin that are printed as advice.
    pub commands: Commands,
    /// Tells the time.
    pub clock: Clock,
}

impl Options {
    /// The usual places below `root`, which is `/` but for tests and trials.
    pub fn under(root: &Path) -> Self {
        Self {
            database: root.join("var/lib/bootlace/state.db"),
            images: root.join("var/lib/bootlace/images"),
            initrds: root.join("var/cache/bootlace/initrd"),
            modules: root.join("var/cache/bootlace/modules"),
            kernel_logs: root.join("var/lib/bootlace/kernel-logs"),
            incoming: root.join("var/lib/bootlace/incoming"),
            jobs: root.join("var/lib/bootlace/jobs"),
            builder_socket: root.join("run/bootlace-builder.sock"),
            hardware: root.join("var/lib/bootlace/hardware"),
            fitted_initrds: true,
            storage_socket: root.join("run/bootlace/storage.sock"),
            init: find_init(init_name(Architecture::X86_64, false)),
            init_arm64: find_init(init_name(Architecture::Arm64, false)),
            nbd_ca: None,
            reboot_after_failure_seconds: initcfg::REBOOT_SECONDS,
            rescue_busybox: None,
            network: None,
            network_elsewhere: None,
            more_networks: Vec::new(),
            leasing: Leasing::default(),
            loader_rules: LoaderRules::default(),
            alerts: AlertOptions::default(),
            directory: None,
            commands: Commands::of(root),
            clock: Clock::system(),
        }
    }

    /// The network that has this address, or the one of those that are elsewhere.
    pub(crate) fn network_at(&self, address: Ipv4Addr) -> Option<&Network> {
        let elsewhere = self.network_elsewhere.as_ref().or(self.network.as_ref());
        self.network_with(address).or(elsewhere)
    }

    /// The network that has this address.
    pub(crate) fn network_with(&self, address: Ipv4Addr) -> Option<&Network> {
        let mut all = self.network.iter().chain(&self.more_networks);
        all.find(|network| network.holds(address))
    }

    /// Machines attach NBD roots over TLS, if there are authorities for that.
    #[must_use]
    pub fn with_nbd_ca(self, nbd_ca: Option<Vec<u8>>) -> Self {
        let find = |architecture| find_init(init_name(architecture, nbd_ca.is_some()));
        let (init, init_arm64) = (find(Architecture::X86_64), find(Architecture::Arm64));
        Self { init, init_arm64, nbd_ca, ..self }
    }
}

/// Who gives addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leasing {
    /// It is not known, for this reason.
    Unknown(String),
    /// Another DHCP server.
    Others,
    /// We do, in these networks.
    Ours(Vec<LeasedNetwork>),
}

impl Default for Leasing {
    fn default() -> Self {
        Self::Unknown("no boot network is configured".to_owned())
    }
}

/// A network in which we give addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedNetwork {
    /// Its own address.
    pub subnet: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// Our address, which may lie elsewhere.
    pub server: Ipv4Addr,
    /// The router's.
    pub router: Option<Ipv4Addr>,
    /// First and last address that anybody may have.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Addresses that the configuration reserves for one NIC each.
    pub reserved: BTreeMap<Mac, Ipv4Addr>,
}

impl LeasedNetwork {
    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    /// Whether the address lies in it.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.subnet.to_bits() & self.mask()
    }

    /// Whether a host may have this address, which lies in it: it is not the network's own, and not for all of its hosts.
    pub(crate) fn is_host_s(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        host != 0 && host != !self.mask()
    }
}

/// What the site says about loaders, and which there are.
#[derive(Clone, Debug, Default)]
pub struct LoaderRules {
    /// The loaders of all PCs.
    pub family: LoaderFamily,
    /// Those of single ones.
    pub family_of: BTreeMap<Mac, LoaderFamily>,
    /// When PCs with UEFI get the signed one, for all PCs.
    pub site: SignedLoader,
    /// For single ones.
    pub of: BTreeMap<Mac, SignedLoader>,
    /// Whether the signed loader starts by HTTP, too; `None`: there is none.
    pub signed: Option<bool>,
    /// The same for arm64 PCs.
    pub signed_arm64: Option<bool>,
    /// Whether the server has a loader for arm64 PCs.
    pub has_arm64: bool,
}

/// A directory that knows people, such as one that speaks LDAP, and what its groups may do here.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// Who asks it.
    pub directory: Arc<dyn Directory>,
    /// Who is in none of these is not let in.
    pub groups: Vec<DirectoryGroup>,
}

/// A group of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGroup {
    /// As the directory calls it.
    pub name: String,
    /// What its members are here.
    pub role: Role,
    /// With which machines they work as teachers.
    pub rooms: Rooms,
}

/// Asks a directory. It must answer, or say that it can't, within some seconds.
pub trait Directory: Debug + Send + Sync {
    /// Whether this is the password of who has this name, and in which groups he is.
    fn prove<'a>(&'a self, name: &'a UserName, password: &'a str) -> DirectoryAsked<'a>;
}

/// What [`Directory::prove`] ends with.
pub type DirectoryAsked<'a> =
    Pin<Box<dyn Future<Output = Result<DirectoryAnswer, DirectoryTrouble>> + Send + 'a>>;

/// What a directory says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryAnswer {
    /// He is in these of [`DirectoryOptions::groups`], by index; in one at least.
    In(Vec<usize>),
    /// He is not to be let in, for this reason, which the log has and he is not told.
    Out(String),
}

/// Why a directory can't be asked, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryTrouble(pub String);

/// By which way alerts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// A mail server.
    Mail,
    /// A server that takes JSON by HTTP.
    Webhook,
}

impl Channel {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
        }
    }
}

/// What alerts are sent of, and by which ways.
#[derive(Clone, Debug)]
pub struct AlertOptions {
    /// Findings of this level and worse are told.
    pub least: Level,
    /// Messages in an hour, for each way; the last one is kept for alarms.
    pub per_hour: u32,
    /// The ways.
    pub channels: Vec<Channel>,
}

impl Default for AlertOptions {
    fn default() -> Self {
        Self { least: Level::Warning, per_hour: 10, channels: Vec::new() }
    }
}

/// Name of the init of initrds for such machines, or of the one that attaches NBD roots over TLS.
pub const fn init_name(architecture: Architecture, has_tls: bool) -> &'static str {
    match (architecture, has_tls) {
        (Architecture::X86_64, false) => "bootlace-init",
        (Architecture::X86_64, true) => "bootlace-init-tls",
        (Architecture::Arm64, false) => "bootlace-init-arm64",
        (Architecture::Arm64, true) => "bootlace-init-tls-arm64",
    }
}

/// The init of that name beside this program, or the installed one.
pub fn find_init(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|program| {
        let program = program.canonicalize().ok()?;
        Some(program.parent()?.join(name))
    });
    let installed = Path::new("/usr/lib/bootlace").join(name);
    beside.into_iter().chain([installed]).find(|path| path.is_file())
}
