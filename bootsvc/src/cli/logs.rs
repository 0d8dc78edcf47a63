//! `bootlace logs`

use super::Refused;
use super::output::{note, say};
use crate::log::root_field;
use crate::paths::Paths;
use crate::site::{Site, connect};
use anyhow::{Context, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use hyper::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::MachineName;
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _};
use std::process::{Child, Command, Stdio};

/// What both servers and their jobs are called by systemd.
const UNITS: [(&str, &str); 4] = [
    ("bootlace.service", "boot server"),
    ("bootlace-storage.service", "storage"),
    ("bootlace-backup.service", "backup"),
    ("bootlace-verify.service", "verify"),
];

/// Lines that are shown unless others are asked for.
const LINES: u32 = 200;

/// The last of a kernel log, where what matters stands.
const KERNEL_LINES: usize = 40;

/// Longest complaint that is read.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Show what both servers have said, about one machine or at all
///
/// It asks the journal, in which each line has fields: of a machine it shows what is about it, whatever the text says, and
/// the end of the kernel log of its last failed boot.
///
///   bootlace logs lab-07
///   bootlace logs --since today --level warn
///   bootlace logs lab-07 --follow
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Logs {
    /// Only what is about this machine
    machine: Option<MachineName>,
    /// From when on: today, -2h, "2026-11-28 14:00"; without it the last lines
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<String>,
    /// How many of the last lines; 200, or with --since all
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,
    /// Only what is at least so bad
    #[arg(long, value_name = "LEVEL", value_parser = level())]
    level: Option<LogLevel>,
    /// Go on with what is said from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl LogLevel {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Error => "a person must act",
            Self::Warn => "odd, and the server coped",
            Self::Info => "each stage of a boot, each change by a person",
            Self::Debug => "all; the servers say it only with -v",
        }
    }

    /// By its number in syslog, all below which are worse.
    const fn of_priority(priority: u8) -> Self {
        match priority {
            0..=3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// What the journal calls it.
    const fn priority(self) -> &'static str {
        match self {
            Self::Error => "3",
            Self::Warn => "4",
            Self::Info => "6",
            Self::Debug => "7",
        }
    }
}

fn level() -> impl TypedValueParser<Value = LogLevel> {
    let words = LogLevel::ALL.map(|level| PossibleValue::new(level.word()).help(level.meaning()));
    let of = |word: String| LogLevel::ALL.into_iter().find(|level| level.word() == word);
    PossibleValuesParser::new(words).map(move |word| of(word).unwrap_or(LogLevel::Debug))
}

/// A machine, as far as lines are about it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct About {
    mac: Option<String>,
    other_macs: Vec<String>,
    address: Option<String>,
}

/// A kernel log, as far as it is printed.
#[derive(Deserialize)]
struct KernelLog {
    boot: u64,
    text: String,
}

impl Logs {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let about = self.machine.as_ref().map(|name| about(paths, name)).transpose()?;
        let mut asked = Asked::start(&self.arguments(paths, about.as_ref()))?;
        let n_shown = asked.show()?;
        asked.end(n_shown)?;
        let Some(name) = self.machine.filter(|_| !self.follow) else {
            if n_shown == 0 {
                say("The journal has no such line.");
            }
            return Ok(());
        };
        // Last, as this process may be another user afterwards.
        let known = kernel_log(paths, &name);
        if n_shown == 0 {
            if known.as_ref().is_err_and(is_missing) {
                return known.map(drop);
            }
            say(format!("The journal has no such line about {name}."));
        }
        match known {
            Ok(Some(KernelLog { boot, text })) => {
                say(format!(
                    "\nThe end of the kernel log of its last failed boot, {boot} (bootlace machine log {name} shows all of it):"
                ));
                let lines: Vec<&str> = text.trim_end().lines().collect();
                say(lines[lines.len().saturating_sub(KERNEL_LINES)..].join("\n"));
            }
            Ok(None) => {}
            // A machine that was removed.
            Err(error) if is_missing(&error) => {
                note(format!("note: there is no machine {name} now"))
            }
            Err(error) => note(format!(
                "note: whether a boot of {name} has failed and sent its kernel log can't be told: {error:#}"
            )),
        }
        Ok(())
    }

    /// For `journalctl`.
    fn arguments(&self, paths: &Paths, about: Option<&About>) -> Vec<String> {
        let mut all = vec!["--no-pager".to_owned(), "--output=json".to_owned()];
        let lines = self.lines.or(self.since.is_none().then_some(LINES));
        all.extend(lines.map(|n| format!("--lines={n}")));
        all.extend(self.since.as_ref().map(|since| format!("--since={since}")));
        all.extend(self.level.map(|level| format!("--priority={}", level.priority())));
        all.extend(self.follow.then(|| "--follow".to_owned()));
        // Others may write such fields, too; from which unit a line is the journal knows by itself.
        match root_field(&paths.root) {
            None => all.extend(UNITS.map(|(unit, _)| format!("--unit={unit}"))),
            Some(root) => all.push(format!("BOOTLACE_ROOT={root}")),
        }
        if let Some(name) = &self.machine {
            let mut matches = vec![format!("BOOTLACE_MACHINE={name}")];
            let About { mac, other_macs, address } =
                about.unwrap_or(&About::default()).clone_parts();
            matches
                .extend(mac.into_iter().chain(other_macs).map(|mac| format!("BOOTLACE_MAC={mac}")));
            matches.extend(address.map(|address| format!("BOOTLACE_ADDRESS={address}")));
            // One of these is enough, of the site each time.
            let site = root_field(&paths.root).map(|root| format!("BOOTLACE_ROOT={root}"));
            for (n, one) in matches.into_iter().enumerate() {
                if n > 0 {
                    all.push("+".to_owned());
                    all.extend(site.clone());
                }
                all.push(one);
            }
        }
        all
    }
}

