//! What was answered so far.

use super::door::Door;
use crate::config::Pool;
use crate::net::dhcp_watch::Other;
use crate::paths::Paths;
use crate::setup::{self, Addresses, Answers, Card, Told, Wanted};
use anyhow::{Context as _, bail, ensure};
use service::jobs::{JobKind, JobState, Jobs};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use web::setup::{Answer, NetworkFields, Pages, Setup, Shown, View};

/// Refused browsers of which the terminal is told: each can come again and again.
const REFUSALS_TOLD_MAX: u32 = 10;

/// A step of a setup, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Card,
    Network,
    Account,
    Image,
    Review,
}

impl Step {
    const fn title(self) -> &'static str {
        match self {
            Self::Card => "Network card",
            Self::Network => "Network",
            Self::Account => "Account",
            Self::Image => "Image",
            Self::Review => "Start",
        }
    }

    /// Those that are left to be done.
    fn left(paths: &Paths, again: bool) -> anyhow::Result<Vec<Self>> {
        let mut steps = Vec::new();
        if again || setup::configured(paths)?.is_none() {
            steps.extend([Self::Card, Self::Network]);
        }
        if !setup::has_admin(paths)? {
            steps.push(Self::Account);
        }
        if !setup::has_images(paths) {
            steps.push(Self::Image);
        }
        steps.push(Self::Review);
        Ok(steps)
    }
}

/// A setup by a browser.
pub(super) struct Draft {
    paths: Paths,
    door: Door,
    /// Whether browsers on other hosts are shown this.
    is_open: bool,
    /// Held while an answer is taken, so that one comes after the other.
    typed: tokio::sync::Mutex<Typed>,
    work: Arc<Mutex<Work>>,
    finished: CancellationToken,
    /// Tells this host's terminal.
    say: fn(String),
    /// How many browsers were refused.
    n_refused: AtomicU32,
}

/// What was typed.
struct Typed {
    steps: Vec<Step>,
    here: usize,
    error: String,
    card: Option<Card>,
    heard: Vec<String>,
    other: Option<Other>,
    fields: NetworkFields,
    admin: String,
    image: (String, String),
}

/// What is to be done, and what was.
#[derive(Default)]
struct Work {
    wanted: Wanted,
    told: Vec<String>,
    now: String,
    is_going_on: bool,
    has_ended: bool,
    /// Why it did not.
    error: String,
    /// A part of it was done, so that other steps are left than were shown.
    is_half_done: bool,
}

impl Draft {
    /// A setup that begins.
    ///
    /// # Errors
    /// What is configured can't be read.
    pub(super) fn open(
        paths: &Paths,
        door: Door,
        again: bool,
        is_open: bool,
        say: fn(String),
    ) -> anyhow::Result<Self> {
        let typed = Typed::new(Step::left(paths, again)?);
        Ok(Self {
            paths: paths.clone(),
            door,
            is_open,
            typed: tokio::sync::Mutex::new(typed),
            work: Arc::default(),
            finished: CancellationToken::new(),
            say,
            n_refused: AtomicU32::new(0),
        })
    }

