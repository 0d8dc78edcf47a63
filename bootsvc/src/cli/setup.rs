//! `bootlace setup`

use super::output::{advise, say};
use super::people::{line, new_password};
use super::{WrongUsage, runtime};
use crate::config::{Config, Pool};
use crate::network::network;
use crate::paths::Paths;
use crate::setup::browser::{Page, Reach};
use crate::setup::{self, Addresses, Answers, Card, Heard, Told, Wanted};
use crate::site::{Refused, Site};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use model::{ImageName, UserName};
use nix::unistd::geteuid;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// Set Bootlace up: network, account, first image, start
///
/// Asks step by step, and changes nothing before it has shown what it will write. What is done already is left as it is, so it can
/// be run again. With --yes it asks nothing, and takes what it would propose for each option that is missing.
#[derive(Args)]
pub(super) struct Setup {
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// Ask on a page, for a browser on this server
    #[arg(long, conflicts_with_all = ["yes", "undo"])]
    page: bool,
    /// Ask on a page, for a browser on the network: encrypted, and for who has the link
    #[arg(long, conflicts_with_all = ["yes", "undo", "page"])]
    lan: bool,
    /// Put back the configuration that was there before the last setup; accounts and images stay
    #[arg(long, conflicts_with_all = ["yes", "again", "interface", "pool", "admin", "image"])]
    undo: bool,
    /// Set the network up once more, though it is configured
    #[arg(long)]
    again: bool,
    /// Network card that leads to the PCs
    #[arg(long)]
    interface: Option<String>,
    /// Addresses for PCs: FIRST-LAST
    #[arg(long, value_parser = pool)]
    pool: Option<Pool>,
    /// Default route of the PCs, or none
    #[arg(long, value_parser = router)]
    router: Option<Router>,
    /// Name server of the PCs; may be given several times
    #[arg(long)]
    dns: Vec<Ipv4Addr>,
    /// Who gives PCs their addresses; without it Bootlace does, unless another DHCP server answers
    ///
    /// dhcp: Bootlace. proxy: another server, and Bootlace only tells PCs where their loader is. external: another server, which is
    /// told to name the loader, too.
    #[arg(long, value_name = "WHO", value_parser = ["dhcp", "proxy", "external"])]
    mode: Option<String>,
    /// Give addresses though another DHCP server answers, which leaves these PCs alone
    #[arg(long)]
    beside_others: bool,
    /// Show the pages to the network, encrypted, at port 8443
    #[arg(long)]
    open_pages: bool,
    /// Name of the first administrator's account, whose password is read from standard input
    #[arg(long)]
    admin: Option<UserName>,
    /// Disk image to import
    #[arg(long, requires = "name", value_name = "FILE")]
    image: Option<PathBuf>,
    /// Its name
    #[arg(long, requires = "image")]
    name: Option<ImageName>,
}

/// Who is to give PCs their addresses.
enum Who {
    Us { beside_others: bool },
    Others,
    External,
}

#[derive(Clone, Copy)]
struct Router(Option<Ipv4Addr>);

fn router(text: &str) -> Result<Router, std::net::AddrParseError> {
    if text == "none" { Ok(Router(None)) } else { text.parse().map(|it| Router(Some(it))) }
}

fn pool(text: &str) -> Result<Pool, String> {
    text.parse()
}

impl Setup {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        if !geteuid().is_root() {
            let told = "setup writes the configuration, and listens on network cards: use sudo";
            return Err(Refused::forbidden(told).into());
        }
        paths.check_folders()?;
        if self.undo {
            say(setup::undo(paths)?);
            return Ok(());
        }
        if self.page || self.lan {
            return self.on_page(paths);
        }
        let asks = !self.yes;
        if asks && !io::stdin().is_terminal() {
            let text = "setup asks questions, and there is no terminal: give --yes, and options for what is not to be as proposed, or --page or --lan to be asked in a browser";
            return Err(WrongUsage(text.to_owned()).into());
        }
        let former = setup::configured(paths)?;
        let text = match &former {
            Some(config) if !self.again => {
                self.agrees_with(config)?;
                say(format!(
                    "The network is configured: {} on {} (setup --again changes that).",
                    setup::whose_addresses(&config.network),
                    config.network.interface
                ));
                None
            }
            _ => Some(self.network(paths, former.as_ref(), asks)?),
        };
        if let Some(text) = &text {
            setup::check_ports(paths, text)?;
        }
        let admin = self.admin(paths, asks, text.as_deref())?;
        let image = self.image(paths, asks)?;
        let mut wanted = Wanted::new(text, admin, image);

