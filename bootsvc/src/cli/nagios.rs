//! `bootlace nagios`

mod far;

use super::output::{unwritten, write_line};
use super::status::{Told, findings, lines};
use crate::paths::Paths;
use crate::site::Site;
use clap::Args;
use clap::builder::PossibleValuesParser;
use far::{Far, Trouble};
use model::{AddressPool, FindingKind, Level, Space};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Print what Nagios, Icinga and others like them read, for a check that they run
///
/// On the server it asks the boot server, as all commands do. With --url it asks the pages, on whichever host it runs, and needs
/// no more than a token with the scope read.
///
/// Ends with 0 if all is well, 1 for a warning, such as a single machine that needs somebody, 2 if machines can't start or go on,
/// 3 if it can't be told. Notices are
/// printed, and are no warning. The figures behind the bar are machines by state, room for their writes, and addresses.
#[derive(Args)]
pub(super) struct Nagios {
    /// Take this kind of finding for a notice; may be given several times
    #[arg(long, value_name = "KIND", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(FindingKind::ALL.iter().map(|kind| kind.word())))]
    ignore: Vec<String>,
    /// Ask the pages at this address instead, like https://boot1:8443
    #[arg(long, requires = "token_file")]
    url: Option<String>,
    /// File with a token in its first line
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// PEM file with the authority of the pages' certificate; without it those that this host trusts
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// Seconds after which the pages have not answered
    #[arg(long, value_name = "SECONDS", requires = "url", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout: u32,
}

/// What a check may say, with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Verdict {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn of(told: &Told, ignored: &[String]) -> Self {
        match () {
            () if ignored.iter().any(|kind| told.is_called(kind)) => Self::Ok,
            () if told.has(Level::Alarm) => Self::Critical,
            () if told.has(Level::Warning) => Self::Warning,
            () => Self::Ok,
        }
    }
}

/// The site at a glance.
#[derive(Debug, Deserialize)]
struct Glance {
    n_machines: usize,
    /// How many are in which state; states in which none is are missing.
    machines: BTreeMap<String, usize>,
    space: Option<Space>,
    pool: Option<AddressPool>,
}

impl Nagios {
    /// Ends with what the check found, whatever that is.
    pub(super) fn run(self, paths: &Paths) -> ExitCode {
        let (verdict, told) = match (&self.url, &self.token_file) {
            (Some(url), Some(token_file)) => {
                let timeout = Duration::from_secs(self.timeout.into());
                let (url, token_file) = (url.clone(), token_file.clone());
                let (verdict, text) =
                    self.look_far(&Far { url, token_file, ca: self.ca.clone(), timeout });
                (verdict, format!("BOOTLACE {}: {text}", verdict.word()))
            }
            _ => {
                let (verdict, text) = self.look(paths).unwrap_or_else(|error| {
                    (Verdict::Unknown, plain(&wire::error_chain(error.as_ref())))
                });
                // What it names to be typed is to be typed here.
                let told = format!("BOOTLACE {}: {text}", verdict.word());
                (verdict, paths.commands().complete(&told))
            }
        };
        match write_line(told) {
            Ok(()) => ExitCode::from(verdict as u8),
            Err(error) => {
                unwritten(&error);
                ExitCode::from(Verdict::Unknown as u8)
            }
        }
    }

    fn look_far(&self, far: &Far) -> (Verdict, String) {
        match far.ask() {
            Ok((glance, found)) => self.tell(&glance, &found),
            Err(Trouble { verdict, text }) => (verdict, plain(&text)),
        }
    }

    fn look(&self, paths: &Paths) -> anyhow::Result<(Verdict, String)> {
        let site = Site::open(paths)?;
        let glance: Glance = site.get("/api/v1/status")?;
        let found = findings(&site)?;
        if !site.has_server() {
            // Its units start the usual site.
            let start = match paths.commands().are_usual() {
                true => "systemctl start bootlace",
                false => "bootlace up",
            };
            let text = format!("no boot server runs here, so no PC can boot: start it by {start}");
            return Ok((Verdict::Critical, text));
        }
        Ok(self.tell(&glance, &found))
    }

