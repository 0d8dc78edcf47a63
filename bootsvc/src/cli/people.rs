//! `bootlace login|user|token|audit`

use super::{WrongUsage, advise, count, note, number, one_of, runtime, say, table};
use crate::config::Config;
use crate::directory::{self, Answer};
use crate::pages;
use crate::paths::Paths;
use crate::privileges;
use crate::site::Site;
use anyhow::{Context, bail, ensure};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand};
use hyper::Method;
use jiff::Timestamp;
use model::{Hours, Reach, Right, Role, RoomName, Rooms, UserName};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead as _, Read as _, Write as _};

/// Of a password more is not read, and is refused as too long.
const LINE_BYTES_MAX: u64 = 4096;

/// Of the audit log, if nobody says how many.
const AUDIT_ENTRIES: u32 = 50;

#[derive(Subcommand)]
pub(super) enum User {
    /// List accounts
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add an account; asks for its password, or reads it from standard input
    ///
    /// Example: bootlace user add anna --role admin
    Add {
        /// Name by which its owner logs in
        name: UserName,
        /// What it is for
        #[arg(long, value_parser = role())]
        role: Role,
        /// Room with whose machines a teacher works; may be repeated. Without it he works with all machines
        #[arg(long, value_name = "ROOM")]
        room: Vec<RoomName>,
        /// When a teacher works with machines, by the server's clock: "mon-fri 7:00-18:00, sat 8:00-12:00"
        #[arg(long)]
        hours: Option<Hours>,
        /// End well, and change nothing, if there is an account of this name and role; no password is read then
        #[arg(long)]
        if_missing: bool,
    },
    /// Say with which machines a teacher works, and when, with effect at once
    ///
    /// Example: bootlace user rooms tom r101 r102 --hours "mon-fri 7:00-18:00"
    ///
    /// He restarts the machines of these rooms and shuts them down, and looks at all. What is not named stays as it is.
    Rooms {
        /// Name of the account
        name: UserName,
        /// Rooms with whose machines he works, in place of the former ones
        rooms: Vec<RoomName>,
        /// He works with all machines, also with those that are in no room
        #[arg(long, conflicts_with_all = ["rooms", "none"])]
        all: bool,
        /// He works with no machine
        #[arg(long, conflicts_with = "rooms")]
        none: bool,
        /// When he works with them, by the server's clock: "mon-fri 7:00-18:00, sat 8:00-12:00"
        #[arg(long, conflicts_with = "any_time")]
        hours: Option<Hours>,
        /// He works with them at any time
        #[arg(long)]
        any_time: bool,
    },
    /// Set the password of an account, and end its sessions
    Passwd {
        /// Name of the account
        name: UserName,
    },
    /// Give an account another role, with effect at once
    Role {
        /// Name of the account
        name: UserName,
        /// What it is for
        #[arg(value_parser = role())]
        role: Role,
    },
    /// Ask the directory as a login does, and say which step fails; asks for the password, or reads it from standard input
    ///
    /// It goes by the settings in the file, [ldap] in bootlace.toml; a boot server that runs takes changed ones when it is
    /// restarted. Nobody is logged in, and nothing is counted here; the directory counts wrong passwords.
    ///
    ///   bootlace user test-login anna
    #[command(verbatim_doc_comment)]
    TestLogin {
        /// Name by which somebody logs in whom the directory knows
        name: UserName,
    },
    /// Remove an account with its sessions and tokens
    Rm {
        /// Name of the account
        name: UserName,
    },
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// List tokens
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token for a script, and print it: it is not shown again
    ///
    /// Example: bootlace token add prometheus --scope read
    Add {
        /// What it is for, in a word or two
        label: String,
        /// What it may do
        #[arg(long, value_parser = scope())]
        scope: Right,
        /// Room with whose machines it works, with the scope operate; may be repeated. Without it it works with all
        #[arg(long, value_name = "ROOM")]
        room: Vec<RoomName>,
        /// Days for which it is good; without it for ever
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// Make a token void, with effect at once
    Rm {
        /// Its number, which bootlace token ls shows
        #[arg(value_parser = number)]
        number: u64,
    },
}

/// Show who has changed what
///
/// The last comes first.
#[derive(Args)]
pub(super) struct Audit {
    /// Only what is about this machine, room or account
    #[arg(long, value_name = "NAME")]
    about: Option<String>,
    /// Print so many entries
    #[arg(short, value_name = "COUNT", default_value_t = AUDIT_ENTRIES, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn role() -> impl clap::builder::TypedValueParser<Value = Role> {
    one_of(Role::ALL.iter().map(|role| PossibleValue::new(role.word()).help(role.title())))
}

fn scope() -> impl clap::builder::TypedValueParser<Value = Right> {
    one_of(Right::ALL.iter().map(|right| PossibleValue::new(right.word()).help(right.title())))
}

/// Prints a link that logs a browser in once.
pub(super) fn login(paths: &Paths) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Link {
        path: String,
    }
    let site = Site::open(paths)?;
    ensure!(
        site.has_server(),
        "no boot server runs here: start it first (bootlace up, or bootlace serve)"
    );
    let link: Link = site.send(Method::POST, "/api/v1/login-links", &())?;
    // The server's own word: its configuration may have been changed since it started.
    let pages: String = site.get(pages::ADDRESS)?;
    say(format!("{pages}{}", link.path));
    say("This link logs one browser in as root, once, within 30 minutes.");
    Ok(())
}

