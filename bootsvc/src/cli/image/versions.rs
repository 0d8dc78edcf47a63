//! `bootlace image release`, `test`, `retire`, `rollback` and `rm`

use super::super::WrongUsage;
use super::super::output::say;
use super::super::setup::agrees;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::bail;
use hyper::Method;
use images::PackageChange;
use model::{Follows, ImageChoice, ImageName, ParseChoiceError, Size, VersionState};
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
    fn url(&self) -> String {
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
    behind: Vec<String>,
}

/// Says for whom a version is.
pub(super) fn set(
    paths: &Paths,
    version: &NamedVersion,
    state: VersionState,
) -> anyhow::Result<()> {
    let change = json!({ "state": state });
    let now = Site::open(paths)?.send(Method::PATCH, &version.url(), &change)?;
    let is = match state {
        VersionState::Test => "to be tested".to_owned(),
        other => other.to_string(),
    };
    say(format!("{version} is {is}"));
    tell(&version.image, &now);
    Ok(())
}

/// Makes an older version what machines get.
pub(super) fn roll_back(paths: &Paths, image: &ImageName, to: Option<u32>) -> anyhow::Result<()> {
    let url = format!("/api/v1/images/{image}/rollback");
    let now = Site::open(paths)?.send(Method::POST, &url, &json!({ "to": to }))?;
    tell(image, &now);
    Ok(())
}

fn tell(image: &ImageName, now: &Released) {
    say(match now.version {
        Some(version) => {
            format!("Machines with the image {image} get v{version} at their next boot")
        }
        None => format!("No version of {image} is released"),
    });
    let (shown, more) = now.behind.split_at(now.behind.len().min(NAMES_MAX));
    if shown.is_empty() {
        return;
    }
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let run = if now.behind.len() == 1 { "runs" } else { "run" };
    say(format!(
        "{}{more} still {run} another version than they get then. To restart one now: bootlace machine reboot {}",
        shown.join(", "),
        shown[0]
    ));
}

/// What differs between two versions.
#[derive(Deserialize)]
struct Changes {
    since: u32,
    version: u32,
    kernel: Option<[String; 2]>,
    packages: Option<Vec<PackageChange>>,
}

/// Tells what differs between a version and an older one.
pub(super) fn changes(
    paths: &Paths,
    version: &NamedVersion,
    since: Option<u32>,
    json: bool,
) -> anyhow::Result<()> {
    let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
    let told: Value = Site::open(paths)?.get(&format!("{}/changes{since}", version.url()))?;
    if json {
        say(serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    let Changes { since, version: number, kernel, packages } = serde_json::from_value(told)?;
    say(format!("{}: from v{since} to v{number}", version.image));
    say(match kernel {
        Some([old, new]) => format!("kernel: {old} -> {new}"),
        None => "kernel: the same".to_owned(),
    });
    let Some(packages) = packages else {
        say("packages: not known, as dpkg has installed none in one of them");
        return Ok(());
    };
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
    Ok(())
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
    }
}