        if let Some(text) = &wanted.text {
            say(format!("\n{} will be:\n", paths.config().display()));
            say(text.lines().map(|line| format!("  {line}\n")).collect::<String>());
        }
        if wanted.is_nothing() && former.is_some() && !asks {
            say("Nothing to change.");
        }
        if asks && wanted.text.is_some() && !agrees("Write it, and go on", true)? {
            bail!("nothing was changed");
        }
        wanted.carry_out(paths, true, |told| match told {
            Told::Now(now) => say(format!("{now} …")),
            Told::Done(done) => say(done),
        })?;
        finish(paths)
    }

    /// Asks on a page, and tells here where that is.
    fn on_page(&self, paths: &Paths) -> anyhow::Result<()> {
        let reach = match &self.interface {
            _ if self.page => Reach::Host,
            None => Reach::Lan,
            Some(name) => {
                let cards = setup::cards().context("can't list the network cards")?;
                let card = cards.iter().find(|card| card.name == *name);
                let card = card.with_context(|| format!("there is no network card {name:?}"))?;
                Reach::Address(setup::servable(card)?.0)
            }
        };
        let page = Page::prepare(paths, reach, self.again, say)?;
        runtime()?.block_on(page.run())?;
        say("The setup has ended.");
        Ok(())
    }

    /// The configuration that is wanted, once it is known that servers would start with it.
    fn network(
        &self,
        paths: &Paths,
        former: Option<&Config>,
        asks: bool,
    ) -> anyhow::Result<String> {
        let cards = setup::cards().context("can't list the network cards")?;
        let card = self.card(&cards, asks)?;
        let (server, prefix) = setup::servable(card)?;
        say(format!(
            "Listening on {} ({server}/{prefix}) for {} s …",
            card.name,
            setup::LISTEN_TIME.as_secs()
        ));
        let heard = runtime()?.block_on(setup::hear(&card.name, server))?;
        for sentence in heard.sentences(&card.name) {
            say(format!("  {sentence}"));
        }
        let none_is_free = || {
            format!(
                "there are hardly any free addresses in {server}/{prefix}: give --pool FIRST-LAST"
            )
        };
        let proposed = heard.propose(card, former).or_else(|| self.given(card));
        let mut answers = proposed.with_context(none_is_free)?;
        let mode = self.who_leases(&heard, answers.addresses, asks)?;
        answers.addresses = match (mode, answers.addresses) {
            (Who::Others, _) => Addresses::Others,
            (Who::External, _) => Addresses::External,
            (Who::Us { beside_others }, proposed) => {
                let proposed = match proposed {
                    Addresses::Leased { pool, .. } => Some(pool),
                    Addresses::Others | Addresses::External => heard.free(card),
                };
                let pool = self.pool.or(proposed).with_context(none_is_free)?;
                Addresses::Leased { pool, beside_others }
            }
        };
        answers.has_open_pages |= self.open_pages;
        answers.router = self.router.map_or(answers.router, |router| router.0);
        if !self.dns.is_empty() {
            answers.dns.clone_from(&self.dns);
        }
        if !asks {
            return answers.checked(paths);
        }
        let mut is_first = true;
        loop {
            self.ask(&mut answers, is_first)?;
            match answers.checked(paths) {
                Ok(text) => return Ok(text),
                Err(error) => say(format!("That does not fit: {error:#}. Once more.")),
            }
            is_first = false;
        }
    }

    /// What is not given as an option; all, if what was given does not fit.
    fn ask(&self, answers: &mut Answers, is_first: bool) -> anyhow::Result<()> {
        if let Addresses::Leased { pool, .. } = &mut answers.addresses
            && (self.pool.is_none() || !is_first)
        {
            *pool = asked("Addresses for PCs", pool)?;
        }
        if self.router.is_none() || !is_first {
            let proposed = answers.router.map_or_else(|| "none".to_owned(), |it| it.to_string());
            answers.router = asked_by("Default route of the PCs", &proposed, router)?.0;
        }
        if self.dns.is_empty() || !is_first {
            let proposed: Vec<String> = answers.dns.iter().map(ToString::to_string).collect();
            let proposed = if proposed.is_empty() { "none".to_owned() } else { proposed.join(" ") };
            answers.dns = asked_by("Name servers of the PCs", &proposed, name_servers)?;
        }
        if !self.open_pages && is_first {
            let question = "Show the pages to the network, encrypted, and not to this host alone";
            answers.has_open_pages = agrees(question, answers.has_open_pages)?;
        }
        Ok(())
    }

    /// What is given as an option is what is configured already.
    fn agrees_with(&self, config: &Config) -> anyhow::Result<()> {
        let network = &config.network;
        let mut others = Vec::new();
        let mut differs =
            |option: &'static str, differs: bool| others.extend(differs.then_some(option));
        differs("--interface", self.interface.as_ref().is_some_and(|it| *it != network.interface));
        differs("--mode", self.mode.as_deref().is_some_and(|it| !setup::is_mode(network, it)));
        differs("--pool", self.pool.is_some_and(|it| Some(it) != network.pool));
        differs("--router", self.router.is_some_and(|it| it.0 != network.router));
        differs("--dns", !self.dns.is_empty() && self.dns != network.dns);
        differs("--beside-others", self.beside_others && !network.beside_others);
        differs("--open-pages", self.open_pages && config.web.listen.ip().is_loopback());
        ensure!(
            others.is_empty(),
            "the network is configured otherwise than {} says; nothing was changed. setup --again changes it",
            others.join(", ")
        );
        Ok(())
    }

    fn card<'a>(&self, cards: &'a [Card], asks: bool) -> anyhow::Result<&'a Card> {
        let named = |name: &str| cards.iter().find(|card| card.name == name);
        if let Some(name) = &self.interface {
            let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
            return named(name).with_context(|| {
                format!("there is no network card {name:?}; there are: {}", names.join(", "))
            });
        }
        let first = cards.first().context("this host has no network card")?;
        let n_addressed = cards.iter().filter(|card| card.address.is_some()).count();
        if !asks {
            ensure!(
                n_addressed <= 1,
                "this host has {n_addressed} network cards with addresses: say by --interface which one leads to the PCs"
            );
            return Ok(first);
        }
        say("Network cards of this host:");
        for card in cards {
            say(format!("  {:<12} {}", card.name, card.about()));
        }
        loop {
            let name: String = asked("Which one leads to the PCs", &first.name)?;
            match named(&name) {
                Some(card) => return Ok(card),
                None => say("There is no such card."),
            }
        }
    }

    /// Who is to give PCs their addresses, of which this is proposed.
    fn who_leases(&self, heard: &Heard, proposed: Addresses, asks: bool) -> anyhow::Result<Who> {
        let us = |beside_others| Ok(Who::Us { beside_others });
        let is_ours = match self.mode.as_deref() {
            Some("proxy") => return Ok(Who::Others),
            Some("external") => return Ok(Who::External),
            wanted => wanted.is_some() || self.beside_others,
        };
        let Some(other) = heard.other.as_ref().map(|other| other.server) else {
            return match proposed {
                Addresses::Others if !is_ours => Ok(Who::Others),
                Addresses::External if !is_ours => Ok(Who::External),
                _ => us(self.beside_others),
            };
        };
        if self.beside_others || matches!(proposed, Addresses::Leased { beside_others: true, .. }) {
            return us(true);
        }
        if !is_ours {
            say(format!(
                "\n{other} can go on giving the addresses: then Bootlace only tells PCs in their firmware where their loader is \
                 (proxyDHCP), and nothing need be changed on {other}."
            ));
            if !asks || agrees("Shall it", true)? {
                return Ok(Who::Others);
            }
        }
        say(format!(
            "\nPCs would take an address and a loader from whichever of both is faster. Either switch off DHCP on {other}, or keep it \
             from these PCs (a network card and a switch, or a VLAN, of their own), and run setup again."
        ));
        ensure!(
            asks && agrees("Is the other one configured to leave these PCs alone", false)?,
            "another DHCP server answers, {other}; nothing was changed"
        );
        us(true)
    }

    /// Where nothing can be proposed.
    fn given(&self, card: &Card) -> Option<Answers> {
        Some(Answers {
            interface: card.name.clone(),
            addresses: Addresses::Leased { pool: self.pool?, beside_others: false },
            router: card.gateway,
            dns: setup::name_servers(),
            has_open_pages: false,
        })
    }

    /// The first administrator, with his password; `None`: there is one, or none is wanted.
    fn admin(
        &self,
        paths: &Paths,
        asks: bool,
        text: Option<&str>,
    ) -> anyhow::Result<Option<(UserName, String)>> {
        if setup::has_admin(paths)? {
            let Some(name) = &self.admin else { return Ok(None) };
            // With the same options once more it is as it should be.
            if setup::is_admin(paths, name)? {
                say(format!(
                    "{name} is an administrator already, with the password that is set (bootlace user passwd {name} sets another)."
                ));
                return Ok(None);
            }
            let told = format!(
                "there is another administrator already, so {name} can't be the first one: leave --admin out, and add the \
                 account by bootlace user add {name} --role admin"
            );
            ensure!(asks, "{told}; nothing was changed");
            say(told);
            return Ok(None);
        }
        let is_needed = match text {
            Some(text) => !Config::parse(&paths.config(), text)?.web.listen.ip().is_loopback(),
            None => false,
        };
        let name = match &self.admin {
            Some(name) => name.clone(),
            None if !asks => {
                ensure!(
                    !is_needed,
                    "who opens the pages to the network needs an account: give --admin NAME, and its password on standard input"
                );
                return Ok(None);
            }
            None => asked("Name of the administrator's account", &"admin".parse()?)?,
        };
        loop {
            let password = if asks { new_password(&name) } else { line() };
            let judged = password.and_then(|password| {
                service::check_password(&password, &name)?;
                Ok(password)
            });
            match judged {
                Ok(password) => return Ok(Some((name, password))),
                Err(error) if asks => say(format!("{error:#}. Once more.")),
                Err(error) => return Err(error),
            }
        }
    }

    /// The first image; `None`: there is one, or it comes later.
    fn image(&self, paths: &Paths, asks: bool) -> anyhow::Result<Option<(PathBuf, ImageName)>> {
        if let (Some(file), Some(name)) = (&self.image, &self.name) {
            images::Source::open(file)
                .with_context(|| format!("{} can't be imported", file.display()))?;
            return Ok(Some((file.clone(), name.clone())));
        }
        if !asks || setup::has_images(paths) {
            return Ok(None);
        }
        loop {
            let question = "First image: a disk with an installed Linux (raw, qcow2, vmdk, vhd, vdi), or later";
            let file: String = asked(question, &"later".to_owned())?;
            if file == "later" {
                return Ok(None);
            }
            let file = PathBuf::from(file);
            match images::Source::open(&file) {
                Ok(_) => return Ok(Some((file, asked("Its name", &"desktop".parse()?)?))),
                Err(error) => {
                    say(format!("That can't be imported: {}.", wire::error_chain(&error)))
                }
            }
        }
    }
}