impl User {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let url = |name: &UserName| format!("/api/v1/users/{name}");
        match self {
            Self::Ls { json } => list_users(paths, json),
            Self::Add { name, role, room, hours, if_missing } => {
                if role != Role::Teacher && (!room.is_empty() || hours.is_some()) {
                    let text = format!(
                        "--room and --hours are limits of teachers, and {name} is to be {role}"
                    );
                    return Err(WrongUsage(text).into());
                }
                if if_missing && is_there(&Site::open(paths)?, &name, role)? {
                    say(format!("{name}: is there already as {role}; nothing was changed"));
                    return Ok(());
                }
                let password = new_password(&name)?;
                let site = Site::open(paths)?;
                let reach = Reach { rooms: some_rooms(room).unwrap_or(Rooms::All), hours };
                let mut user = json!({ "name": name, "role": role, "password": password });
                if reach != Reach::EVERYWHERE {
                    // Only then, so that a server of the version before understands it.
                    (user["rooms"], user["hours"]) = (json!(reach.rooms), json!(reach.hours));
                }
                let _: Value = site.send(Method::POST, "/api/v1/users", &user)?;
                say(format!("{name}: added as {role}, and may {}", role.right().title()));
                if role == Role::Teacher {
                    say(format!("{name}: {}", works_with(&reach)));
                }
                Ok(())
            }
            Self::Rooms { name, rooms, all, none, hours, any_time } => {
                let rooms = match (all, none) {
                    (true, _) => Some(Rooms::All),
                    (_, true) => Some(Rooms::from_iter([])),
                    _ => some_rooms(rooms),
                };
                let mut change = serde_json::Map::new();
                if let Some(rooms) = rooms {
                    change.insert("rooms".to_owned(), json!(rooms));
                }
                if hours.is_some() || any_time {
                    change.insert("hours".to_owned(), json!(hours));
                }
                if change.is_empty() {
                    let text = "name the rooms, or say --all or --none; or the hours, by --hours or --any-time";
                    return Err(WrongUsage(text.to_owned()).into());
                }
                let site = Site::open(paths)?;
                let _: Value = site.send(Method::PATCH, &url(&name), &change)?;
                let user = account(&site, &name)?;
                let (role, words) = (user.role, works_with(&user.reach()));
                say(match role {
                    Role::Teacher => format!("{name}: {words}"),
                    // It is no mistake: so he has them from the beginning.
                    Role::Viewer | Role::Admin => {
                        format!(
                            "{name}: as a teacher {words}; {name} is {role}, for whom that does not count"
                        )
                    }
                });
                Ok(())
            }
            Self::Passwd { name } => {
                let password = new_password(&name)?;
                let site = Site::open(paths)?;
                let change = json!({ "password": password });
                let _: Value = site.send(Method::PATCH, &url(&name), &change)?;
                say(format!("{name}: its password is set, and all its sessions have ended"));
                Ok(())
            }
            Self::Role { name, role } => {
                let site = Site::open(paths)?;
                let change = json!({ "role": role });
                let _: Value = site.send(Method::PATCH, &url(&name), &change)?;
                say(format!("{name}: now {role}, and may {}", role.right().title()));
                if role == Role::Teacher {
                    say(format!("{name}: {}", works_with(&account(&site, &name)?.reach())));
                }
                Ok(())
            }
            Self::TestLogin { name } => test_login(paths, &name),
            Self::Rm { name } => {
                let site = Site::open(paths)?;
                let _: Value = site.send(Method::DELETE, &url(&name), &())?;
                say(format!("{name}: removed, with its sessions and tokens"));
                Ok(())
            }
        }
    }
}

