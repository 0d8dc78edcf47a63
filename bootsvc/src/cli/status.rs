//! `bootlace status`

use super::{advise, note, say, table};
use crate::config::{Config, ConfigError};
use crate::paths::Paths;
use crate::site::Site;
use clap::Args;
use model::{FindingKind, Level, Size, Space};
use serde::Deserialize;
use serde_json::Value;
use std::net::Ipv4Addr;
use wire::error_chain;

/// Without it the rest may look as if all were well.
fn no_boot_server(paths: &Paths) -> String {
    // Its units start the usual site.
    let or = if paths.commands().are_usual() { ", or by systemctl start bootlace" } else { "" };
    format!(
        "boot server: none answers, so no PC can boot: start it by bootlace up{or}. What follows is what the disk shows"
    )
}

/// How to begin, where nobody has yet.
fn not_configured(paths: &Paths) -> Option<String> {
    let error = Config::load(&paths.config()).err()?;
    let begin = "Then bootlace check says whether the server can start, and bootlace up starts it";
    matches!(error, ConfigError::Missing { .. }).then(|| format!("{error}. {begin}."))
}

/// What is wrong with the configuration. A server that runs has read it when it was not.
fn unreadable_configuration(paths: &Paths) -> Option<String> {
    let error = Config::load(&paths.config()).err()?;
    (!matches!(error, ConfigError::Missing { .. })).then(|| error_chain(&error))
}

#[derive(Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The site at a glance.
#[derive(Deserialize)]
struct Glance {
    n_machines: u64,
    n_image_versions: u64,
    n_discovered: u64,
    storage_error: Option<String>,
    space: Option<Space>,
    /// A server of an earlier Bootlace does not tell.
    #[serde(default)]
    image_backup_unix: Option<u64>,
}

/// What a machine does.
#[derive(Deserialize)]
struct Doing {
    name: String,
    state: State,
    address: Option<Ipv4Addr>,
}

#[derive(Deserialize)]
struct State {
    word: String,
    sentence: String,
}

impl Status {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let site = Site::open(paths)?;
        let mut status: Value = site.get("/api/v1/status")?;
        let machines: Value = site.get("/api/v1/machines")?;
        let findings = findings(&site)?;
        if self.json {
            (status["findings"], status["n_findings_left_out"]) =
                (serde_json::to_value(&findings)?, 0.into());
            let all = serde_json::json!({
                "status": status,
                "machines": machines,
                "boot_server_is_running": site.has_server(),
            });
            say(serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        let status: Glance = serde_json::from_value(status)?;
        if let Some(error) = unreadable_configuration(paths) {
            note(format!("warning: {error}. Servers don't start with it"));
        }
        if let Some(what) = not_configured(paths).filter(|_| !site.has_server()) {
            // Nothing runs, and all that follows from it is no news.
            advise(paths, &what);
            return Ok(());
        }
        let next: Vec<Next> = serde_json::from_value(machines.clone())?;
        let machines: Vec<Doing> = serde_json::from_value(machines)?;
        say(format!(
            "{}, {}, {}",
            count(status.n_machines, "machine"),
            count(status.n_image_versions, "image version"),
            count(status.n_discovered, "discovered PC")
        ));
        if !site.has_server() {
            advise(paths, &no_boot_server(paths));
        }
        match &status.storage_error {
            // One of the findings says so, and what to do.
            Some(_) if findings.iter().any(|told| told.is(FindingKind::StorageSilent)) => {}
            Some(error) => say(error),
            None => say(match status.space {
                Some(space) => format!(
                    "storage server: running, {} of {} free",
                    Size(space.free_bytes),
                    Size(space.total_bytes)
                ),
                None => "storage server: running".to_owned(),
            }),
        }
        if let Some(unix) = status.image_backup_unix {
            say(format!("images: kept elsewhere, too, at {}", super::backup::time(unix)));
        }
        if !machines.is_empty() {
            let rows: Vec<[String; 4]> = machines
                .iter()
                .map(|machine| {
                    [
                        machine.name.clone(),
                        machine.state.word.clone(),
                        machine.address.map_or("-".into(), |address| address.to_string()),
                        machine.state.sentence.clone(),
                    ]
                })
                .collect();
            say(format!("\n{}", table(["MACHINE", "STATE", "ADDRESS", ""], &rows)));
        }
        for told in to_come(&next) {
            advise(paths, &format!("\n{told}"));
        }
        if !findings.is_empty() {
            say("\nNeeds attention:");
        }
        for group in groups(&findings) {
            say(group.text);
        }
        Ok(())
    }
}

/// A finding as the API tells it. A server of another version may have kinds that this program does not know.
#[derive(Debug, Deserialize, serde::Serialize)]
pub(super) struct Told {
    kind: String,
    level: String,
    about: String,
    subject: String,
    since_unix_ms: u64,
    last_unix_ms: u64,
    count: u64,
    cause: String,
    remedy: String,
}

impl Told {
    /// Whether a person fixes both at once.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.cause == other.cause && self.remedy == other.remedy
    }

