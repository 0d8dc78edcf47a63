//! Whether the same source in another folder gives the same bytes.

use super::{make, programs};
use crate::build::{Place, commit, root, source_date};
use crate::say;
use anyhow::{Context, Result, bail};
use lab::run as run_command;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What lies in the tree and is no source.
const LEFT_OUT: [&str; 2] = [".git", "target"];

/// Builds a copy of the source, and compares its programs with those in `folder`.
pub(super) fn run(folder: &Path) -> Result<()> {
    let elsewhere =
        tempfile::Builder::new().prefix("bootlace-elsewhere-").tempdir_in("/var/tmp")?;
    let root_there = elsewhere.path().join("folder/of/another/name");
    fs::create_dir_all(&root_there)?;
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            run_command(Command::new("cp").arg("-a").arg(entry.path()).arg(&root_there))?;
        }
    }
    let place = Place {
        target: root_there.join("target"),
        root: root_there,
        // There is no repository to ask.
        commit: commit(),
        date: source_date(),
    };
    say(&format!("building a copy in {}", place.root.display()));
    let other = make(&place)?;
    let mut different = Vec::new();
    for name in programs() {
        let read = |folder: &Path| {
            let path = folder.join(&name);
            fs::read(&path).with_context(|| format!("can't read {}", path.display()))
        };
        let (here, there) = (read(folder)?, read(&other)?);
        if here != there {
            let first = here.iter().zip(&there).position(|(one, other)| one != other);
            different
                .push(format!("{name} from byte {}", first.unwrap_or(here.len().min(there.len()))));
        }
        say(&format!("{name}: {} bytes here, {} there", here.len(), there.len()));
    }
    if !different.is_empty() {
        let kept = elsewhere.keep();
        bail!("two builds differ: {}; the other is in {}", different.join(", "), kept.display());
    }
    say("both builds are the same, byte by byte");
    Ok(())
}
