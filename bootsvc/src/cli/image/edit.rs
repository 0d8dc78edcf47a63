//! `bootlace image edit`, `publish` and `discard`

use super::super::as_job::{Work, word};
use super::super::job::follow;
use super::super::output::{advise, say, table};
use super::super::setup::agrees;
use super::{AboutNew, Asked, after_import};
use crate::paths::Paths;
use crate::site::{Site, connect};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use hyper::Method;
use images::{ChangedDisk, FixChoice, Progress, Store};
use model::{Follows, ImageChoice, ImageName, MachineName, ParseChoiceError, Size};
use serde::Deserialize;
use serde_json::{Value, json};
use service::jobs::PublishOrder;
use service::piped::{Coming, Piece, tell_body};
use std::io::{IsTerminal as _, stdin};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const EDITS: &str = "/api/v1/edits";

/// Pieces of what was changed that wait to be taken.
const PIECES_MAX: usize = 16;

/// A storage server that tells nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Change an image by booting it: one machine gets a disk of its own on it
///
/// From its next boot on the machine boots the image, keeps what it writes there, and nobody else sees that. Change what is to
/// be changed, shut it down, and then: bootlace image publish NAME makes it the next version, bootlace image discard NAME
/// throws it away. Without NAME: list what is being changed.
///
/// Example: bootlace image edit debian-12 --machine lab-01
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Edit {
    /// An image, like debian-12, whose newest version is changed; or a version, like debian-12/v4
    #[arg(requires = "machine")]
    image: Option<Wanted>,
    /// The machine that boots it
    #[arg(long, requires = "image")]
    machine: Option<MachineName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Make what was changed the next version of an image
///
/// The machine must be off. Its file systems are checked, and mended where it was not shut down; kernel, modules and what
/// hurts diskless machines are looked at as at an import. Then the machine boots what it has booted before.
///
/// Example: bootlace image publish debian-12 --note "LibreOffice 7.4"
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Publish {
    /// The image
    name: ImageName,
    /// The machine on which it was changed, if there are several
    #[arg(long)]
    machine: Option<MachineName>,
    #[command(flatten)]
    about: AboutNew,
    /// Lay files over it against what would hurt a diskless machine (see bootlace image fix)
    #[arg(long)]
    fix: bool,
    /// Though another version was made since, whose changes are not in it
    #[arg(long)]
    anyway: bool,
}

/// Throw away what was changed of an image
///
/// The machine boots what it has booted before. Where it still runs on it, what it has written goes when it is off.
///
/// Example: bootlace image discard debian-12
#[derive(Args)]
pub(in crate::cli) struct Discard {
    /// The image
    name: ImageName,
    /// The machine on which it was changed, if there are several
    #[arg(long)]
    machine: Option<MachineName>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

/// `debian-12`, or `debian-12/v4`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Wanted {
    pub(super) image: ImageName,
    pub(super) version: Option<u32>,
}

impl FromStr for Wanted {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        let ImageChoice { image, follows } = text.parse()?;
        match follows {
            Follows::Released => Ok(Self { image, version: None }),
            Follows::Version(version) => Ok(Self { image, version: Some(version) }),
            Follows::Test => Err(ParseChoiceError::new(
                text,
                "an image or a version of one: use NAME, or NAME/v3",
            )),
        }
    }
}

/// What is changed where, as the server says.
#[derive(Deserialize)]
struct Begun {
    machine: MachineName,
    image: ImageName,
    version: u32,
    by: String,
    runs: bool,
    written_bytes: Option<u64>,
    newer: Vec<u32>,
}

impl Edit {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let site = Site::open(paths)?;
        let (Some(Wanted { image, version }), Some(machine)) = (self.image, self.machine) else {
            return list(paths, &site, self.json);
        };
        let wanted = json!({ "image": image, "version": version, "machine": machine });
        let told: Value = site.send(Method::POST, EDITS, &wanted)?;
        if self.json {
            say(serde_json::to_string_pretty(&told)?);
            return Ok(());
        }
        let Begun { machine, image, version, runs, .. } = serde_json::from_value(told)?;
        say(format!("{machine} changes {image}/v{version} from its next boot on"));
        let next = match runs {
            true => format!("It runs now: bootlace machine power {machine} reboot"),
            false => format!("Switch {machine} on"),
        };
        advise(
            paths,
            &format!(
                "{next}. When all is as it should be, shut it down, and then: bootlace image publish {image}"
            ),
        );
        Ok(())
    }
}