    pub(super) fn is(&self, kind: FindingKind) -> bool {
        self.is_called(kind.word())
    }

    /// Whether this is its kind.
    pub(super) fn is_called(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Whether it is so bad.
    pub(super) fn has(&self, level: Level) -> bool {
        self.level == level.word()
    }

    /// What is the matter.
    pub(super) fn cause(&self) -> &str {
        &self.cause
    }

    /// Whether its subject has this name.
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.subject == name
    }

    /// Cause and remedy.
    pub(super) fn sentences(&self) -> String {
        format!("{}. {}", self.cause.trim_end_matches('.'), self.remedy)
    }
}

/// What was ordered for a machine's next boot.
#[derive(Deserialize)]
pub(super) struct Next {
    pub(super) name: String,
    #[serde(default)]
    reset_disk: bool,
    #[serde(default)]
    rescue: Option<Shell>,
}

impl Next {
    /// Whether its next boot stops in a rescue shell.
    pub(super) fn has_rescue(&self) -> bool {
        self.rescue.as_ref().is_some_and(|shell| shell.boot.is_none())
    }
}

/// A rescue shell; of no boot it is the next one's.
#[derive(Deserialize)]
struct Shell {
    boot: Option<u64>,
}

/// What is said of these machines' next boots, a line for each kind of order.
pub(super) fn to_come(machines: &[Next]) -> Vec<String> {
    let names = |is_so: fn(&Next) -> bool| -> Vec<&str> {
        machines.iter().filter(|it| is_so(it)).map(|machine| machine.name.as_str()).collect()
    };
    let line = |names: Vec<&str>, (one, many): (&str, &str), undo: &str| match names.as_slice() {
        [] => None,
        [name] => Some(format!("{name}: {one} ({} calls it off)", undo.replace("NAME", name))),
        names => Some(format!("{}: {many} ({undo} calls it off)", names.join(", "))),
    };
    let resets = line(
        names(|next| next.reset_disk),
        ("its disk will be reset at its next boot", "their disks will be reset at their next boot"),
        "bootlace machine reset NAME --undo",
    );
    let shells = line(
        names(Next::has_rescue),
        ("its next boot stops in a rescue shell", "their next boots stop in a rescue shell"),
        "bootlace machine rescue NAME --off",
    );
    resets.into_iter().chain(shells).collect()
}

/// Subjects of one line; those beyond are counted.
const SUBJECTS_SHOWN_MAX: usize = 12;

/// Findings of one kind with different causes that are told.
const CAUSES_SHOWN_MAX: usize = 5;

/// What findings with one cause say.
pub(super) struct Group {
    pub(super) is_alarm: bool,
    pub(super) text: String,
}