/// Asks the directory as a login does.
fn test_login(paths: &Paths, name: &UserName) -> anyhow::Result<()> {
    let config = Config::load(&paths.config())?;
    let Some(ldap) = &config.ldap else {
        bail!(
            "no directory is configured: write [ldap] into {}, as bootlace help directory shows",
            paths.config().display()
        );
    };
    let users: Vec<Account> = Site::open(paths)?.get("/api/v1/users")?;
    if users.iter().any(|user| user.name == name.as_str()) {
        bail!(
            "{name} has an account of this server, which comes first: the directory is not asked at a login, and \
             another {name} whom it knows is not let in"
        );
    }
    ensure!(
        !service::is_reserved(name),
        "{name} is what the audit log calls others: nobody whom the directory calls so is let in"
    );
    let password = match isatty(std::io::stdin()) {
        true => unseen(&format!("Password of {name} in the directory: "))?,
        false => line()?,
    };
    // Files must be readable as they are to the boot server.
    privileges::become_servers_user(paths)?;
    let mut done = Vec::new();
    let answer = runtime()?.block_on(directory::prove(ldap, name, &password, &mut done));
    for step in done {
        say(step);
    }
    match answer {
        Ok(Answer::In { dn, groups }) => {
            let roles = groups.into_iter().filter_map(|index| ldap.group.get(index));
            let role = roles.map(|group| group.role).max().context("it is in no group")?;
            say(format!("{name}: would be let in as {role}, being {dn}"));
            Ok(())
        }
        Ok(out) => bail!("{name} would not be let in: {out}"),
        Err(failed) => bail!("the directory can't be asked: {failed}. {}", failed.help),
    }
}

/// An account as the API tells it.
#[derive(Deserialize)]
struct Account {
    name: String,
    role: Role,
    password_unix: i64,
    /// A boot server of the version before has neither.
    rooms: Option<Rooms>,
    hours: Option<Hours>,
}

impl Account {
    fn reach(&self) -> Reach {
        let rooms = self.rooms.clone().unwrap_or(Rooms::All);
        Reach { rooms, hours: self.hours.clone() }
    }
}

/// Whether there is an account of this name and role.
///
/// # Errors
/// There is one with another role.
fn is_there(site: &Site, name: &UserName, role: Role) -> anyhow::Result<bool> {
    let users: Vec<Account> = site.get("/api/v1/users")?;
    let user = users.into_iter().find(|user| user.name == name.as_str());
    match user {
        None => Ok(false),
        Some(user) if user.role == role => Ok(true),
        Some(user) => bail!(
            "{name} is there already as {}; nothing was changed. bootlace user role {name} {role} changes that",
            user.role
        ),
    }
}

