//! From an installed Bootlace to one that waits for PCs: what is asked is the same in a terminal and on a page.

pub(crate) mod browser;
mod cards;
mod file;
mod proposal;
mod wanted;

pub(crate) use cards::{Card, cards, name_servers};
pub(crate) use file::{is_undoable, undo};
pub(crate) use wanted::{Told, Wanted};

use crate::boot::other_dhcp;
use crate::boot_socket;
use crate::check;
use crate::config::{Config, ConfigError, Mode, NetworkConfig, Pool};
use crate::net::dhcp_watch::{DhcpWatch, Other};
use crate::net::overheard::Overheard;
use crate::network::networks;
use crate::paths::Paths;
use anyhow::{Context as _, bail, ensure};
use model::{Role, UserName};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use toml_edit::{DocumentMut, TableLike};

/// How long it is listened what others say on a network.
pub(crate) const LISTEN_TIME: Duration = Duration::from_secs(5);

/// Where pages are if they are for the network.
pub(crate) const PAGES_PORT: u16 = 8443;

/// The boot server answers in this time after its start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How a new configuration begins.
const BEGINNING: &str = "# Written by bootlace setup. What each key means: /usr/share/doc/bootlace/configuration.md\n\n";

/// What is heard on a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) other: Option<Other>,
    pub(crate) overheard: Overheard,
}

/// From whom PCs get their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// From us, of this pool.
    Leased {
        pool: Pool,
        /// Another DHCP server answers, and leaves the PCs alone.
        beside_others: bool,
    },
    /// From another server, which does not name their loader.
    Others,
    /// From another server, which names it.
    External,
}

impl Addresses {
    const fn mode(self) -> Mode {
        match self {
            Self::Leased { .. } => Mode::Dhcp,
            Self::Others => Mode::Proxy,
            Self::External => Mode::External,
        }
    }

    fn configured(network: &NetworkConfig) -> Option<Self> {
        match network.mode {
            Mode::Auto | Mode::Dhcp => {
                Some(Self::Leased { pool: network.pool?, beside_others: network.beside_others })
            }
            Mode::Proxy => Some(Self::Others),
            Mode::External => Some(Self::External),
        }
    }
}

/// For people: who gives the addresses.
pub(crate) fn whose_addresses(network: &NetworkConfig) -> String {
    match (network.mode, network.pool) {
        (Mode::Auto | Mode::Dhcp, Some(pool)) => format!("Bootlace leases {pool}"),
        (Mode::External, _) => {
            "another DHCP server gives addresses, and names the loader".to_owned()
        }
        (Mode::Auto | Mode::Dhcp | Mode::Proxy, _) => {
            "another DHCP server gives addresses, and Bootlace names the loader".to_owned()
        }
    }
}

/// Whether the network is configured for this mode.
pub(crate) fn is_mode(network: &NetworkConfig, word: &str) -> bool {
    network.mode.word() == word || (network.mode == Mode::Auto && word == Mode::Dhcp.word())
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) interface: String,
    pub(crate) addresses: Addresses,
    pub(crate) router: Option<Ipv4Addr>,
    pub(crate) dns: Vec<Ipv4Addr>,
    /// Whether pages are for the network, and not for this host alone.
    pub(crate) has_open_pages: bool,
}

/// The server's address on a card on which PCs can be served, and the length of its network's prefix.
///
/// # Errors
/// They can't, and what helps.
pub(crate) fn servable(card: &Card) -> anyhow::Result<(Ipv4Addr, u8)> {
    let address = card.address.with_context(|| {
        format!(
            "{} has no IPv4 address, and Bootlace serves from a fixed one. Give it one in this host's own network \
             configuration (for a try: ip address add 10.0.5.1/24 dev {}), and run setup again",
            card.name, card.name
        )
    })?;
    if let Some(trouble) = card.trouble {
        bail!("{} {trouble}{}", card.name, trouble.advice(&card.name));
    }
    Ok(address)
}

/// Whether there is an account of an administrator.
///
/// # Errors
/// The database can't be read.
pub(crate) fn has_admin(paths: &Paths) -> anyhow::Result<bool> {
    Ok(service::expected(&paths.database())?.n_admins > 0)
}

/// Whether this is the account of an administrator, by a command of ours: what looks into the state is the servers' user from then on.
pub(crate) fn is_admin(paths: &Paths, name: &UserName) -> anyhow::Result<bool> {
    #[derive(serde::Deserialize)]
    struct Account {
        name: String,
        role: Role,
    }
    let mut command = command(paths, &["user", "ls", "--json"])?;
    let output = command.stdin(Stdio::null()).output().context("can't list the accounts")?;
    ensure!(output.status.success(), "{}", told(&output.stderr));
    let accounts: Vec<Account> =
        serde_json::from_slice(&output.stdout).context("can't list the accounts")?;
    let is_it = |account: &Account| account.name == name.as_str() && account.role == Role::Admin;
    Ok(accounts.iter().any(is_it))
}