impl About {
    fn clone_parts(&self) -> Self {
        Self {
            mac: self.mac.clone(),
            other_macs: self.other_macs.clone(),
            address: self.address.clone(),
        }
    }
}

/// What lines are about that are about this machine: its name, which alone is known while no boot server runs, its cards, and
/// the address that it has now.
fn about(paths: &Paths, name: &MachineName) -> anyhow::Result<About> {
    let asked = connect(paths).and_then(|stream| match stream {
        Some(stream) => {
            Site::of_server(paths, stream)?.get(&format!("/api/v1/machines/{name}")).map(Some)
        }
        None => Ok(None),
    });
    match asked {
        Ok(Some(about)) => Ok(about),
        Ok(None) => {
            note(format!(
                "note: no boot server runs, so lines are shown that name {name}, and not those that name only its network card"
            ));
            Ok(About::default())
        }
        // It may have been one.
        Err(error) if is_missing(&error) => Ok(About::default()),
        Err(error) => {
            note(format!(
                "note: lines are shown that name {name}, and not those that name only its network card, as the boot server does not \
                 tell which it has: {error:#}"
            ));
            Ok(About::default())
        }
    }
}

fn kernel_log(paths: &Paths, name: &MachineName) -> anyhow::Result<Option<KernelLog>> {
    // A site that nobody has begun is not made by a look at it.
    if matches!(paths.database().try_exists(), Ok(false)) {
        return Err(
            Refused::new(StatusCode::NOT_FOUND, format!("there is no machine {name}")).into()
        );
    }
    Site::open(paths)?.get(&format!("/api/v1/machines/{name}/log"))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// A `journalctl` that answers.
struct Asked {
    child: Child,
    complaint: File,
}

/// Where there is no journal.
const NO_JOURNAL: &str = "there is no journal on this computer: the servers say all on the standard error of whoever starts them, which \
                          bootlace up 2>>bootlace.log would keep; where systemd runs, its units keep it";

impl Asked {
    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let complaint = tempfile::tempfile().context("can't make a temporary file")?;
        let mut command = Command::new("journalctl");
        command
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.stderr(complaint.try_clone()?);
        match command.spawn() {
            Ok(child) => Ok(Self { child, complaint }),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(NO_JOURNAL),
            Err(error) => Err(error).context("can't run journalctl"),
        }
    }

    /// Prints what comes; how many lines that were.
    fn show(&mut self) -> anyhow::Result<u64> {
        let Some(output) = self.child.stdout.take() else { return Ok(0) };
        let mut n_shown = 0;
        for line in BufReader::new(output).lines() {
            let line = line.context("can't read what the journal says")?;
            let entry: Value = serde_json::from_str(&line)
                .context("what journalctl says is not understood: is it as old as that?")?;
            say(in_words(&entry));
            n_shown += 1;
        }
        Ok(n_shown)
    }

    /// Sees that what was shown is all that there is.
    fn end(mut self, n_shown: u64) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        let mut complaint = Vec::new();
        self.complaint.rewind()?;
        self.complaint.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint)?;
        let complaint = String::from_utf8_lossy(&complaint);
        if complaint.contains("No journal files were found") || (n_shown == 0 && !has_journal()) {
            bail!(NO_JOURNAL);
        }
        let is_denied = [
            "not seeing messages from other users",
            "insufficient permissions",
            "Permission denied",
        ];
        if is_denied.iter().any(|words| complaint.contains(words)) {
            let told = "this user may not read the journal of the servers: use sudo, or become a member of the group systemd-journal";
            return Err(Refused::forbidden(told).into());
        }
        if !status.success() && (n_shown == 0 && !complaint.trim().is_empty()) {
            bail!("journalctl failed: {}", complaint.trim());
        }
        Ok(())
    }
}