    /// Waits until somebody has seen the end.
    pub(super) async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// Waits until nothing is being done.
    pub(super) async fn rests(&self) {
        while self.work().is_going_on {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether all was done.
    pub(super) fn has_ended(&self) -> bool {
        self.work().has_ended
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, typed: &mut Typed, answer: Answer) -> anyhow::Result<()> {
        let step = typed.steps.get(typed.here).copied();
        match answer {
            Answer::Card { card } if step == Some(Step::Card) => self.listen(typed, &card).await,
            Answer::Network(fields) if step == Some(Step::Network) => {
                typed.fields = fields;
                let text = typed.configuration(&self.paths).context("That does not fit")?;
                setup::check_ports(&self.paths, &text)?;
                self.work().wanted.text = Some(text);
                typed.here += 1;
                Ok(())
            }
            Answer::Account { name, password, again } if step == Some(Step::Account) => {
                typed.admin = name;
                let name = typed.admin.trim().parse()?;
                ensure!(password == again, "The two passwords differ: type the same twice");
                ensure!(!password.contains(['\n', '\r']), "A password is one line");
                service::check_password(&password, &name)?;
                self.work().wanted.admin = Some((name, password));
                typed.here += 1;
                Ok(())
            }
            Answer::Image { file, name } if step == Some(Step::Image) => {
                typed.image = (file, name);
                let (file, name) = (typed.image.0.trim(), typed.image.1.trim());
                let image = match file {
                    "" => None,
                    file => {
                        let name = name.parse()?;
                        Some((importable(file).await?, name))
                    }
                };
                self.work().wanted.image = image;
                typed.here += 1;
                Ok(())
            }
            Answer::Begin if step == Some(Step::Review) => {
                self.begin();
                Ok(())
            }
            Answer::Back => {
                typed.here = typed.here.saturating_sub(1);
                Ok(())
            }
            // Of a page that was left open, or was sent twice.
            Answer::Card { .. }
            | Answer::Network(_)
            | Answer::Account { .. }
            | Answer::Image { .. }
            | Answer::Begin
            | Answer::Undo
            | Answer::Finish => Ok(()),
        }
    }

    async fn listen(&self, typed: &mut Typed, name: &str) -> anyhow::Result<()> {
        let cards = setup::cards().context("Can't list the network cards")?;
        let card = cards.into_iter().find(|card| card.name == name);
        let card = card.with_context(|| format!("There is no network card {name:?} any more"))?;
        let (server, _) = setup::servable(&card)?;
        let heard = setup::hear(&card.name, server).await?;
        typed.heard = heard.sentences(&card.name);
        typed.other.clone_from(&heard.other);
        let now = setup::configured(&self.paths)?;
        typed.fields = match heard.propose(&card, now.as_ref()) {
            Some(answers) => fields(&answers, heard.free(&card), self.is_open),
            None => {
                typed.heard.push("Hardly any address is free there.".to_owned());
                NetworkFields::default()
            }
        };
        typed.card = Some(card);
        typed.here += 1;
        Ok(())
    }

    /// Does what is wanted, while the browser asks how far that is.
    fn begin(&self) {
        let mut wanted = {
            let mut work = self.work();
            if work.is_going_on {
                return;
            }
            (work.is_going_on, work.has_ended) = (true, false);
            work.error.clear();
            "Writing".clone_into(&mut work.now);
            std::mem::take(&mut work.wanted)
        };
        let (paths, work, say) = (self.paths.clone(), Arc::clone(&self.work), self.say);
        tokio::task::spawn_blocking(move || {
            let locked = || work.lock().unwrap_or_else(PoisonError::into_inner);
            let done = wanted.carry_out(&paths, false, |told| match told {
                Told::Now(now) => {
                    say(format!("{now} …"));
                    locked().now = now;
                }
                Told::Done(done) => {
                    say(done.clone());
                    locked().told.push(done);
                }
            });
            let mut work = locked();
            work.wanted = wanted;
            work.is_going_on = false;
            work.has_ended = done.is_ok();
            if let Err(error) = done {
                work.is_half_done = !work.told.is_empty();
                work.error = sentence(&error);
                say(work.error.clone());
            }
        });
    }

    async fn undo(&self, typed: &mut Typed) -> anyhow::Result<String> {
        let paths = self.paths.clone();
        let told = tokio::task::spawn_blocking(move || setup::undo(&paths)).await??;
        (self.say)(format!("The setup was undone. {told}"));
        *self.work() = Work::default();
        *typed = Typed::new(Step::left(&self.paths, true)?);
        Ok(told)
    }

    /// How much of an import is done.
    fn percent(&self) -> Option<u64> {
        let jobs = Jobs::in_folder(self.paths.jobs()).list();
        let import = jobs
            .into_iter()
            .find(|job| job.state == JobState::Running && job.kind == Some(JobKind::ImageImport));
        Some(import?.progress?.percent())
    }

    fn ended(&self, mut told: Vec<String>) -> anyhow::Result<Shown> {
        let config = setup::configured(&self.paths)?.context("the configuration is gone again")?;
        let listen = config.web.listen;
        let is_loopback = listen.ip().to_canonical().is_loopback();
        let is_running = setup::is_served(&self.paths);
        if !is_running {
            told.push(self.paths.commands().complete("Start it on the server: bootlace up"));
        }
        if !setup::has_images(&self.paths) {
            told.push("There is no image yet: the page Images takes one.".to_owned());
        }
        Ok(Shown::Ended {
            told,
            pages: Pages {
                scheme: match config.web.tls.unwrap_or(!is_loopback) {
                    true => "https",
                    false => "http",
                },
                address: Some(listen.ip()).filter(|address| !address.is_unspecified()),
                port: listen.port(),
            },
            is_running,
            has_undo: setup::is_undoable(&self.paths),
        })
    }

    fn shown(&self, typed: &Typed) -> anyhow::Result<Shown> {
        {
            let work = self.work();
            let told = work.told.clone();
            if work.is_going_on {
                let now = work.now.clone();
                drop(work);
                return Ok(Shown::Working { told, now, percent: self.percent() });
            }
            if work.has_ended {
                drop(work);
                return self.ended(told);
            }
        }
        Ok(match typed.steps.get(typed.here).copied().unwrap_or(Step::Review) {
            Step::Card => {
                let cards = setup::cards().context("Can't list the network cards")?;
                let proposed = typed.card.as_ref().or(cards.first()).map(|card| card.name.clone());
                let listed = cards.iter().map(|card| {
                    (card.name.clone(), card.about(), Some(&card.name) == proposed.as_ref())
                });
                Shown::Card { cards: listed.collect(), seconds: setup::LISTEN_TIME.as_secs() }
            }
            Step::Network => Shown::Network {
                card: typed.card.as_ref().map_or_else(String::new, |card| card.name.clone()),
                heard: typed.heard.clone(),
                other: typed.other.as_ref().map(|other| other.server.to_string()),
                fields: typed.fields.clone(),
            },
            Step::Account => Shown::Account { name: typed.admin.clone() },
            Step::Image => {
                let (file, name) = typed.image.clone();
                Shown::Image { file, name }
            }
            Step::Review => {
                let work = self.work();
                Shown::Review {
                    does: self.sentences(&work.wanted),
                    text: work.wanted.text.clone().unwrap_or_default(),
                    path: self.paths.config().display().to_string(),
                    is_untouched: work.told.is_empty(),
                }
            }
        })
    }

    /// What will be done.
    fn sentences(&self, wanted: &Wanted) -> Vec<String> {
        let mut does = Vec::new();
        if wanted.text.is_none() {
            does.push("The network stays as it is configured.".to_owned());
        }
        if let Some((name, _)) = &wanted.admin {
            does.push(format!("The account {name} is added, an administrator."));
        }
        match &wanted.image {
            Some((file, name)) => does.push(format!("{} is imported as {name}.", file.display())),
            None if !setup::has_images(&self.paths) => {
                does.push("An image comes later.".to_owned())
            }
            None => {}
        }
        if setup::has_units(&self.paths) {
            does.push("Both servers start, now and whenever this host does.".to_owned());
        }
        does
    }
}

impl Setup for Draft {
    fn enter(&self, code: &str, from: Option<IpAddr>) -> Option<String> {
        let from = from.map_or_else(String::new, |from| format!(" at {from}"));
        let secret = self.door.enter(code);
        if secret.is_some() {
            (self.say)(format!("A browser{from} has begun."));
        } else if self.n_refused.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD_MAX {
            (self.say)(format!(
                "A browser{from} was refused: its code is wrong, or was used before."
            ));
        }
        secret
    }

    fn knows(&self, secret: &str) -> bool {
        self.door.knows(secret)
    }

    async fn view(&self) -> View {
        let mut typed = self.typed.lock().await;
        typed.look_again(&self.paths, &mut self.work());
        let (shown, failed) = match self.shown(&typed) {
            Ok(shown) => (shown, String::new()),
            Err(error) => (Shown::Card { cards: Vec::new(), seconds: 0 }, sentence(&error)),
        };
        let failed_work = self.work().error.clone();
        let error = [&typed.error, &failed_work, &failed].map(String::as_str);
        View {
            steps: typed.steps.iter().map(|step| step.title()).collect(),
            here: if self.has_ended() { typed.steps.len() } else { typed.here },
            error: error.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" "),
            shown,
        }
    }

    async fn answer(&self, answer: Answer) {
        if self.work().is_going_on {
            return;
        }
        let mut typed = self.typed.lock().await;
        typed.error.clear();
        self.work().error.clear();
        typed.look_again(&self.paths, &mut self.work());
        typed.error = match answer {
            // Once, and what this setup has done.
            Answer::Undo if self.has_ended() && setup::is_undoable(&self.paths) => {
                match self.undo(&mut typed).await {
                    Ok(told) => format!("That was undone. {told}"),
                    Err(error) => sentence(&error),
                }
            }
            Answer::Finish if self.has_ended() => {
                self.finished.cancel();
                String::new()
            }
            _ if self.has_ended() => String::new(),
            answer => match self.take(&mut typed, answer).await {
                Ok(()) => String::new(),
                Err(error) => sentence(&error),
            },
        };
    }
}

impl Typed {
    fn new(steps: Vec<Step>) -> Self {
        Self {
            steps,
            here: 0,
            error: String::new(),
            card: None,
            heard: Vec::new(),
            other: None,
            fields: NetworkFields::default(),
            admin: "admin".to_owned(),
            image: (String::new(), "desktop".to_owned()),
        }
    }