fn list(paths: &Paths, site: &Site, json: bool) -> anyhow::Result<()> {
    let edits: Value = site.get(EDITS)?;
    if json {
        say(serde_json::to_string_pretty(&edits)?);
        return Ok(());
    }
    let edits: Vec<Begun> = serde_json::from_value(edits)?;
    if edits.is_empty() {
        advise(
            paths,
            "No image is being changed. To begin: bootlace image edit NAME --machine MACHINE",
        );
        return Ok(());
    }
    let row = |edit: &Begun| {
        let newer: Vec<String> = edit.newer.iter().map(|newer| format!("v{newer}")).collect();
        [
            format!("{}/v{}", edit.image, edit.version),
            edit.machine.to_string(),
            edit.by.clone(),
            if edit.runs { "on, or just off".to_owned() } else { "off".to_owned() },
            edit.written_bytes.map_or("-".to_owned(), |written| Size(written).to_string()),
            if newer.is_empty() { "-".to_owned() } else { newer.join(", ") },
        ]
    };
    let rows: Vec<[String; 6]> = edits.iter().map(row).collect();
    say(table(["IMAGE", "MACHINE", "BY", "STATE", "WRITTEN", "MADE SINCE"], &rows));
    Ok(())
}

/// The machine on which the image is changed.
fn machine_of(
    site: &Site,
    image: &ImageName,
    wanted: Option<MachineName>,
) -> anyhow::Result<MachineName> {
    let mut edits: Vec<Begun> = site.get(EDITS)?;
    edits.retain(|edit| edit.image == *image);
    let machines: Vec<String> = edits.iter().map(|edit| edit.machine.to_string()).collect();
    match (wanted, &edits[..]) {
        (Some(wanted), edits) if edits.iter().any(|edit| edit.machine == wanted) => Ok(wanted),
        (Some(wanted), _) => {
            bail!("{wanted} does not change {image}: bootlace image edit lists who changes what")
        }
        (None, []) => bail!(
            "no machine changes {image}: bootlace image edit {image} --machine MACHINE begins that"
        ),
        (None, [one]) => Ok(one.machine.clone()),
        (None, _) => bail!(
            "several machines change {image}: {}. Say which by --machine",
            machines.join(", ")
        ),
    }
}

impl Publish {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self { name, machine, about: AboutNew { note, state }, fix, anyway } = self;
        let site = Site::open(paths)?;
        if !site.has_server() {
            bail!("the boot server does that, and none runs here");
        }
        let machine = machine_of(&site, &name, machine)?;
        let wanted = json!({ "note": note, "state": state, "fixes": fix, "anyway": anyway });
        let url = format!("{EDITS}/{machine}/publish");
        let job: Value = site.send(Method::POST, &url, &wanted)?;
        let number = job["number"].as_u64().context("the server names no job")?;
        follow(&site, number)
    }
}

impl Discard {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let site = Site::open(paths)?;
        let machine = machine_of(&site, &self.name, self.machine)?;
        // Scripts are not asked, as before.
        if !self.yes && stdin().is_terminal() {
            let question = format!(
                "What {machine} has changed of {} can't be had back. Throw it away",
                self.name
            );
            ensure!(agrees(&question, false)?, "nothing was changed");
        }
        let url = format!("{EDITS}/{machine}");
        let Begun { machine, image, version, runs, .. } =
            site.send(Method::DELETE, &url, &Value::Null)?;
        say(format!("What {machine} has changed of {image}/v{version} is thrown away"));
        if runs {
            let told = format!("It still runs on that: bootlace machine power {machine} reboot");
            advise(paths, &told);
        }
        Ok(())
    }
}

/// Makes what a machine has changed a version, as was ordered.
pub(in crate::cli) fn publish_ordered(
    paths: &Paths,
    order: PublishOrder,
    work: &mut Work,
) -> anyhow::Result<String> {
    let PublishOrder { machine, image, changes_of, snapshot, note, state, fixes } = order;
    let server = connect(paths)?;
    let store = Store::open(&paths.images())?;
    let base = store.version(&image, changes_of)?;
    let source = PathBuf::from(format!("what {machine} has changed"));
    let fix = fixes.then(FixChoice::default);
    let disk = ChangedDisk { source, base, note, state, fix };
    let runtime = super::super::runtime()?;
    let (pieces, changes) = Coming::new(PIECES_MAX);
    let (socket, of) = (paths.storage_socket(), machine.clone());
    let task = runtime.spawn(async move {
        match service::snapshot_changes(&socket, &of, snapshot).await {
            Ok(mut download) => tell_body(&mut download.body, &pieces, SILENCE_MAX).await,
            Err(error) => {
                let _ = pieces.send(Piece::Broken(wire::error_chain(&error))).await;
            }
        }
    });
    let stop = work.stop.clone();
    let imported = store.import_changed(&disk, changes, &stop, &mut |progress: Progress| {
        work.show(word(progress.step), progress.done_bytes, progress.total_bytes);
    });
    task.abort();
    let asked = Asked {
        source: &disk.source,
        note: disk.note.as_deref(),
        state,
        fixes,
        published_from: Some(&machine),
    };
    after_import(paths, server, &store, &asked, imported, work)
}