/// Whether there are folders of a journal, or might be: that there is none journalctl does not always say.
fn has_journal() -> bool {
    ["/var/log/journal", "/run/log/journal"].iter().any(|folder| match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != ErrorKind::NotFound,
    })
}

/// `2026-11-28 14:00:03  boot server  warn   what it says`
fn in_words(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let micros: Option<i64> = text("__REALTIME_TIMESTAMP").parse().ok();
    let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    let time = time.map_or_else(String::new, |time| {
        time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    });
    // What systemd says of a unit has its name elsewhere.
    let of_unit = |name: &str| UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, who)| *who);
    let who = match (of_unit(text("_SYSTEMD_UNIT")), of_unit(text("UNIT"))) {
        (Some(who), _) => who,
        (None, Some(_)) => "systemd",
        // One of a trial.
        (None, None) if text("BOOTLACE_TARGET").starts_with("storage") => "storage",
        (None, None) => "bootlace",
    };
    let level = text("PRIORITY").parse().map_or(LogLevel::Info, LogLevel::of_priority);
    let message = match &entry["MESSAGE"] {
        Value::String(message) => message.clone(),
        // What is no text comes as numbers.
        Value::Array(bytes) => {
            let bytes: Vec<u8> =
                bytes.iter().filter_map(|byte| byte.as_u64()?.try_into().ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    format!("{time}  {who:<11}  {:<5}  {}", level.word(), message.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn logs(machine: Option<&str>) -> Logs {
        let machine = machine.map(|name| name.parse().unwrap());
        Logs { machine, since: None, lines: None, level: None, follow: false }
    }

    #[test]
    fn a_machine_is_looked_for_by_fields_of_our_units() {
        let about = About {
            mac: Some("52:54:00:00:00:01".into()),
            other_macs: vec!["52:54:00:00:00:02".into()],
            address: Some("10.0.5.100".into()),
        };
        let usual = Paths::under(Path::new("/"));
        let all = logs(Some("lab-07")).arguments(&usual, Some(&about)).join(" ");
        assert!(all.contains("--unit=bootlace.service --unit=bootlace-storage.service"), "{all}");
        let matches = "BOOTLACE_MACHINE=lab-07 + BOOTLACE_MAC=52:54:00:00:00:01 + BOOTLACE_MAC=52:54:00:00:00:02 + \
                       BOOTLACE_ADDRESS=10.0.5.100";
        assert!(all.ends_with(matches), "{all}");
        // Lines of a trial are from no unit.
        let trial =
            logs(Some("lab-07")).arguments(&Paths::under(Path::new("/tmp/t")), Some(&about));
        assert!(!trial.join(" ").contains("--unit"), "{trial:?}");
        assert_eq!(trial.iter().filter(|it| *it == "BOOTLACE_ROOT=/tmp/t").count(), 4, "{trial:?}");
    }

    #[test]
    fn all_lines_are_shown_since_a_time_and_else_the_last() {
        let usual = Paths::under(Path::new("/"));
        let all = |logs: Logs| logs.arguments(&usual, None).join(" ");
        assert!(all(logs(None)).contains("--lines=200"));
        let since =
            all(Logs { since: Some("-2h".into()), level: Some(LogLevel::Warn), ..logs(None) });
        assert!(
            since.contains("--since=-2h --priority=4") && !since.contains("--lines"),
            "{since}"
        );
    }

    #[test]
    fn a_line_says_when_who_and_how_bad() {
        let entry = serde_json::json!({
            "__REALTIME_TIMESTAMP": "1795874403000000", "_SYSTEMD_UNIT": "bootlace-storage.service",
            "PRIORITY": "4", "MESSAGE": "disk\nlost"
        });
        let line = in_words(&entry);
        assert!(
            line.ends_with("  storage      warn   disk lost") && line.starts_with("2026-11-"),
            "{line}"
        );
        let entry = serde_json::json!({ "UNIT": "bootlace.service", "MESSAGE": [72, 105, 255] });
        assert!(in_words(&entry).ends_with("systemd      info   Hi\u{fffd}"));
    }
}