    /// The first line says the worst, and has the figures; each further line is a finding.
    fn tell(&self, glance: &Glance, found: &[Told]) -> (Verdict, String) {
        let verdicts: Vec<Verdict> =
            found.iter().map(|told| Verdict::of(told, &self.ignore)).collect();
        let worst = verdicts.iter().copied().max().unwrap_or(Verdict::Ok);
        let n_up = glance.machines.get("up").copied().unwrap_or_default();
        let what = match found.iter().zip(&verdicts).find(|(_, verdict)| **verdict == worst) {
            Some((told, _)) if worst > Verdict::Ok => format!(", {}", plain(told.cause())),
            _ => String::new(),
        };
        let mut text =
            format!("{n_up} of {} machines are up{what} | {}", glance.n_machines, figures(glance));
        for alike in found.chunk_by(Told::is_like) {
            text.push('\n');
            text.push_str(&plain(&lines(alike)));
        }
        (worst, text)
    }
}

/// A text without the sign that begins figures.
fn plain(text: &str) -> String {
    text.replace('|', "/")
}

/// `LABEL=VALUE[UNIT];WARNING;CRITICAL;MIN;MAX`, as the Monitoring Plugins Development Guidelines have it.
fn figures(glance: &Glance) -> String {
    let n_machines = glance.n_machines;
    let mut figures: Vec<String> = service::StateWord::ALL
        .iter()
        .map(|state| {
            let n = glance.machines.get(state.word()).copied().unwrap_or_default();
            format!("{}={n};;;0;{n_machines}", state.word())
        })
        .collect();
    if let Some(Space { free_bytes, total_bytes, .. }) = glance.space {
        figures.push(format!("free={free_bytes}B;;;0;{total_bytes}"));
    }
    if let Some(pool) = glance.pool {
        let n_used = pool.n_machines + pool.n_strangers;
        figures.push(format!("addresses={n_used};;;0;{}", pool.n_addresses));
    }
    figures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(level: &str, kind: &str, cause: &str) -> Told {
        serde_json::from_value(json!({
            "kind": kind, "level": level, "about": "machine", "subject": "lab-07", "since_unix_ms": 0,
            "last_unix_ms": 0, "count": 1, "cause": cause, "remedy": "Look there."
        }))
        .unwrap()
    }

    fn nagios(ignored: &[&str]) -> Nagios {
        let ignore = ignored.iter().map(|&kind| kind.to_owned()).collect();
        Nagios { ignore, url: None, token_file: None, ca: None, timeout: 10 }
    }

    fn glance() -> Glance {
        serde_json::from_value(json!({
            "n_machines": 30,
            "machines": { "up": 28, "failed": 2 },
            "space": { "free_bytes": 5, "total_bytes": 9 },
            "pool": {
                "n_addresses": 100, "n_machines": 30, "n_strangers": 1, "n_strangers_max": 50,
                "n_declined": 0
            }
        }))
        .unwrap()
    }

    #[test]
    fn the_worst_comes_first_and_the_figures_stand_behind_one_bar() {
        let check = nagios(&[]);
        let found =
            [told("alarm", "full", "The disk | is full"), told("warning", "slow", "It is slow")];
        let (verdict, text) = check.tell(&glance(), &found);
        assert_eq!(verdict, Verdict::Critical);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "28 of 30 machines are up, The disk / is full | failed=2;;;0;30 stuck=0;;;0;30 waiting=0;;;0;30 \
             loading=0;;;0;30 starting=0;;;0;30 up=28;;;0;30 local=0;;;0;30 off=0;;;0;30 free=5B;;;0;9 addresses=31;;;0;100"
        );
        assert_eq!(lines[1], "- alarm: lab-07: The disk / is full.");
        assert_eq!(text.matches('|').count(), 1);

        let check = nagios(&["full"]);
        assert_eq!(check.tell(&glance(), &found).0, Verdict::Warning);
        assert_eq!(check.tell(&glance(), &[told("notice", "new", "A PC is new")]).0, Verdict::Ok);
        assert_eq!(check.tell(&glance(), &[]).0, Verdict::Ok);
    }
}