    /// After a part was done, what is left: of the rest, first what could not be done.
    fn look_again(&mut self, paths: &Paths, work: &mut Work) {
        if !std::mem::take(&mut work.is_half_done) {
            return;
        }
        let again = work.wanted.text.is_some();
        if let Ok(steps) = Step::left(paths, again) {
            let at = steps.iter().position(|step| *step == Step::Image);
            self.here = at.unwrap_or(steps.len() - 1);
            self.steps = steps;
        }
    }

    /// What was typed of the network, as the servers will read it.
    fn configuration(&self, paths: &Paths) -> anyhow::Result<String> {
        let card = self.card.as_ref().context("no network card was chosen")?;
        let fields = &self.fields;
        let address = |text: &str| -> anyhow::Result<Ipv4Addr> {
            text.parse().with_context(|| format!("{text:?} is no address such as 10.0.5.1"))
        };
        let addresses = match (&self.other, fields.addresses.as_deref()) {
            (_, Some("proxy")) => Addresses::Others,
            (_, Some("external")) => Addresses::External,
            (Some(other), None) => {
                bail!(
                    "another DHCP server answers, {}: say who is to give the addresses",
                    other.server
                )
            }
            (other, _) => Addresses::Leased {
                pool: fields.pool.trim().parse().map_err(anyhow::Error::msg)?,
                beside_others: other.is_some(),
            },
        };
        let router = Some(fields.router.trim()).filter(|text| !text.is_empty() && *text != "none");
        let dns = fields.dns.split([' ', ',']).filter(|it| !it.is_empty() && *it != "none");
        let answers = Answers {
            interface: card.name.clone(),
            addresses,
            router: router.map(address).transpose().context("the default route")?,
            dns: dns.map(address).collect::<Result<_, _>>().context("the name servers")?,
            has_open_pages: fields.open_pages.is_some(),
        };
        answers.checked(paths)
    }
}

fn fields(answers: &Answers, free: Option<Pool>, opens_pages: bool) -> NetworkFields {
    let dns: Vec<String> = answers.dns.iter().map(ToString::to_string).collect();
    let (pool, who) = match answers.addresses {
        Addresses::Leased { pool, beside_others } => (Some(pool), beside_others.then_some("dhcp")),
        Addresses::Others => (None, Some("proxy")),
        Addresses::External => (None, Some("external")),
    };
    NetworkFields {
        pool: pool.or(free).map_or_else(String::new, |pool| pool.to_string()),
        router: answers.router.map_or_else(String::new, |it| it.to_string()),
        dns: dns.join(" "),
        addresses: who.map(str::to_owned),
        open_pages: (opens_pages || answers.has_open_pages).then(String::new),
    }
}

/// A file that can be imported.
async fn importable(file: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(file);
    ensure!(
        path.is_absolute(),
        "Give the whole path of the file on the server, such as /srv/{file}"
    );
    let look = |path: &Path| {
        images::Source::open(path).with_context(|| format!("{} can't be imported", path.display()))
    };
    tokio::task::spawn_blocking(move || look(&path).map(|_| path)).await?
}

fn sentence(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
