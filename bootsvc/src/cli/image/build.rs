//! `bootlace image build` and `recipes`

use super::super::as_job::{Work, as_job, caller};
use super::super::output::say;
use super::{AboutNew, check_owner, import_now, say_next};
use crate::builder::{Built, Ordered, Told};
use crate::paths::Paths;
use crate::privileges::become_command_with_readers;
use crate::site::connect;
use anyhow::{Context as _, bail, ensure};
use images::{ImportRequest, Recipe, Source};
use model::ImageName;
use nix::unistd::geteuid;
use service::jobs::{BuildOrder, JobKind, NewJob};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How soon it is seen that the build is to stop.
const POLL: Duration = Duration::from_millis(100);

/// What is to be built.
pub(super) struct Wanted {
    pub(super) recipe: String,
    pub(super) name: Option<ImageName>,
    pub(super) set: Vec<(String, String)>,
    pub(super) package: Vec<String>,
    pub(super) mirror: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) about: AboutNew,
}

/// `keyboard=de`.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as PARAMETER=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn show_recipes(name: Option<&str>) -> anyhow::Result<()> {
    if let Some(name) = name {
        say(Recipe::text_of(name)?.trim_end());
        return Ok(());
    }
    for (name, recipe) in Recipe::ours() {
        say(format!("{name}: {}", recipe.title));
        for (name, parameter) in &recipe.parameters {
            let choices = match parameter.choices.is_empty() {
                true => String::new(),
                false => format!(" ({})", parameter.choices.join(", ")),
            };
            let set = format!("--set {name}={}", parameter.default);
            say(format!("  {set:24} {}{choices}", parameter.about));
        }
    }
    Ok(())
}

pub(super) fn build(paths: &Paths, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { recipe: named, name, set, package, mirror, size, about } = wanted;
    let AboutNew { note, state } = about;
    let mut recipe = Recipe::load(&named).with_context(|| format!("can't use {named}"))?;
    recipe.choose(&set)?;
    recipe.add_packages(package)?;
    if let Some(mirror) = mirror {
        recipe.set_mirror(mirror)?;
    }
    let name = match name {
        Some(name) => name,
        None => name_of(&named)?,
    };
    ensure!(geteuid().is_root(), "packages are installed as root: use sudo");
    check_owner(paths)?;
    // The worker stays root; this process does not.
    let ordered = Ordered::Recipe(recipe.clone());
    let built = Built::begin(&ordered, &paths.root).context("can't begin to build")?;
    let (server, by) = (connect(paths)?, caller());
    become_command_with_readers(paths)?;
    let new = NewJob { kind: JobKind::ImageBuild, what: format!("{name} by {named}"), by };
    let disk_bytes = size.or_else(|| recipe.disk_bytes());
    let image = name.clone();
    let request = |source| ImportRequest {
        source,
        disk_bytes,
        name: image,
        note,
        state,
        fix: None,
        is_data: false,
    };
    as_job(paths, new, |work| build_now(paths, server, built, request, work))?;
    say_next(paths, &name, state, false);
    Ok(())
}

/// Builds what was ordered on a page, by whoever may do that.
pub(in crate::cli) fn build_ordered(
    paths: &Paths,
    order: BuildOrder,
    work: &mut Work,
) -> anyhow::Result<String> {
    let BuildOrder { recipe: named, image: name, set, note, state } = order;
    let disk_bytes = Recipe::named(&named)?.disk_bytes();
    let ordered = Ordered::Named { name: named, set: set.into_iter().collect() };
    let socket = paths.builder_socket();
    let built = Built::ask(&ordered, &socket).with_context(|| {
        format!("nobody builds at {}: is bootlace-builder.socket started?", socket.display())
    })?;
    let request =
        |source| ImportRequest { source, disk_bytes, name, note, state, fix: None, is_data: false };
    build_now(paths, connect(paths)?, built, request, work)
}

fn build_now(
    paths: &Paths,
    server: Option<UnixStream>,
    built: Built,
    request: impl FnOnce(Source) -> ImportRequest,
    work: &mut Work,
) -> anyhow::Result<String> {
    // Files come when all is installed: until then it tells how far it is.
    while !built.has_archive()? {
        if work.stop.is_stopping() {
            let _ = built.end();
            bail!("it was told to stop");
        }
        match built.told.recv_timeout(POLL) {
            Ok(Told::Line(line)) => work.say(line),
            Ok(Told::Step { step, done, total }) => work.show(&step, done, total),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let source = built.archive.try_clone().map_err(Into::into);
    let imported = source.and_then(|archive| {
        let request = request(Source::pipe(archive, "what was built")?);
        import_now(paths, server, &request, work)
    });
    for told in built.told.try_iter() {
        if let Told::Line(line) = told {
            work.say(line);
        }
    }
    match (built.end(), imported) {
        // Its own reason is the better one.
        (Some(why), Err(_)) if !work.stop.is_stopping() => bail!("the image was not built: {why}"),
        (_, imported) => imported,
    }
}

/// The image that is meant, if nobody says: that of the recipe.
fn name_of(recipe: &str) -> anyhow::Result<ImageName> {
    let stem = Path::new(recipe).file_stem().unwrap_or_default().to_string_lossy();
    stem.parse()
        .with_context(|| format!("{stem} can't be the name of an image: say another by --name"))
}
