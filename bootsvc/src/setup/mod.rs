//! From an installed Bootlace to one that waits for PCs: what is asked is the same in a terminal and on a page.

mod cards;
mod proposal;

pub(crate) use cards::{Card, cards, name_servers};

use crate::boot::other_dhcp;
use crate::boot_socket;
use crate::config::{Config, ConfigError, Pool};
use crate::net::dhcp_watch::{DhcpWatch, Other};
use crate::net::overheard::Overheard;
use crate::network::network;
use crate::paths::Paths;
use anyhow::{Context as _, bail, ensure};
use model::UserName;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long it is listened what others say on a network.
pub(crate) const LISTEN_TIME: Duration = Duration::from_secs(5);

/// Where pages are if they are for the network.
pub(crate) const PAGES_PORT: u16 = 8443;

/// The boot server answers in this time after its start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What is heard on a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) other: Option<Other>,
    pub(crate) overheard: Overheard,
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) interface: String,
    pub(crate) pool: Pool,
    pub(crate) router: Option<Ipv4Addr>,
    pub(crate) dns: Vec<Ipv4Addr>,
    /// Another DHCP server answers, and is meant to.
    pub(crate) beside_others: bool,
    /// Whether pages are for the network, and not for this host alone.
    pub(crate) has_open_pages: bool,
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
    /// What PCs of this card's network can be told.
    pub(crate) fn propose(&self, card: &Card) -> Option<Answers> {
        let (server, prefix) = card.address?;
        let mut used = self.overheard.addresses.clone();
        used.extend(card.gateway);
        let pool = proposal::pool(server, prefix, &used)?;
        Some(Answers {
            interface: card.name.clone(),
            pool,
            router: card.gateway,
            dns: name_servers(),
            beside_others: false,
            has_open_pages: false,
        })
    }

    /// Each in a sentence: what it means for PCs.
    pub(crate) fn sentences(&self, card: &str) -> Vec<String> {
        let mut told = vec![match &self.other {
            None => format!("No other DHCP server answers on {card}."),
            Some(other) => format!(
                "Another DHCP server answers on {card}: {}, which offers {}.",
                other.server, other.address
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

impl Answers {
    /// The text of the configuration.
    pub(crate) fn configuration(&self) -> String {
        let mut text = "# Written by bootlace setup. What each key means: /usr/share/doc/bootlace/configuration.md\n\n\
                        [network]\n"
            .to_owned();
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        line(format!("interface = {}", toml::Value::from(self.interface.as_str())));
        line(format!("pool = \"{}-{}\"", self.pool.first, self.pool.last));
        if let Some(router) = self.router {
            line(format!("router = \"{router}\""));
        }
        if !self.dns.is_empty() {
            let dns: Vec<String> = self.dns.iter().map(|it| format!("\"{it}\"")).collect();
            line(format!("dns = [{}]", dns.join(", ")));
        }
        if self.beside_others {
            line("beside_others = true".to_owned());
        }
        if self.has_open_pages {
            line(format!("\n[web]\nlisten = \"0.0.0.0:{PAGES_PORT}\""));
        }
        text
    }

    /// The same, once it is known that the servers take it.
    ///
    /// # Errors
    /// An address does not fit the network, with what helps.
    pub(crate) fn checked(&self, paths: &Paths) -> anyhow::Result<String> {
        let text = self.configuration();
        network(&Config::parse(&paths.config(), &text)?)?;
        Ok(text)
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

/// Where the former configuration is.
fn former(paths: &Paths) -> PathBuf {
    paths.config().with_extension("toml.before-setup")
}

/// Puts this configuration in the place of the one that is there, which is kept beside it.
///
/// # Errors
/// It can't be written; nothing is changed then.
pub(crate) fn write(paths: &Paths, text: &str) -> anyhow::Result<()> {
    let (path, former) = (paths.config(), former(paths));
    let failed = || format!("can't write {}", path.display());
    let folder = path.parent().context("a configuration lies in a folder")?;
    fs::create_dir_all(folder).with_context(failed)?;
    match fs::copy(&path, &former) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't keep {}", path.display()));
        }
        _ => {}
    }
    let mut new = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    new.write_all(text.as_bytes()).with_context(failed)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(failed)?;
    new.as_file().sync_all().with_context(failed)?;
    new.persist(&path).with_context(failed)?;
    Ok(())
}

/// Puts the configuration back that was there before; `false`: it was none, so that the servers answer nobody any more.
///
/// # Errors
/// There was no setup, or the file can't be put back.
pub(crate) fn undo(paths: &Paths) -> anyhow::Result<bool> {
    let (path, former) = (paths.config(), former(paths));
    let written = fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        written.starts_with("# Written by bootlace setup."),
        "{} was not written by bootlace setup: nothing to undo",
        path.display()
    );
    let undone = match fs::rename(&former, &path) {
        // There was no file.
        Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_file(&path),
        renamed => renamed,
    };
    undone.with_context(|| format!("can't put {} back", path.display()))?;
    Ok(configured(paths)?.is_some())
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
pub(crate) fn add_admin(paths: &Paths, name: &UserName, password: &str) -> anyhow::Result<()> {
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

/// Imports the first image, showing how far that is on this terminal.
///
/// # Errors
/// As the command `image import` says, on the terminal.
pub(crate) fn import(paths: &Paths, file: &Path, name: &str) -> anyhow::Result<()> {
    let file = file.to_string_lossy();
    let done = command(paths, &["image", "import", &file, "--name", name])?.status()?;
    ensure!(done.success(), "the image was not imported");
    Ok(())
}

/// What a command of ours has said, without its name.
fn told(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.trim().trim_start_matches("bootlace: ").to_owned()
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
pub(crate) fn start(paths: &Paths) -> anyhow::Result<()> {
    systemctl(&["enable", "--quiet", "bootlace.target"])?;
    systemctl(&["restart", "bootlace.target"])?;
    let end = Instant::now() + START_WITHIN;
    while !boot_socket::is_answered(&paths.boot_socket()) {
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
pub(crate) fn after_undo(is_configured: bool) -> anyhow::Result<()> {
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
            pool: Pool { first: [127, 0, 5, 2].into(), last: [127, 0, 5, 200].into() },
            router: Some([127, 0, 0, 9].into()),
            dns: vec![[10, 0, 5, 1].into(), [9, 9, 9, 9].into()],
            beside_others: true,
            has_open_pages: true,
        }
    }

    #[test]
    fn what_was_answered_is_what_the_servers_read() {
        let paths = Paths::under(Path::new("/x"));
        let text = answers().checked(&paths).unwrap();
        let config = Config::parse(&paths.config(), &text).unwrap();
        assert_eq!(config.network.interface, "lo");
        assert_eq!(config.network.pool, answers().pool);
        assert_eq!((config.network.router, config.network.dns), (answers().router, answers().dns));
        assert!(config.network.beside_others);
        assert_eq!(config.web.listen.port(), PAGES_PORT);
        let wrong = Answers { router: Some([10, 0, 0, 1].into()), ..answers() };
        let error = wrong.checked(&paths).unwrap_err().to_string();
        assert!(error.contains("router 10.0.0.1"), "{error}");
        let plain = Answers { router: None, dns: Vec::new(), ..answers() };
        let few = Answers { beside_others: false, has_open_pages: false, ..plain };
        assert_eq!(few.checked(&paths).unwrap().lines().count(), 5);
    }

    #[test]
    fn a_setup_can_be_undone() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        assert!(undo(&paths).unwrap_err().to_string().contains("nothing to undo"));
        write(&paths, &answers().configuration()).unwrap();
        assert!(configured(&paths).unwrap().is_some());
        assert!(!undo(&paths).unwrap());
        assert!(!paths.config().exists());

        let by_hand = "[network]\ninterface = \"br0\"\npool = \"10.0.5.2-10.0.5.9\"\n";
        fs::write(paths.config(), by_hand).unwrap();
        write(&paths, &answers().configuration()).unwrap();
        assert!(undo(&paths).unwrap());
        assert_eq!(fs::read_to_string(paths.config()).unwrap(), by_hand);
        assert!(undo(&paths).is_err(), "what was written by hand is not touched");
    }
}
