//! `bootlace machine rm`

use super::super::WrongUsage;
use super::super::backup::time;
use super::super::output::say;
use super::super::setup::agrees;
use super::super::status::findings;
use super::{Discovered, macs, url};
use crate::paths::Paths;
use crate::site::Site;
use anyhow::bail;
use hyper::Method;
use model::{FindingKind, MachineName, Size};
use serde::Deserialize;
use service::KeptBeside;
use std::io::{self, IsTerminal as _};

/// The disk that a machine keeps, as far as it is known.
#[derive(Deserialize)]
struct Disk {
    written_bytes: Option<u64>,
    made_unix: Option<u64>,
    /// An earlier boot server does not tell.
    #[serde(default)]
    of_another: Option<String>,
}

/// What the machine does.
#[derive(Deserialize)]
struct Now {
    state: State,
}

#[derive(Deserialize)]
struct State {
    word: String,
}

/// Removes the machine, after a question if it keeps a disk or runs, and `is_said` does not answer that.
pub(super) fn remove(paths: &Paths, name: &MachineName, is_said: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let machine: model::Machine = site.get(&url(name))?;
    let disk: Option<Disk> = site.get(&format!("{}/disk", url(name)))?;
    let (own, of_another) = match disk {
        Some(Disk { of_another: Some(owner), .. }) => (None, Some(owner)),
        own => (own, None),
    };
    let now: Now = site.get(&url(name))?;
    // Who has the root elsewhere keeps it.
    let runs = now.state.word == "up" && machine.root_url.is_none();
    let kept: Vec<KeptBeside> = site.get("/api/v1/disks/kept")?;
    let beside: Vec<KeptBeside> =
        kept.into_iter().filter(|kept| kept.disk.machine == *name).collect();
    let question = question(name, own.as_ref(), &beside, runs);
    if let Some((lost, removal)) = question.filter(|_| !is_said) {
        if !io::stdin().is_terminal() {
            let text = format!("{lost}, and there is no terminal to ask: give --yes to {removal}");
            return Err(WrongUsage(text).into());
        }
        if !agrees(&format!("{lost}. Do you want to {removal}"), false)? {
            bail!("nothing was changed");
        }
    }
    let () = site.send(Method::DELETE, &url(name), &())?;
    say(said_of_removed(&site, &machine)?);
    if let Some(owner) = of_another {
        say(format!(
            "The disk of that name stays: it is not of this machine, but of another one that had this name ({owner}). A machine \
             {name} with its network card has it again; bootlace status tells of it until then"
        ));
    }
    if runs {
        say(format!("{name} still runs, and has no root disk any more: switch it off"));
    }
    Ok(())
}

/// What is lost by removing the machine, and what is then asked for; `None`: nothing is.
fn question(
    name: &MachineName,
    disk: Option<&Disk>,
    beside: &[KeptBeside],
    runs: bool,
) -> Option<(String, &'static str)> {
    let has_disk = "remove the machine, and delete that disk";
    let beside = beside.iter().map(|KeptBeside { disk, written_bytes, .. }| {
        let size = written_bytes.map_or_else(String::new, |bytes| format!(" ({})", Size(bytes)));
        format!("{name} has written to {disk}{size}")
    });
    let kept: Vec<String> =
        disk.map(|disk| disk.in_words(name)).into_iter().chain(beside).collect();
    let kept = Some(kept.join(", and ")).filter(|kept| !kept.is_empty());
    match (kept, runs) {
        (None, false) => None,
        (None, true) => Some((format!("{name} runs, and would lose its root disk"), "remove it")),
        (Some(disk), false) => Some((format!("{disk}, which would be deleted"), has_disk)),
        (Some(disk), true) => {
            Some((format!("{disk}, which would be deleted, and runs with it"), has_disk))
        }
    }
}

impl Disk {
    /// `lab-07 keeps a disk: 3.2 GB, written since 2026-11-03 09:12`.
    fn in_words(&self, name: &MachineName) -> String {
        let size = self.written_bytes.map(|bytes| Size(bytes).to_string());
        let since = self.made_unix.map(|unix| format!("written since {}", time(unix)));
        let about: Vec<String> = size.into_iter().chain(since).collect();
        match about.is_empty() {
            true => format!("{name} keeps a disk with what it has written"),
            false => format!("{name} keeps a disk ({})", about.join(", ")),
        }
    }
}

/// What has become of a machine that was removed, of its PC and of its disk.
fn said_of_removed(site: &Site, removed: &model::Machine) -> anyhow::Result<String> {
    let discovered: Vec<Discovered> = site.get("/api/v1/discovered")?;
    let is_seen = discovered.iter().any(|pc| removed.macs().any(|mac| mac == pc.mac));
    let pc = match is_seen {
        true => "its PC is listed as discovered again",
        false => "its PC is listed as discovered when it asks",
    };
    let mut said = format!("{}: removed; {pc} ({})", removed.name, macs(removed));
    let findings = findings(site)?;
    if let Some(left) = findings
        .iter()
        .find(|told| told.is(FindingKind::DiskNotDeleted) && told.is_about(removed.name.as_str()))
    {
        said.push('\n');
        said.push_str(&left.sentences());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_is_asked_about() {
        let name: MachineName = "lab-07".parse().unwrap();
        let disk = Disk { written_bytes: None, made_unix: None, of_another: None };
        let lost = |disk, runs| question(&name, disk, &[], runs).map(|(lost, _)| lost);
        let beside = KeptBeside {
            disk: "lab-07+home".parse().unwrap(),
            stands_on: None,
            written_bytes: Some(3_200_000_000),
            is_wanted: true,
            trouble: None,
        };
        let (text, _) = question(&name, None, &[beside], false).unwrap();
        let expected = "lab-07 has written to lab-07+home (3.2 GB), which would be deleted";
        assert_eq!(text, expected);
        assert_eq!(lost(None, false), None);
        assert_eq!(lost(None, true).unwrap(), "lab-07 runs, and would lose its root disk");
        let text = "lab-07 keeps a disk with what it has written, which would be deleted";
        assert_eq!(lost(Some(&disk), false).unwrap(), text);
        assert_eq!(lost(Some(&disk), true).unwrap(), format!("{text}, and runs with it"));
    }

    #[test]
    fn it_is_said_what_becomes_of_a_removed_machine_and_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::enter(&Paths::under(folder.path()), None).unwrap();
        let name: MachineName = "lab-07".parse().unwrap();
        let change = serde_json::json!({ "mac": "52:54:00:00:00:01" });
        let machine: model::Machine = site.send(Method::PATCH, &url(&name), &change).unwrap();
        let () = site.send(Method::DELETE, &url(&name), &()).unwrap();
        let said = said_of_removed(&site, &machine).unwrap();
        assert!(said.contains("discovered when it asks"), "it was never seen: {said}");
        assert!(said.contains("is not deleted yet: the storage server does not answer"), "{said}");
        assert!(said.contains("Start both servers if they don't run"), "{said}");
    }
}
