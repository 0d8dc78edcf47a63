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

/// Removes the machine, after a question if it keeps a disk and `is_said` does not answer that.
pub(super) fn remove(paths: &Paths, name: &MachineName, is_said: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let machine: model::Machine = site.get(&url(name))?;
    let disk: Option<Disk> = site.get(&format!("{}/disk", url(name)))?;
    let of_another = disk.as_ref().and_then(|disk| disk.of_another.clone());
    if let Some(disk) = disk.filter(|disk| !is_said && disk.of_another.is_none()) {
        let lost = disk.in_words(name);
        if !io::stdin().is_terminal() {
            let text = format!(
                "{lost}, which would be deleted, and there is no terminal to ask: give --yes to delete it"
            );
            return Err(WrongUsage(text).into());
        }
        if !agrees(&format!("{lost}. Remove the machine, and delete that disk"), false)? {
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
    Ok(())
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
