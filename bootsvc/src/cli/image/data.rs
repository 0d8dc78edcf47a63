//! `bootlace image new`

use super::super::advise;
use super::super::as_job::{Work, as_job, caller, word};
use super::{Asked, after_import, check_owner, disk_size};
use crate::paths::Paths;
use crate::privileges::become_command;
use crate::site::{Site, connect};
use clap::Args;
use images::{EmptyDisk, Progress, Store};
use model::{ImageName, VersionState};
use service::jobs::{JobKind, NewJob};
use std::path::Path;

/// Make an empty disk that machines have beside their roots
///
/// It is an image without a system: an empty ext4, which takes no room until machines write to it. How machines get it: bootlace
/// disk put.
///
/// Example: bootlace image new homes --size 20G
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct New {
    /// Name of the image, like homes
    name: ImageName,
    /// Size of the disk, like 20G: the most that a machine can write to it
    #[arg(long, value_name = "SIZE", value_parser = disk_size)]
    size: u64,
    /// A remark about it, for people
    #[arg(long)]
    note: Option<String>,
}

impl New {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self { name, size, note } = self;
        make(paths, &EmptyDisk { name: name.clone(), size_bytes: size, note })?;
        let next = format!(
            "Next: bootlace disk put NAME --image {name} --carry /home, or --mount /FOLDER --writes kept, or --swap"
        );
        advise(paths, &next);
        Ok(())
    }
}

/// Makes it, as the next version of its image.
fn make(paths: &Paths, disk: &EmptyDisk) -> anyhow::Result<()> {
    // The boot server is to see who has called, and not who this process becomes.
    let (server, by) = (connect(paths)?, caller());
    become_command(paths)?;
    check_owner(paths)?;
    let what = format!("{}, empty", disk.name);
    let new = NewJob { kind: JobKind::ImageImport, what, by };
    as_job(paths, new, |work: &mut Work| {
        if server.is_none() {
            // Whoever opens the state tells the store which numbers were given out, if that was lost with the versions.
            drop(Site::enter(paths, None)?);
        }
        let store = Store::open(&paths.images())?;
        let stop = work.stop.clone();
        let made = store.make_empty(disk, &stop, &mut |progress: Progress| {
            work.show(word(progress.step), progress.done_bytes, progress.total_bytes);
        });
        let asked = Asked {
            source: Path::new("the empty disk"),
            note: disk.note.as_deref(),
            state: VersionState::Released,
            fixes: false,
            published_from: None,
        };
        after_import(paths, server, &store, &asked, made, work)
    })
}
