//! Snapshots of machines' disks, and files in them.

use super::super::backup::time;
use super::super::output::say;
use super::url;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::{Context as _, anyhow, bail, ensure};
use hyper::Method;
use model::{DiskId, RollbackOrder, Size, Snapshot, SnapshotFiles, SnapshotList, SnapshotOrder};
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A snapshot as it is typed: `lab-07@3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Named {
    machine: DiskId,
    number: u32,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no snapshot: those are typed as lab-07@3");
        let (machine, number) = text.split_once('@').ok_or_else(wrong)?;
        let machine = machine.parse().map_err(|error: model::BadDiskId| error.to_string())?;
        Ok(Self { machine, number: number.parse().map_err(|_| wrong())? })
    }
}

/// Makes a snapshot.
pub(super) fn make(paths: &Paths, name: &DiskId, note: Option<String>) -> anyhow::Result<()> {
    let at = format!("{}/snapshots", url(name));
    let made: Option<Snapshot> = Site::open(paths)?.work(&at, &SnapshotOrder { note })?;
    say(match made {
        Some(made) => format!("{name}@{}: made", made.number),
        None => format!("{name}: nothing was written since its last snapshot, so none was made"),
    });
    Ok(())
}

/// Deletes one.
pub(super) fn remove(paths: &Paths, Named { machine, number }: &Named) -> anyhow::Result<()> {
    let at = format!("{}/snapshots/{number}", url(machine));
    let () = Site::open(paths)?.send(Method::DELETE, &at, &())?;
    say(format!("{machine}@{number}: deleted; its room comes back in the background"));
    Ok(())
}

/// Lists the snapshots of a machine's disk.
pub(super) fn list(paths: &Paths, name: &DiskId, as_json: bool) -> anyhow::Result<()> {
    let list: SnapshotList = Site::open(paths)?.get(&format!("{}/snapshots", url(name)))?;
    if as_json {
        say(serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    let SnapshotList { snapshots: all, trouble } = list;
    if all.is_empty() {
        say(format!("{name}: no snapshots"));
    }
    for info in all {
        let Snapshot { number, at_unix, kind, note } = info.snapshot;
        let note = note.map_or_else(String::new, |note| format!(", {note}"));
        let next =
            if info.is_next { "; the disk goes back to this one at the next boot" } else { "" };
        let (made, size) = (time(at_unix), Size(info.held_bytes));
        say(format!("{name}@{number}  {made}  {size:>9}  {}{note}{next}", kind.in_words()));
    }
    if let Some(why) = trouble {
        say(format!("{name}: none was made in the last night: {why}"));
    }
    Ok(())
}

/// Has a machine's disk go back, or not.
pub(super) fn roll_back(paths: &Paths, name: &DiskId, to: Option<u32>) -> anyhow::Result<()> {
    let (site, at) = (Site::open(paths)?, format!("{}/rollback", url(name)));
    let Some(snapshot) = to else {
        let was_asked: bool = site.send(Method::DELETE, &at, &())?;
        say(match was_asked {
            true => format!("{name}: its disk stays as it is"),
            false => format!("{name}: no rollback was ordered, so nothing changes"),
        });
        return Ok(());
    };
    let () = site.send(Method::PUT, &at, &RollbackOrder { snapshot })?;
    say(format!(
        "{name}: its disk goes back to snapshot {snapshot} at its next boot, and what it holds then becomes a snapshot itself \
         (bootlace machine rollback {name} --undo calls it off)"
    ));
    Ok(())
}

/// Which file of a snapshot is meant, in the API.
fn file_url(
    page: &str,
    Named { machine, number }: &Named,
    path: &str,
    partition: Option<u8>,
) -> String {
    let mut text = format!("{}/snapshots/{number}/{page}?path=", url(machine));
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text + &partition.map_or_else(String::new, |partition| format!("&partition={partition}"))
}

/// Lists a folder of a snapshot.
pub(super) fn files(
    paths: &Paths,
    snapshot: &Named,
    path: &str,
    partition: Option<u8>,
    as_json: bool,
) -> anyhow::Result<()> {
    let at = file_url("files", snapshot, path, partition);
    let found: SnapshotFiles = Site::open(paths)?.get(&at)?;
    if as_json {
        say(serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    for entry in &found.entries {
        let size = entry.size_bytes.map_or_else(String::new, |bytes| Size(bytes).to_string());
        // Whoever could write to the disk has chosen the name.
        say(format!("{:7}  {size:>9}  {}", entry.kind, model::one_line(&entry.name)));
    }
    if found.is_cut {
        say("(there are more: name a folder or file in it)");
    }
    Ok(())
}

/// Fetches a file of a snapshot.
pub(super) fn fetch(
    paths: &Paths,
    snapshot: &Named,
    path: &str,
    partition: Option<u8>,
    output: Option<PathBuf>,
    force: bool,
) -> anyhow::Result<()> {
    let at = file_url("file", snapshot, path, partition);
    let site = Site::open(paths)?;
    if output.as_deref() == Some(Path::new("-")) {
        ensure!(!std::io::stdout().is_terminal(), "redirect standard output, or name a file");
        let mut out = std::io::stdout().lock();
        site.save(&at, &mut out)?;
        return Ok(out.flush()?);
    }
    let file = match output {
        Some(file) => file,
        None => {
            let name = Path::new(path).file_name();
            PathBuf::from(
                name.ok_or_else(|| anyhow!("{path} names no file: name one, or give -o"))?,
            )
        }
    };
    let failed = || format!("can't write {}", file.display());
    match std::fs::metadata(&file) {
        Ok(there) if there.is_dir() => bail!("{} is a folder: name a file in it", file.display()),
        // A device or a pipe is written to.
        Ok(there) if !there.is_file() && !there.file_type().is_block_device() => {
            let mut out = OpenOptions::new().write(true).open(&file).with_context(failed)?;
            site.save(&at, &mut out)?;
            return Ok(());
        }
        Ok(_) if !force => bail!("{} is there already; --force replaces it", file.display()),
        _ => {}
    }
    // Whoever runs this as root lets nobody else read what only root could on the machine.
    let mut new = crate::new_file::NewFile::create(&file, 0o600).with_context(failed)?;
    let size_bytes = site.save(&at, &mut new)?;
    new.replace().with_context(failed)?;
    say(format!("{}: {}", file.display(), Size(size_bytes)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_typed_with_its_machine() {
        let named: Named = "lab-07@12".parse().unwrap();
        assert_eq!((named.machine.to_string().as_str(), named.number), ("lab-07", 12));
        for text in ["lab-07", "lab-07@", "@3", "lab-07@x", "lab 07@3"] {
            assert!(text.parse::<Named>().is_err(), "{text}");
        }
        let url = file_url("file", &named, "/home/a b/ü?", Some(2));
        assert_eq!(
            url,
            "/api/v1/machines/lab-07/snapshots/12/file?path=/home/a%20b/%C3%BC%3F&partition=2"
        );
    }
}