/// What findings say, those with one cause together. Of a kind that strangers can invent there may be hundreds: of each some are
/// told.
pub(super) fn groups(findings: &[Told]) -> Vec<Group> {
    let mut groups = Vec::new();
    for of_kind in findings.chunk_by(|one, other| one.kind == other.kind) {
        let is_alarm = of_kind[0].has(Level::Alarm);
        let (mut told, mut n_more) = (0, 0);
        for alike in of_kind.chunk_by(Told::is_like) {
            told += 1;
            match told > CAUSES_SHOWN_MAX {
                true => n_more += alike.len(),
                false => groups.push(Group { is_alarm, text: lines(alike) }),
            }
        }
        if n_more > 0 {
            let Told { level, kind, .. } = &of_kind[0];
            let text = format!(
                "- {level}: {n_more} more of this kind ({kind}), with other causes.\n  \
                 The page Findings and bootlace status --json have all."
            );
            groups.push(Group { is_alarm, text });
        }
    }
    groups
}

/// What findings with one cause say; they are not none.
pub(super) fn lines(alike: &[Told]) -> String {
    let subjects = alike.iter().filter(|told| told.about != "server");
    let subjects: Vec<&str> = subjects.map(|told| told.subject.as_str()).collect();
    let about = match subjects.as_slice() {
        [] => String::new(),
        [one] => format!("{one}: "),
        many => {
            let n_more = many.len().saturating_sub(SUBJECTS_SHOWN_MAX);
            let shown = many[..many.len() - n_more].join(", ");
            let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
            format!("{shown}{more} ({}): ", many.len())
        }
    };
    let n_times: u64 = alike.iter().map(|told| told.count).sum();
    let times = match n_times > alike.len() as u64 {
        true => format!(" ({n_times} times)"),
        false => String::new(),
    };
    let Told { level, cause, remedy, .. } = &alike[0];
    let cause = cause.trim_end_matches('.');
    format!("- {level}: {about}{cause}{times}.\n  {remedy}")
}

/// What the boot server has found; if none runs, what the state shows.
pub(super) fn findings(site: &Site) -> anyhow::Result<Vec<Told>> {
    let mut told: Value = site.get("/api/v1/findings")?;
    Ok(serde_json::from_value(told["findings"].take())?)
}

/// `1 machine`, `2 machines`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_invent_does_not_hide_the_rest() {
        let one = |kind: &str, n: u32| {
            format!(
                r#"{{"kind":"{kind}","level":"warning","about":"address","subject":"10.9.0.{n}","cause":"Relay {n}","remedy":"Do.","count":1,"since_unix_ms":0,"last_unix_ms":0}}"#
            )
        };
        let all: Vec<String> =
            (0..200).map(|n| one("foreign-relay", n)).chain([one("clock", 1)]).collect();
        let all: Vec<Told> = serde_json::from_str(&format!("[{}]", all.join(","))).unwrap();
        let texts: Vec<String> = groups(&all).into_iter().map(|group| group.text).collect();
        assert_eq!(texts.len(), CAUSES_SHOWN_MAX + 2);
        assert!(
            texts[CAUSES_SHOWN_MAX].starts_with("- warning: 195 more of this kind (foreign-relay)")
        );
        assert_eq!(texts.last().unwrap(), "- warning: 10.9.0.1: Relay 1.\n  Do.");
    }

    #[test]
    fn what_was_ordered_for_the_next_boot_is_told() {
        let next = |text: &str| -> Vec<String> {
            to_come(&serde_json::from_str::<Vec<Next>>(text).unwrap())
        };
        assert_eq!(
            next(r#"[{"name":"lab-01"},{"name":"lab-02","rescue":{"password":null,"boot":7}}]"#),
            [""; 0]
        );
        let told = next(
            r#"[{"name":"lab-01","reset_disk":true,"rescue":{"password":"x","boot":null}},
                {"name":"lab-02","reset_disk":false,"rescue":{"password":null,"boot":null}}]"#,
        );
        let reset = "lab-01: its disk will be reset at its next boot (bootlace machine reset lab-01 --undo calls it off)";
        let shells = "lab-01, lab-02: their next boots stop in a rescue shell (bootlace machine rescue NAME --off calls \
                      it off)";
        assert_eq!(told, [reset, shells]);
    }
}
