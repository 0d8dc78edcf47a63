//! What systemd says of our units.

use super::Look;
use crate::check::Verdict;
use crate::programs::ask;
use std::collections::BTreeMap;
use std::path::Path;

/// Where a systemd that runs is known by.
const SYSTEMD: &str = "/run/systemd/system";

/// The servers.
const SERVERS: [&str; 2] = ["bootlace-storage.service", "bootlace.service"];

/// What starts them with the host.
const TARGET: &str = "bootlace.target";

/// What is done again and again, and what for.
const JOBS: [(&str, &str, &str); 2] = [
    ("bootlace-backup.service", "bootlace-backup.timer", "no backup is made each day"),
    ("bootlace-verify.service", "bootlace-verify.timer", "images are never read as a whole"),
];

/// What is asked of each.
const PROPERTIES: &str =
    "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState";

/// All of them. `has_server`: a boot server answers, whoever has started it.
pub(super) fn looks(has_server: bool) -> Vec<Look> {
    let verdicts = match Path::new(SYSTEMD).try_exists() {
        Ok(true) => asked(has_server),
        Ok(false) => vec![Verdict::Better(
            "systemd does not run on this computer, so nothing starts the servers when it starts, or when one has died: have \
             its service manager run bootlace up"
                .to_owned(),
        )],
        Err(error) => vec![Verdict::Unseen(format!("whether systemd runs ({SYSTEMD}: {error})"))],
    };
    verdicts.into_iter().map(Look::at_servers).collect()
}

fn asked(has_server: bool) -> Vec<Verdict> {
    let jobs = JOBS.iter().flat_map(|(service, timer, _)| [*service, *timer]);
    let units: Vec<&str> = SERVERS.into_iter().chain([TARGET]).chain(jobs).collect();
    let arguments = [&["show", PROPERTIES][..], &units].concat();
    match ask("systemctl", &arguments) {
        Ok(answer) if answer.is_done => judged(&Unit::read(&answer.output), has_server),
        Ok(answer) => {
            let why = answer.complaint.trim();
            vec![Verdict::Wrong(format!("systemd does not tell how the units are: {why}"))]
        }
        Err(error) => vec![Verdict::Wrong(format!(
            "systemd does not tell how the units are: {}",
            wire::error_chain(&error)
        ))],
    }
}

/// A unit, as `systemctl show` tells it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit(BTreeMap<String, String>);