/// Says what comes next.
fn finish(paths: &Paths) -> anyhow::Result<()> {
    let config = setup::configured(paths)?.context("the configuration is gone again")?;
    let server = network(&config)?.server;
    let is_running = setup::is_served(paths);
    let has_images = Site::open(paths)?.get::<Vec<serde::de::IgnoredAny>>("/api/v1/images")?;
    say("");
    if !is_running {
        advise(paths, "Start it: bootlace up");
    }
    if has_images.is_empty() {
        advise(paths, "Import an image: bootlace image import FILE --name NAME");
    }
    advise(
        paths,
        &format!(
            "Pages: {}; bootlace login prints a link that logs you in.\nThen switch on a PC with network boot: it shows up \
             as discovered.",
            setup::pages(&config, server)
        ),
    );
    Ok(())
}

fn name_servers(text: &str) -> Result<Vec<Ipv4Addr>, std::net::AddrParseError> {
    match text {
        "none" => Ok(Vec::new()),
        _ => text.split([' ', ',']).filter(|it| !it.is_empty()).map(str::parse).collect(),
    }
}

/// An answer, or what is proposed.
fn asked<T: FromStr<Err: Display> + Display>(question: &str, proposed: &T) -> anyhow::Result<T> {
    asked_by(question, &proposed.to_string(), str::parse)
}