fn account(site: &Site, name: &UserName) -> anyhow::Result<Account> {
    let users: Vec<Account> = site.get("/api/v1/users")?;
    let user = users.into_iter().find(|user| user.name == name.as_str());
    user.with_context(|| format!("{name} was removed just now"))
}

/// Those that were named; `None`: none was.
fn some_rooms(rooms: Vec<RoomName>) -> Option<Rooms> {
    (!rooms.is_empty()).then(|| rooms.into_iter().collect())
}

/// `works with machines in r101, r102, at mon-fri 7:00-18:00`.
fn works_with(reach: &Reach) -> String {
    let rooms = &reach.rooms;
    match &reach.hours {
        Some(hours) => format!("works with machines in {rooms}, at {hours}"),
        None => format!("works with machines in {rooms}, at any time"),
    }
}

fn list_users(paths: &Paths, json: bool) -> anyhow::Result<()> {
    let users: Value = Site::open(paths)?.get("/api/v1/users")?;
    if json {
        say(serde_json::to_string_pretty(&users)?);
        return Ok(());
    }
    let users: Vec<Account> = serde_json::from_value(users)?;
    if users.is_empty() {
        advise(paths, "No accounts. Add one: bootlace user add NAME --role admin");
        return Ok(());
    }
    let rows: Vec<[String; 4]> = users
        .into_iter()
        .map(|user| {
            let Reach { rooms, hours } = user.reach();
            let works_in = match (user.role, hours) {
                (Role::Teacher, Some(hours)) => format!("{rooms}; {hours}"),
                (Role::Teacher, None) => rooms.to_string(),
                _ => "-".to_owned(),
            };
            [user.name, user.role.to_string(), date(user.password_unix), works_in]
        })
        .collect();
    say(table(["NAME", "ROLE", "PASSWORD SET", "WORKS IN"], &rows));
    Ok(())
}

impl Token {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        match self {
            Self::Ls { json } => list_tokens(paths, json),
            Self::Add { label, scope, room, days } => {
                if !room.is_empty() && scope != Right::Operate {
                    let text = "--room is for tokens with the scope operate: leave it out, or say --scope operate";
                    return Err(WrongUsage(text.to_owned()).into());
                }
                #[derive(Deserialize)]
                struct New {
                    id: u64,
                    secret: String,
                }
                let mut wanted = json!({ "label": label, "scope": scope, "days": days });
                let rooms = some_rooms(room);
                if let Some(rooms) = &rooms {
                    wanted["rooms"] = json!(rooms);
                }
                let new: New = Site::open(paths)?.send(Method::POST, "/api/v1/tokens", &wanted)?;
                say(&new.secret);
                let until = match days {
                    Some(days) => format!("for {}", count(days.into(), "day")),
                    None => "until it is removed".to_owned(),
                };
                // The token alone is what scripts take.
                note(format!(
                    "Token {} is valid {until}, and may {}{}. It is not shown again.",
                    new.id,
                    scope.title(),
                    rooms.map(|rooms| format!(", in {rooms}")).unwrap_or_default()
                ));
                Ok(())
            }
            Self::Rm { number } => {
                let url = format!("/api/v1/tokens/{number}");
                let _: Value = Site::open(paths)?.send(Method::DELETE, &url, &())?;
                say(format!("token {number}: void"));
                Ok(())
            }
        }
    }
}

