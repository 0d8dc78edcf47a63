//! `bootlace image release`, `test`, `retire`, `rollback` and `rm`

use super::super::WrongUsage;
use super::super::output::{advise, say};
use super::super::setup::agrees;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::bail;
use hyper::Method;
use images::{FileChange, FileChanges, PackageChange};
use model::{Follows, ImageChoice, ImageName, ParseChoiceError, Size, VersionNumber, VersionState};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;

/// Machines that are named at the end of a command; more don't fit into a line.
const NAMES_MAX: usize = 12;

/// A version of an image, like `debian-12/v3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct NamedVersion {
    image: ImageName,
    version: u32,
}

impl fmt::Display for NamedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/v{}", self.image, self.version)
    }
}

impl FromStr for NamedVersion {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        match text.parse() {
            Ok(ImageChoice { image, follows: Follows::Version(version) }) => {
                Ok(Self { image, version })
            }
            _ => Err(ParseChoiceError::new(text, "a version of an image: use NAME/v3")),
        }
    }
}

impl NamedVersion {
    pub(super) const fn new(image: ImageName, version: u32) -> Self {
        Self { image, version }
    }

    pub(super) const fn parts(&self) -> (&ImageName, u32) {
        (&self.image, self.version)
    }

    pub(super) fn url(&self) -> String {
        format!("/api/v1/images/{}/{}", self.image, self.version)
    }
}

/// What a version that is imported can be.
pub(super) fn new_state(text: &str) -> Result<VersionState, ParseChoiceError> {
    match text.parse()? {
        VersionState::Retired => Err(ParseChoiceError::new(
            text,
            "a state of a new version: use released, test or draft",
        )),
        state => Ok(state),
    }
}

/// What the server says of a change.
#[derive(Deserialize)]
struct Released {
    version: Option<u32>,
    changed: Vec<(u32, VersionState)>,
    behind: Vec<String>,
    apart: Vec<String>,
}

/// Says for whom a version is.
pub(super) fn set(
    paths: &Paths,
    version: &NamedVersion,
    state: VersionState,
) -> anyhow::Result<()> {
    let change = json!({ "state": state });
    let now: Released = Site::open(paths)?.send(Method::PATCH, &version.url(), &change)?;
    if now.changed.is_empty() {
        say(format!("{version} is {} already", in_words(state)));
    }
    tell(paths, &version.image, &now);
    let newer = now.version.filter(|newer| *newer > version.version);
    if let Some(newer) = newer.filter(|_| state == VersionState::Released) {
        advise(
            paths,
            &format!(
                "v{newer} is released, too, and newer. To make v{} what machines get: bootlace image rollback {} --to {}",
                version.version, version.image, version.version
            ),
        );
    }
    Ok(())
}

/// Says something else about a version.
pub(super) fn set_note(paths: &Paths, version: &NamedVersion, note: &str) -> anyhow::Result<()> {
    let url = format!("{}/note", version.url());
    let _: Value = Site::open(paths)?.send(Method::PUT, &url, &json!({ "note": note }))?;
    say(match note {
        "" => format!("{version}: its note is gone"),
        note => format!("{version}: {note}"),
    });
    Ok(())
}

/// Says if machines that follow this would wait in their loader, as no version is for them.
pub(in crate::cli) fn warn_of_nothing(
    paths: &Paths,
    site: &Site,
    choice: &ImageChoice,
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Known {
        image: ImageName,
        version: u32,
        state: VersionState,
    }
    let known: Vec<Known> = site.get("/api/v1/images")?;
    let of_image = known.iter().filter(|it| it.image == choice.image);
    let is_there = of_image.clone().any(|it| choice.takes(it.version, it.state));
    if let Some(newest) = of_image.map(|it| it.version).max().filter(|_| !is_there) {
        advise(
            paths,
            &format!(
                "Whoever boots {choice} waits in the loader: no version of {} is for that. To release the newest: \
                 bootlace image release {}/v{newest}",
                choice.image, choice.image
            ),
        );
    }
    Ok(())
}

/// Makes an older version what machines get.
pub(super) fn roll_back(paths: &Paths, image: &ImageName, to: Option<u32>) -> anyhow::Result<()> {
    let url = format!("/api/v1/images/{image}/rollback");
    let now = Site::open(paths)?.send(Method::POST, &url, &json!({ "to": to }))?;
    tell(paths, image, &now);
    Ok(())
}

/// Reads `3`, or `v3`.
pub(super) fn number(text: &str) -> Result<u32, ParseChoiceError> {
    text.parse().map(|VersionNumber(number)| number)
}

const fn in_words(state: VersionState) -> &'static str {
    match state {
        VersionState::Draft => "a draft",
        VersionState::Test => "to be tested",
        VersionState::Released => "released",
        VersionState::Retired => "retired",
    }
}