fn asked_by<T, E: Display>(
    question: &str,
    proposed: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> anyhow::Result<T> {
    loop {
        let answer = answer(&format!("{question} [{proposed}]: "))?;
        let answer = if answer.is_empty() { proposed } else { &answer };
        match read(answer) {
            Ok(value) => return Ok(value),
            Err(error) => say(format!("{answer:?} can't be taken: {error}.")),
        }
    }
}

/// Whether a person at the terminal agrees; an empty answer is what is `proposed`.
pub(super) fn agrees(question: &str, proposed: bool) -> anyhow::Result<bool> {
    yes_or_no(question, Some(proposed))
}

/// Whether a person at the terminal agrees, who must say so or the opposite: work is lost by one of both.
pub(super) fn decides(question: &str) -> anyhow::Result<bool> {
    yes_or_no(question, None)
}

fn yes_or_no(question: &str, proposed: Option<bool>) -> anyhow::Result<bool> {
    let choice = match proposed {
        Some(true) => "Y/n",
        Some(false) => "y/N",
        None => "y/n",
    };
    loop {
        match (answer(&format!("{question}? [{choice}] "))?.to_lowercase().as_str(), proposed) {
            ("", Some(proposed)) => return Ok(proposed),
            ("y" | "yes", _) => return Ok(true),
            ("n" | "no", _) => return Ok(false),
            _ => say("Please answer y or n."),
        }
    }
}

/// A line from the terminal, without the spaces around it.
fn answer(prompt: &str) -> anyhow::Result<String> {
    let mut out = io::stdout();
    write!(out, "{prompt}").and_then(|()| out.flush()).context("can't ask")?;
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line).context("can't read the answer")?;
    ensure!(read > 0, "the answers ended; nothing was changed");
    Ok(line.trim().to_owned())
}
