//! Whether both servers answer, and are what is installed.

use super::Look;
use crate::check::{Ours, Server, Verdict};
use crate::paths::Paths;
use crate::site::{Refused, Site, connect};
use std::fs;

/// Both. `ours` are those of this site.
pub(super) fn looks(paths: &Paths, ours: &Ours) -> Vec<Look> {
    let boot = version_of_boot_server(paths)
        .map(|version| version.map(|version| Running { version, process: ours.boot.process() }));
    let storage = match &ours.storage {
        Server::Absent => Some(None),
        Server::Runs(process) => {
            let version = ours.storage_version.clone();
            Some(Some(Running { version, process: *process }))
        }
        // That is for check to tell.
        Server::Hangs(_) | Server::Unseen => None,
    };
    let usual = paths.commands().are_usual();
    let boot = boot.map_or_else(|error| failed(&error), |running| BOOT.judged(running, usual));
    let storage = storage.map(|running| STORAGE.judged(running, usual));
    [Some(boot), storage].into_iter().flatten().map(Look::at_servers).collect()
}

/// Of which version it is; `None`: none runs.
fn version_of_boot_server(paths: &Paths) -> anyhow::Result<Option<Option<String>>> {
    let Some(stream) = connect(paths)? else { return Ok(None) };
    Ok(Some(Site::of_server(paths, stream)?.server_version()?))
}

fn failed(error: &anyhow::Error) -> Verdict {
    let told = wire::error_chain(error.as_ref());
    match error.is::<Refused>() {
        true => Verdict::Unseen(format!("whether the boot server answers: {told}")),
        false => Verdict::Wrong(format!("boot server: {told}")),
    }
}

/// A server that answers.
struct Running {
    /// `None`: it does not say.
    version: Option<String>,
    process: Option<u32>,
}

/// Words about one of both.
struct Words {
    name: &'static str,
    unit: &'static str,
    /// What follows if it does not run.
    effect: &'static str,
}

const BOOT: Words = Words { name: "boot server", unit: "bootlace", effect: "so no PC can boot" };
const STORAGE: Words = Words {
    name: "storage server",
    unit: "bootlace-storage",
    effect: "so machines that run wait for their disks, and others get none",
};

impl Words {
    /// `usual`: the units of systemd are those of this site.
    fn judged(&self, running: Option<Running>, usual: bool) -> Verdict {
        let Self { name, unit, effect } = self;
        let Some(Running { version, process }) = running else {
            let or = if usual { format!(", or by systemctl start {unit}") } else { String::new() };
            return Verdict::Wrong(format!(
                "{name}: none answers, {effect}: start it by bootlace up{or}"
            ));
        };
        let restart = match usual {
            true => format!("systemctl restart {unit}; machines that run go on"),
            false => "stop it and start it again; machines that run go on".to_owned(),
        };
        let installed = env!("CARGO_PKG_VERSION");
        match version {
            Some(version) if version != installed => Verdict::Better(format!(
                "{name}: it answers, is of version {version}, and {installed} is installed: {restart}"
            )),
            _ if process.is_some_and(is_replaced) => Verdict::Better(format!(
                "{name}: it answers, and its program was replaced by another one after it had started: {restart}"
            )),
            Some(version) => Verdict::Right(format!(
                "{name}: it answers, and is of version {version}, as installed"
            )),
            None => Verdict::Better(format!(
                "{name}: it answers, and does not say of which version it is, so it is an older one: {restart}"
            )),
        }
    }
}

/// Whether the program that this process runs is not on the disk any more. What may not be seen is no reason to say so.
fn is_replaced(process: u32) -> bool {
    let program = fs::read_link(format!("/proc/{process}/exe"));
    program.is_ok_and(|program| program.to_string_lossy().ends_with(" (deleted)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_missing_or_older_than_what_is_installed_is_told() {
        let told = |running| {
            let verdict = BOOT.judged(running, true);
            let (tag, text) = verdict.in_words();
            (tag, text.to_owned())
        };
        let running = |version: Option<&str>| {
            Some(Running { version: version.map(str::to_owned), process: None })
        };
        assert_eq!(told(running(Some(env!("CARGO_PKG_VERSION")))).0, "ok");
        let (tag, text) = told(running(Some("0.0.1")));
        assert!(
            tag == "note" && text.contains("0.0.1") && text.contains("systemctl restart bootlace"),
            "{text}"
        );
        assert_eq!(told(running(None)).0, "note");
        let (tag, text) = told(None);
        assert!(tag == "wrong" && text.contains("no PC can boot"), "{text}");
        let trial = BOOT.judged(None, false);
        assert!(!trial.in_words().1.contains("systemctl"), "its units start another site");
    }
}