/// Whether there is any image.
pub(crate) fn has_images(paths: &Paths) -> bool {
    let store = images::Store::look(&paths.images());
    store.and_then(|store| store.list()).is_ok_and(|versions| !versions.is_empty())
}

/// Listens on a card, on which the server has this address.
///
/// # Errors
/// Nothing can be heard, and why.
pub(crate) async fn hear(card: &str, server: Ipv4Addr) -> anyhow::Result<Heard> {
    let asked = async { DhcpWatch::open(card, server)?.probe().await };
    let (other, overheard) = tokio::join!(asked, Overheard::listen(card, server, LISTEN_TIME));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("only root may listen on a network card: use sudo")
        }
        _ => anyhow::anyhow!(other_dhcp::not_asked(card, &error)),
    };
    Ok(Heard { other: other.map_err(failed)?, overheard: overheard.map_err(failed)? })
}

impl Heard {
    /// What PCs of this card's network can be told: what they are told now by the configuration that there is, or else by what was
    /// heard. `None`: hardly any address is free.
    pub(crate) fn propose(&self, card: &Card, now: Option<&Config>) -> Option<Answers> {
        if let Some(now) = now.filter(|now| now.network.interface == card.name) {
            return Some(Answers {
                interface: card.name.clone(),
                addresses: Addresses::configured(&now.network)?,
                router: now.network.router,
                dns: now.network.dns.clone(),
                has_open_pages: has_open_pages(now),
            });
        }
        let addresses = match self.other {
            Some(_) => Addresses::Others,
            None => Addresses::Leased { pool: self.free(card)?, beside_others: false },
        };
        Some(Answers {
            interface: card.name.clone(),
            addresses,
            router: card.gateway,
            // Others are out of reach without a default route.
            dns: name_servers()
                .into_iter()
                .filter(|dns| card.gateway.is_some() || card.has_beside_it(*dns))
                .collect(),
            has_open_pages: now.is_some_and(has_open_pages),
        })
    }

    /// Addresses of the card's network that seem to be free; `None`: hardly any.
    pub(crate) fn free(&self, card: &Card) -> Option<Pool> {
        let (server, prefix) = card.address?;
        let mut used = self.overheard.addresses.clone();
        used.extend(card.gateway);
        proposal::pool(server, prefix, &used)
    }

    /// Each in a sentence: what it means for PCs.
    pub(crate) fn sentences(&self, card: &str) -> Vec<String> {
        let mut told = vec![match &self.other {
            None => format!("No other DHCP server answers on {card}."),
            Some(other) => format!(
                "Another DHCP server answers on {card}: {}{}.",
                other.server,
                other
                    .address
                    .map_or_else(String::new, |address| format!(", which offers {address}"))
            ),
        }];
        let heard = &self.overheard;
        told.push(match heard.addresses.len() {
            0 => "No station was heard.".to_owned(),
            1 => "One station was heard; its address is left out of the proposal.".to_owned(),
            n => format!("{n} stations were heard; their addresses are left out of the proposal."),
        });
        if let Some((switch, port)) = &heard.switch {
            let port = if port.is_empty() { String::new() } else { format!(", port {port}") };
            told.push(format!("The switch calls itself {switch:?}{port}."));
        }
        if heard.has_spanning_tree {
            told.push(
                "The switch runs a spanning tree: without \"edge port\" (PortFast) on the ports of PCs, these pass nothing \
                 for up to 30 s after a PC is switched on, and its firmware gives up."
                    .to_owned(),
            );
        }
        if heard.has_tags {
            told.push(
                "Frames with VLAN tags arrive: this port is one for several VLANs. PCs must be in the VLAN that has no tag \
                 here, or choose the interface of their VLAN."
                    .to_owned(),
            );
        }
        told
    }
}

/// Whether pages are for others than this host.
fn has_open_pages(config: &Config) -> bool {
    !config.web.listen.ip().to_canonical().is_loopback()
}