impl Unit {
    /// Units with an empty line between them.
    fn read(text: &str) -> Vec<Self> {
        let unit = |block: &str| {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            Self(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
        };
        text.split("\n\n").map(unit).filter(|unit| !unit.0.is_empty()).collect()
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn is_missing(&self) -> bool {
        self.get("LoadState") == "not-found"
    }
}

fn judged(units: &[Unit], has_server: bool) -> Vec<Verdict> {
    let of = |name: &str| units.iter().find(|unit| unit.get("Id") == name);
    if SERVERS.iter().all(|name| of(name).is_none_or(Unit::is_missing)) {
        return vec![Verdict::Better(
            "there are no units of Bootlace, as it was not installed by its package: nothing starts the servers when this \
             computer starts, or when one has died"
                .to_owned(),
        )];
    }
    let mut verdicts: Vec<Verdict> =
        SERVERS.iter().filter_map(|name| Some(server(of(name)?, has_server))).collect();
    let starters = SERVERS.into_iter().chain([TARGET]).filter_map(of);
    let not_enabled: Vec<&str> = starters
        .filter(|unit| unit.get("UnitFileState") == "disabled")
        .map(|unit| unit.get("Id"))
        .collect();
    if !not_enabled.is_empty() {
        let names = not_enabled.join(" ");
        verdicts.push(Verdict::Better(format!(
            "when this computer restarts the servers do not start with it: systemctl enable {names}"
        )));
    }
    for (service, timer, lack) in JOBS {
        verdicts.extend(of(service).and_then(job));
        verdicts.extend(of(timer).map(|unit| match unit.get("ActiveState") {
            "active" => Verdict::Right(format!("{timer}: active")),
            _ => Verdict::Better(format!(
                "{timer} is not active, so {lack}: systemctl enable --now {timer}"
            )),
        }));
    }
    verdicts
}

/// How a server is.
fn server(unit: &Unit, has_server: bool) -> Verdict {
    let (name, result) = (unit.get("Id"), unit.get("Result"));
    let logs = "bootlace logs --level error says why";
    match (unit.get("LoadState"), unit.get("ActiveState"), unit.get("SubState")) {
        ("masked", ..) => Verdict::Wrong(format!(
            "{name} is masked, so nobody can start it: systemctl unmask {name}"
        )),
        ("not-found", ..) => Verdict::Wrong(format!(
            "{name} is not there, and the other server's unit is: install the package of Bootlace again"
        )),
        ("error" | "bad-setting", ..) => Verdict::Wrong(format!(
            "systemd can't use {name}: systemctl status {name} says why; look at what systemctl edit has put beside it"
        )),
        (_, "active" | "reloading", _) => match unit.get("NRestarts") {
            "0" | "" => Verdict::Right(format!("{name}: active")),
            n => Verdict::Better(format!(
                "{name}: active, but systemd had to start it again {n} times since it was started by somebody: {logs}"
            )),
        },
        (_, "activating", "auto-restart") => Verdict::Wrong(format!(
            "{name} ends again and again ({result}), and systemd starts it again: {logs}"
        )),
        (_, "activating", _) => {
            Verdict::Better(format!("{name} is starting: look again in a minute"))
        }
        (_, "deactivating", _) => Verdict::Better(format!("{name} is stopping")),
        (_, "failed", _) => Verdict::Wrong(format!(
            "{name} has failed ({result}), and is not started again: {logs}; then systemctl restart {name}"
        )),
        // It refuses to start before that.
        (_, _, _) if result == "exec-condition" => Verdict::Wrong(format!(
            "{name} does not run, as Bootlace was not configured when it was to start: bootlace setup, or systemctl start {name} \
             if it is by now"
        )),
        _ if has_server => Verdict::Better(format!(
            "{name} does not run, and the server was started otherwise: when this computer restarts, it will be the unit that runs"
        )),
        _ => Verdict::Wrong(format!("{name} does not run: systemctl start {name}")),
    }
}

/// How the last run of a job has ended, if that is to be told.
fn job(unit: &Unit) -> Option<Verdict> {
    let name = unit.get("Id");
    (unit.get("ActiveState") == "failed").then(|| {
        Verdict::Wrong(format!(
            "the last run of {name} has failed ({}): systemctl status {name} says why; then systemctl start {name}",
            unit.get("Result")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these units, each by its tag.
    fn told(text: &str, has_server: bool) -> Vec<String> {
        let line = |verdict: Verdict| {
            let (tag, text) = verdict.in_words();
            format!("{tag} {text}")
        };
        judged(&Unit::read(text), has_server).into_iter().map(line).collect()
    }

    fn unit(id: &str, active: &str, sub: &str, more: &str) -> String {
        format!("Id={id}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\n{more}\n\n")
    }

    #[test]
    fn units_that_do_as_they_should_are_right() {
        let text = unit(
            "bootlace-storage.service",
            "active",
            "running",
            "NRestarts=0\nUnitFileState=enabled",
        ) + &unit(
            "bootlace.service",
            "active",
            "running",
            "NRestarts=0\nUnitFileState=enabled",
        ) + &unit("bootlace.target", "active", "active", "UnitFileState=enabled")
            + &unit("bootlace-backup.timer", "active", "waiting", "Result=success")
            + &unit("bootlace-backup.service", "inactive", "dead", "Result=success");
        let told = told(&text, true);
        assert!(told.len() == 3 && told.iter().all(|line| line.starts_with("ok ")), "{told:?}");
    }

    #[test]
    fn a_server_that_dies_again_and_again_is_wrong_even_while_it_is_up() {
        let up = unit("bootlace.service", "active", "running", "NRestarts=7");
        assert!(told(&up, true)[0].contains("again 7 times"), "{:?}", told(&up, true));
        let between = unit("bootlace.service", "activating", "auto-restart", "Result=exit-code");
        let line = &told(&between, false)[0];
        assert!(line.starts_with("wrong ") && line.contains("(exit-code)"), "{line}");
    }

    #[test]
    fn what_does_not_run_or_does_not_start_with_the_host_is_told_with_the_command_that_helps() {
        let failed = unit("bootlace.service", "failed", "failed", "Result=watchdog");
        assert!(told(&failed, false)[0].contains("(watchdog)"));
        let dead =
            unit("bootlace.service", "inactive", "dead", "Result=success\nUnitFileState=disabled");
        let lines = told(&dead, false);
        assert!(
            lines[0].starts_with("wrong ") && lines[0].contains("systemctl start bootlace.service")
        );
        assert!(lines[1].contains("systemctl enable bootlace.service"), "{lines:?}");
        assert!(told(&dead, true)[0].starts_with("note "), "somebody has started it otherwise");
        let unconfigured = unit("bootlace.service", "inactive", "dead", "Result=exec-condition");
        assert!(told(&unconfigured, false)[0].contains("bootlace setup"));
        let backup = unit("bootlace.service", "active", "running", "NRestarts=0")
            + &unit("bootlace-backup.service", "failed", "failed", "Result=exit-code")
            + &unit("bootlace-backup.timer", "inactive", "dead", "Result=success");
        let lines = told(&backup, true);
        assert!(
            lines[1].starts_with("wrong ") && lines[1].contains("bootlace-backup.service"),
            "{lines:?}"
        );
        assert!(lines[2].contains("systemctl enable --now bootlace-backup.timer"), "{lines:?}");
        let none = "Id=bootlace.service\nLoadState=not-found\nActiveState=inactive\n";
        assert!(told(none, true)[0].contains("not installed by its package"));
    }
}