fn list_tokens(paths: &Paths, json: bool) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Known {
        id: u64,
        label: String,
        user: Option<String>,
        scope: Right,
        rooms: Option<Rooms>,
        expires_unix: Option<i64>,
        last_unix: Option<i64>,
    }
    let tokens: Value = Site::open(paths)?.get("/api/v1/tokens")?;
    if json {
        say(serde_json::to_string_pretty(&tokens)?);
        return Ok(());
    }
    let tokens: Vec<Known> = serde_json::from_value(tokens)?;
    if tokens.is_empty() {
        say("No tokens. Make one: bootlace token add LABEL --scope read");
        return Ok(());
    }
    let rows: Vec<[String; 6]> = tokens
        .into_iter()
        .map(|token| {
            [
                token.id.to_string(),
                token.label,
                token.user.unwrap_or_else(|| "root".to_owned()),
                match token.rooms {
                    None | Some(Rooms::All) => token.scope.to_string(),
                    Some(rooms) => format!("{} in {rooms}", token.scope),
                },
                token.last_unix.map_or_else(|| "never".to_owned(), date),
                token.expires_unix.map_or_else(|| "never".to_owned(), date),
            ]
        })
        .collect();
    say(table(["NUMBER", "FOR", "WHOSE", "MAY", "LAST USED", "EXPIRES"], &rows));
    Ok(())
}

impl Audit {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Page {
            entries: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            at_unix_ms: i64,
            who: String,
            via: String,
            address: Option<String>,
            action: String,
            subject: String,
            changes: Vec<Change>,
        }
        #[derive(Deserialize)]
        struct Change {
            field: String,
            old: Option<String>,
            new: Option<String>,
        }
        let none = match &self.about {
            Some(about) => format!("The audit log has no entry about {about}."),
            None => "The audit log is empty.".to_owned(),
        };
        let about = self.about.map_or_else(String::new, |about| format!("&subject={about}"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._&=".contains(c);
        ensure!(
            about.chars().all(is_plain),
            "names have letters, digits, hyphens, dots and underscores only"
        );
        let page: Value = Site::open(paths)?.get(&format!("/api/v1/audit?n={}{about}", self.n))?;
        if self.json {
            say(serde_json::to_string_pretty(&page["entries"])?);
            return Ok(());
        }
        let page: Page = serde_json::from_value(page)?;
        if page.entries.is_empty() {
            say(none);
        }
        for entry in page.entries {
            let when = Timestamp::from_millisecond(entry.at_unix_ms)?;
            let from = entry.address.map_or_else(String::new, |address| format!(", {address}"));
            say(format!(
                "{when:.0}  {} ({}{from})  {}  {}",
                entry.who, entry.via, entry.action, entry.subject
            ));
            for Change { field, old, new } in entry.changes {
                let nothing = || "nothing".to_owned();
                let (old, new) = (old.unwrap_or_else(nothing), new.unwrap_or_else(nothing));
                say(format!("    {field}: {old} → {new}"));
            }
        }
        Ok(())
    }
}

fn date(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |time| time.to_string())
}

/// A password that somebody types twice, unseen; or the first line of standard input, if that is no terminal.
pub(super) fn new_password(name: &UserName) -> anyhow::Result<String> {
    if !isatty(std::io::stdin()) {
        return line();
    }
    let first = unseen(&format!("Password for {name}: "))?;
    let second = unseen("Again: ")?;
    if first != second {
        bail!("these are two passwords: nothing was changed");
    }
    Ok(first)
}

fn unseen(prompt: &str) -> anyhow::Result<String> {
    let terminal = std::io::stdin();
    let former = tcgetattr(&terminal).context("can't read from the terminal")?;
    let mut silent = former.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    let mut out = std::io::stderr();
    let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    tcsetattr(&terminal, OptionalActions::Flush, &silent).context("can't hide what is typed")?;
    let typed = line();
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &former);
    restored.context("what is typed stays hidden: run stty echo")?;
    typed
}

pub(super) fn line() -> anyhow::Result<String> {
    let mut line = String::new();
    let input = std::io::stdin().lock();
    let n_bytes =
        input.take(LINE_BYTES_MAX).read_line(&mut line).context("can't read the password")?;
    ensure!(n_bytes > 0, "no password came: it is the first line of standard input");
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