impl Answers {
    /// The text of the configuration. What there is in it beside the answers stays.
    fn configuration(&self, former: Option<&str>) -> anyhow::Result<String> {
        let mut text: DocumentMut = former.unwrap_or_default().parse()?;
        let network = text.entry("network").or_insert_with(toml_edit::table);
        // Of several it is the first one that is asked about.
        let network: &mut dyn TableLike = match network {
            toml_edit::Item::ArrayOfTables(all) => {
                all.get_mut(0).context("[[network]] is empty")?
            }
            one => one.as_table_like_mut().context("[network] is no table")?,
        };
        let address = |address: &Ipv4Addr| address.to_string();
        set(network, "interface", Some(self.interface.clone().into()));
        set(network, "mode", Some(self.addresses.mode().word().into()));
        let (pool, beside_others) = match self.addresses {
            Addresses::Leased { pool, beside_others } => (Some(pool), beside_others),
            Addresses::Others | Addresses::External => (None, false),
        };
        if let Some(pool) = pool {
            set(network, "pool", Some(pool.to_string().into()));
        }
        set(network, "router", self.router.as_ref().map(|router| address(router).into()));
        let dns: toml_edit::Array = self.dns.iter().map(address).collect();
        set(network, "dns", Some(dns.into()).filter(|_| !self.dns.is_empty()));
        set(network, "beside_others", beside_others.then(|| true.into()));

        let was_open = match former {
            Some(former) => has_open_pages(&Config::parse(Path::new(""), former)?),
            None => false,
        };
        if self.has_open_pages != was_open {
            let web = text.entry("web").or_insert_with(toml_edit::table);
            let web = web.as_table_like_mut().context("[web] is no table")?;
            let open = || format!("0.0.0.0:{PAGES_PORT}").into();
            set(web, "listen", self.has_open_pages.then(open));
        }
        Ok(match former {
            Some(_) => text.to_string(),
            None => format!("{BEGINNING}{text}"),
        })
    }

    /// The same, once it is known that the servers take it.
    ///
    /// # Errors
    /// An address does not fit the network, with what helps.
    pub(crate) fn checked(&self, paths: &Paths) -> anyhow::Result<String> {
        let path = paths.config();
        let former = match configured(paths)? {
            Some(_) => Some(fs::read_to_string(&path)?),
            None => None,
        };
        let text = self.configuration(former.as_deref())?;
        networks(&Config::parse(&path, &text)?)?;
        Ok(text)
    }
}

/// Looks whether the servers would get their ports with this configuration.
///
/// # Errors
/// Another program has one.
pub(crate) fn check_ports(paths: &Paths, text: &str) -> anyhow::Result<()> {
    let config = Config::parse(&paths.config(), text)?;
    match check::port_trouble(paths, &config, &networks(&config)?) {
        Some(trouble) => bail!(trouble),
        None => Ok(()),
    }
}

/// Sets a key, or removes it.
fn set(table: &mut dyn TableLike, key: &str, value: Option<toml_edit::Value>) {
    match (value, table.get_mut(key).and_then(toml_edit::Item::as_value_mut)) {
        // With the comment behind it.
        (Some(value), Some(there)) => {
            let decor = there.decor().clone();
            *there = value;
            *there.decor_mut() = decor;
        }
        (Some(value), None) => {
            table.insert(key, toml_edit::Item::Value(value));
        }
        (None, _) => {
            table.remove(key);
        }
    }
}