fn tell(paths: &Paths, image: &ImageName, now: &Released) {
    for (version, state) in &now.changed {
        say(format!("{image}/v{version} is {}", in_words(*state)));
    }
    say(match now.version {
        Some(version) => {
            format!("Machines with the image {image} get v{version} at their next boot")
        }
        None => format!("No version of {image} is released"),
    });
    if !now.apart.is_empty() {
        say(format!(
            "Not so {}: they follow what is to be tested or one version, or keep a disk (bootlace machine ls)",
            listed(&now.apart)
        ));
    }
    if !now.behind.is_empty() {
        let run = if now.behind.len() == 1 { "runs" } else { "run" };
        advise(
            paths,
            &format!(
                "{} still {run} another version than at the next boot. To restart one now: bootlace machine power {} reboot",
                listed(&now.behind),
                now.behind[0]
            ),
        );
    }
}

fn listed(names: &[String]) -> String {
    let (shown, more) = names.split_at(names.len().min(NAMES_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{}{more}", shown.join(", "))
}

/// What differs between two versions.
#[derive(Deserialize)]
struct Changes {
    since: u32,
    version: u32,
    kernel: Option<[String; 2]>,
    packages: Option<Vec<PackageChange>>,
    files: Option<FileChanges>,
}

/// Tells what differs between a version and an older one.
pub(super) fn changes(
    paths: &Paths,
    version: &NamedVersion,
    since: Option<u32>,
    with_files: bool,
    json: bool,
) -> anyhow::Result<()> {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let url = format!("{}/changes?files={with_files}{since}", version.url());
    let told: Value = Site::open(paths)?.get(&url)?;
    if json {
        say(serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    let Changes { since, version: number, kernel, packages, files } = serde_json::from_value(told)?;
    say(format!("{}: from v{since} to v{number}", version.image));
    say(match kernel {
        Some([old, new]) => format!("kernel: {old} -> {new}"),
        None => "kernel: the same".to_owned(),
    });
    match packages {
        Some(packages) => tell_packages(packages),
        None => say(
            "packages: not known, as neither dpkg nor rpm (with SQLite) has installed any in one of them",
        ),
    }
    if let Some(files) = files {
        tell_files(&files);
    }
    Ok(())
}

fn tell_packages(packages: Vec<PackageChange>) {
    let n = |is: fn(&PackageChange) -> bool| packages.iter().filter(|it| is(it)).count();
    let (n_added, n_removed) = (n(|it| it.old.is_none()), n(|it| it.new.is_none()));
    let n_others = packages.len() - n_added - n_removed;
    say(format!("packages: {n_added} added, {n_removed} removed, {n_others} in another version"));
    for PackageChange { name, old, new } in packages {
        say(match (old, new) {
            (None, new) => format!("+ {name} {}", new.unwrap_or_default()),
            (Some(old), None) => format!("- {name} {old}"),
            (Some(old), Some(new)) => format!("  {name} {old} -> {new}"),
        });
    }
}

fn tell_files(files: &FileChanges) {
    let FileChanges { n_added, n_removed, n_changed, old_bytes, new_bytes, largest } = files;
    say(format!(
        "files: {n_added} added, {n_removed} removed, {n_changed} changed; all of them {} -> {}",
        Size(*old_bytes),
        Size(*new_bytes)
    ));
    for FileChange { path, old_bytes, new_bytes } in largest {
        say(match (old_bytes, new_bytes) {
            (None, new) => format!("+ {path} {}", Size(new.unwrap_or_default())),
            (Some(old), None) => format!("- {path} {}", Size(*old)),
            (Some(old), Some(new)) => format!("  {path} {} -> {}", Size(*old), Size(*new)),
        });
    }
}

/// What a removal frees.
#[derive(Deserialize)]
struct Removal {
    frees_bytes: u64,
}

/// Removes a version, after a question if `is_said` does not answer that.
pub(super) fn remove(paths: &Paths, version: &NamedVersion, is_said: bool) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let removal: Removal = site.get(&format!("{}/removal", version.url()))?;
    let freed = Size(removal.frees_bytes);
    if !is_said {
        if !io::stdin().is_terminal() {
            let text = format!(
                "{version} takes {freed}, and there is no terminal to ask: give --yes to remove it"
            );
            return Err(WrongUsage(text).into());
        }
        if !agrees(
            &format!("Nobody needs {version}, which takes {freed}. Do you want to remove it"),
            false,
        )? {
            bail!("nothing was changed");
        }
    }
    let removal: Removal = site.send(Method::DELETE, &version.url(), &())?;
    say(format!("{version}: removed, {} are free again", Size(removal.frees_bytes)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_with_its_image() {
        let version: NamedVersion = "debian-12/v3".parse().unwrap();
        assert_eq!(version.url(), "/api/v1/images/debian-12/3");
        assert_eq!(version.to_string(), "debian-12/v3");
        for text in ["debian-12", "debian-12/test", "debian-12/3", "v3"] {
            let error = text.parse::<NamedVersion>().unwrap_err().to_string();
            assert!(error.contains("use NAME/v3"), "{error}");
        }
        assert!(new_state("draft").is_ok() && new_state("retired").is_err());
        assert_eq!(
            (number("v3").ok(), number("3").ok(), number("x").ok()),
            (Some(3), Some(3), None)
        );
    }
}
