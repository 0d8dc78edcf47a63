//! `bootlace image shell`

use super::super::as_job::{Work, as_job, caller, word};
use super::super::output::note;
use super::super::setup::decides;
use super::edit::Wanted;
use super::{AboutNew, Asked, after_import, check_owner, say_next};
use crate::paths::Paths;
use crate::privileges::become_command_with_readers;
use crate::shell::{Ended, Ordered, Shell};
use crate::site::{Site, connect};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use images::{ChangedDisk, FixChoice, Progress, Store};
use model::{Architecture, ImageVersion, VersionState};
use nix::unistd::geteuid;
use service::jobs::{JobKind, NewJob};
use std::io::{IsTerminal as _, stdin};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Change an image on this server: a shell in a copy of it, or one command
///
/// What was changed becomes the next version when the shell has ended and you agree, or when the command ends with 0; otherwise
/// it is thrown away. The copy is a container (systemd-nspawn) with this server's network, in which no service is started. For what
/// wants a desktop, a driver or a running system, change the image by booting it: bootlace image edit. Needs root.
///
/// Examples: bootlace image shell debian-12
///           bootlace image shell debian-12 --note "security updates" -- sh -c "apt-get update && apt-get -y upgrade"
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct OpenShell {
    /// An image, like debian-12, whose newest version is changed; or a version, like debian-12/v4
    image: Wanted,
    #[command(flatten)]
    about: AboutNew,
    /// Lay files over it against what would hurt a diskless machine (see bootlace image fix)
    #[arg(long)]
    fix: bool,
    /// Though newer versions are there, whose changes are not in this one
    #[arg(long)]
    anyway: bool,
    /// A command to run in place of a shell, with its arguments, behind --
    #[arg(last = true)]
    command: Vec<String>,
}

impl OpenShell {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self { image: Wanted { image, version }, about, fix, anyway, command } = self;
        let AboutNew { note, state } = about;
        ensure!(
            geteuid().is_root(),
            "a shell in an image is a container, which only root may start: use sudo"
        );
        check_owner(paths)?;
        let is_asked = command.is_empty();
        ensure!(
            !is_asked || stdin().is_terminal(),
            "a shell needs a terminal: name a command behind --"
        );
        // Who starts the container stays root; this process does not.
        let shell = Shell::begin(&paths.root).context("can't begin")?;
        let (server, by) = (connect(paths)?, caller());
        become_command_with_readers(paths)?;
        if server.is_none() {
            drop(Site::enter(paths, None)?);
        }
        let store = Store::open(&paths.images())?;
        let newest = newest(&store, &image)?;
        let base = match version {
            Some(version) if !anyway && version < newest.version => bail!(
                "{image}/v{} is newer than v{version}, and what is new in it would not be in what is made here: leave the version out, or \
                 say --anyway",
                newest.version
            ),
            Some(version) => store.version(&image, version)?,
            None => newest,
        };
        ensure!(
            is_of_this_server(base.architecture),
            "{image}/v{} is for {}, and this server is another kind of processor: change it by booting it (bootlace image edit)",
            base.version,
            base.architecture
        );
        let source = PathBuf::from(format!("what was changed of {image}/v{}", base.version));
        let what = format!("{image}: changes of v{} in a shell", base.version);
        let new = NewJob { kind: JobKind::ImagePublish, what, by };
        let fix = fix.then(FixChoice::default);
        let disk = ChangedDisk { source, base, note, state, fix };
        let mut is_published = false;
        as_job(paths, new, |work| {
            let (told, is_new) = change(paths, server, &store, shell, &disk, command, work)?;
            is_published = is_new;
            Ok(told)
        })?;
        if is_published {
            say_next(paths, &image, state, false);
        }
        Ok(())
    }
}

/// Whether this processor runs its programs.
fn is_of_this_server(architecture: Architecture) -> bool {
    match architecture {
        Architecture::X86_64 => cfg!(target_arch = "x86_64"),
        Architecture::Arm64 => cfg!(target_arch = "aarch64"),
    }
}

/// The newest version that machines get, or else the newest of all.
fn newest(store: &Store, image: &model::ImageName) -> anyhow::Result<ImageVersion> {
    let states = store.states()?;
    let mut versions = store.list()?;
    versions.retain(|version| version.image == *image);
    versions.sort_unstable_by_key(|version| version.version);
    let state =
        |of: &ImageVersion| states.get(&(image.clone(), of.version)).copied().unwrap_or_default();
    let is_given =
        |of: &&ImageVersion| matches!(state(of), VersionState::Released | VersionState::Test);
    let newest = versions.iter().rev().find(is_given).or(versions.last());
    newest
        .cloned()
        .with_context(|| format!("there is no image {image}: bootlace image ls shows all"))
}

/// Has somebody change a copy of the version. Returns what became of it, and whether there is a new version.
fn change(
    paths: &Paths,
    server: Option<UnixStream>,
    store: &Store,
    shell: Shell,
    disk: &ChangedDisk,
    command: Vec<String>,
    work: &mut Work,
) -> anyhow::Result<(String, bool)> {
    let stop = work.stop.clone();
    let named = format!("{}/v{}", disk.base.image, disk.base.version);
    let copy = store.copy_to_change(disk, &stop, &mut |progress: Progress| {
        work.show(word(progress.step), progress.done_bytes, progress.total_bytes);
    })?;
    let is_asked = command.is_empty();
    work.note(match is_asked {
        true => format!("this is a copy of {named}: exit ends it, and asks what becomes of it"),
        false => format!("the command runs in a copy of {named}"),
    });
    let host_name = disk.base.image.to_string();
    let ordered = Ordered { file_systems: copy.to_mount(&disk.source)?, command, host_name };
    let ended = shell.run(copy.path(), &ordered, &stop)?;
    match ended {
        _ if stop.is_stopping() => bail!("it was told to stop: no version was made"),
        Ended::Failed(why) => bail!("no version was made: {why}"),
        Ended::Unchanged => {
            let told = "nothing was changed but perhaps logs and caches: no version was made";
            note(told);
            return Ok((told.to_owned(), false));
        }
        // Whatever the last command in it was.
        Ended::Code(_) if is_asked => {
            let question =
                format!("Make this the next version of {} ({})", disk.base.image, disk.state);
            if !decides(&question)? {
                note("thrown away");
                return Ok(("thrown away".to_owned(), false));
            }
        }
        Ended::Code(0) => {}
        Ended::Code(code) => {
            bail!("what it has changed is thrown away: the command has ended with {code}")
        }
    }
    let imported = store.import_copy(copy, disk, &stop, &mut |progress: Progress| {
        work.show(word(progress.step), progress.done_bytes, progress.total_bytes);
    });
    let asked = Asked {
        source: &disk.source,
        note: disk.note.as_deref(),
        state: disk.state,
        fixes: disk.fix.is_some(),
        published_from: None,
    };
    let told = after_import(paths, server, store, &asked, imported, work)?;
    Ok((told, true))
}