/// What is configured; `None`: nothing yet.
///
/// # Errors
/// It can't be read, or is wrong.
pub(crate) fn configured(paths: &Paths) -> Result<Option<Config>, ConfigError> {
    match Config::load(&paths.config()) {
        Ok(config) => Ok(Some(config)),
        Err(ConfigError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A command of this program for the same site.
fn command(paths: &Paths, arguments: &[&str]) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("can't find this program")?;
    let mut command = Command::new(program);
    command.arg("--root").arg(&paths.root).args(arguments);
    Ok(command)
}

/// Adds the first administrator.
///
/// # Errors
/// As the command `user add` says.
fn add_admin(paths: &Paths, name: &UserName, password: &str) -> anyhow::Result<()> {
    let mut command = command(paths, &["user", "add", name.as_str(), "--role", "admin"])?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't add an account")?;
    if let Some(mut input) = child.stdin.take() {
        // If it does not read that, it says why.
        let _ = writeln!(input, "{password}");
    }
    let output = child.wait_with_output().context("can't add an account")?;
    ensure!(output.status.success(), "{}", told(&output.stderr));
    Ok(())
}

/// Imports the first image: how far that is it shows on this terminal, or nowhere.
///
/// # Errors
/// As the command `image import` says.
fn import(paths: &Paths, file: &Path, name: &str, is_in_terminal: bool) -> anyhow::Result<()> {
    let file = file.to_string_lossy();
    let mut command = command(paths, &["image", "import", &file, "--name", name])?;
    if is_in_terminal {
        ensure!(command.status()?.success(), "the image was not imported");
        return Ok(());
    }
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "the image was not imported: {}", told(&output.stderr));
    Ok(())
}

/// What a command of ours has said, without its name.
fn told(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.trim().trim_start_matches("bootlace: ").to_owned()
}

/// Whether a boot server of this site runs.
pub(crate) fn is_served(paths: &Paths) -> bool {
    boot_socket::is_answered(&paths.boot_socket())
}

/// Whether systemd starts the servers of this site.
pub(crate) fn has_units(paths: &Paths) -> bool {
    let units = ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"];
    paths.commands().are_usual()
        && Path::new("/run/systemd/system").exists()
        && units.iter().any(|folder| Path::new(folder).join("bootlace.target").exists())
}

/// Has systemd start the servers with the configuration that is there now, and waits until the boot server answers.
///
/// # Errors
/// It does not, and where it says why.
fn start(paths: &Paths) -> anyhow::Result<()> {
    systemctl(&["enable", "--quiet", "bootlace.target"])?;
    systemctl(&["restart", "bootlace.target"])?;
    let end = Instant::now() + START_WITHIN;
    while !is_served(paths) {
        ensure!(
            Instant::now() < end,
            "the boot server does not answer after {} s: bootlace logs says why",
            START_WITHIN.as_secs()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Has systemd stop them, or start them with the configuration that was put back.
///
/// # Errors
/// As systemctl says.
fn after_undo(is_configured: bool) -> anyhow::Result<()> {
    let verb = if is_configured { "restart" } else { "stop" };
    systemctl(&[verb, "bootlace.service", "bootlace-storage.service"])
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("systemctl").args(arguments).output().context("can't run systemctl")?;
    if !output.status.success() {
        bail!("systemctl {} failed: {}", arguments.join(" "), told(&output.stderr));
    }
    Ok(())
}

/// Where the pages are.
pub(crate) fn pages(config: &Config, server: Ipv4Addr) -> String {
    let listen: SocketAddr = config.web.listen;
    let is_loopback = listen.ip().to_canonical().is_loopback();
    let has_tls = config.web.tls.unwrap_or(!is_loopback);
    let scheme = if has_tls { "https" } else { "http" };
    match listen.ip().is_unspecified() {
        true => format!("{scheme}://{server}:{}", listen.port()),
        false => format!("{scheme}://{listen}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers {
            interface: "lo".to_owned(),
            addresses: Addresses::Leased { pool: POOL, beside_others: true },
            router: Some([127, 0, 0, 9].into()),
            dns: vec![[10, 0, 5, 1].into(), [9, 9, 9, 9].into()],
            has_open_pages: true,
        }
    }

    const POOL: Pool =
        Pool { first: Ipv4Addr::new(127, 0, 5, 2), last: Ipv4Addr::new(127, 0, 5, 200) };

    #[test]
    fn what_was_answered_is_what_the_servers_read() {
        let paths = Paths::under(Path::new("/x"));
        let text = answers().checked(&paths).unwrap();
        let config = Config::parse(&paths.config(), &text).unwrap();
        assert_eq!(config.network.interface, "lo");
        assert_eq!((config.network.pool, config.network.mode), (Some(POOL), Mode::Dhcp));
        assert_eq!(
            (config.network.router, &config.network.dns),
            (answers().router, &answers().dns)
        );
        assert!(config.network.beside_others);
        assert_eq!(config.web.listen.port(), PAGES_PORT);
        let wrong = Answers { router: Some([10, 0, 0, 1].into()), ..answers() };
        let error = wrong.checked(&paths).unwrap_err().to_string();
        assert!(error.contains("router 10.0.0.1"), "{error}");
        let plain = Answers { router: None, dns: Vec::new(), ..answers() };
        let alone = Addresses::Leased { pool: POOL, beside_others: false };
        let few = Answers { addresses: alone, has_open_pages: false, ..plain };
        assert_eq!(
            few.checked(&paths).unwrap().lines().count(),
            6,
            "{}",
            few.checked(&paths).unwrap()
        );
    }

    #[test]
    fn what_is_not_asked_for_stays_in_a_configuration() {
        let former = "# mine\n[network]\ninterface = \"br0\" # to the lab\npool = \"10.0.0.2-10.0.0.9\"\nmtu = 1500\n\n\
                      [boot]\nkernel_args = \"quiet\"\n\n[web]\nlisten = \"10.0.0.1:443\"\n";
        let text = answers().configuration(Some(former)).unwrap();
        for kept in
            ["# mine", "interface = \"lo\" # to the lab", "mtu = 1500", "\"quiet\"", "10.0.0.1:443"]
        {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        assert!(text.contains("pool = \"127.0.5.2-127.0.5.200\"") && text.contains("9.9.9.9"));
        let closed = Answers { has_open_pages: false, router: None, ..answers() };
        let text = closed.configuration(Some(&text)).unwrap();
        assert!(!text.contains("listen") && !text.contains("router"), "{text}");
    }
}
