//! `bootlace image check` and `fix`

use super::super::output::{advise, say};
use super::versions::NamedVersion;
use crate::paths::Paths;
use crate::site::Site;
use anyhow::bail;
use hyper::Method;
use images::{FixChoice, Harm, Severity};
use model::{Follows, ImageChoice, ImageName, ParseChoiceError, VersionState};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::str::FromStr;

/// A version of an image, or the newest that machines get: `debian-12/v3`, `debian-12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct WhichVersion {
    image: ImageName,
    version: Option<u32>,
}

impl FromStr for WhichVersion {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, ParseChoiceError> {
        match text.parse()? {
            ImageChoice { image, follows: Follows::Version(version) } => {
                Ok(Self { image, version: Some(version) })
            }
            ImageChoice { image, follows: Follows::Released } => Ok(Self { image, version: None }),
            ImageChoice { .. } => {
                Err(ParseChoiceError::new(text, "an image or a version of it: use NAME or NAME/v3"))
            }
        }
    }
}

impl WhichVersion {
    /// The version that is meant, whatever its state.
    fn find(self, site: &Site) -> anyhow::Result<NamedVersion> {
        let Self { image, version } = self;
        if let Some(version) = version {
            return Ok(NamedVersion::new(image, version));
        }
        let versions: Vec<Listed> = site.get("/api/v1/images")?;
        let of_image = versions.iter().filter(|version| version.image == image);
        let is_given =
            |it: &Listed| matches!(it.state, VersionState::Released | VersionState::Test);
        match of_image.map(|it| (is_given(it), it.version)).max().map(|(_, version)| version) {
            Some(version) => Ok(NamedVersion::new(image, version)),
            None => bail!("there is no image {image}: bootlace image ls lists all"),
        }
    }
}

/// A version that is there.
#[derive(Deserialize)]
struct Listed {
    image: ImageName,
    version: u32,
    state: VersionState,
}

/// What the server says of a version.
#[derive(Deserialize)]
struct Harms {
    harms: Vec<Harm>,
    not_checked: Vec<NotChecked>,
    laid_over: Vec<LaidFile>,
}

#[derive(Deserialize)]
struct NotChecked {
    check: String,
    why: String,
}

#[derive(Deserialize)]
struct LaidFile {
    path: String,
    kind: String,
    checks: Vec<String>,
}

/// Tells what in a version hurts a diskless machine.
pub(super) fn check(
    paths: &Paths,
    which: WhichVersion,
    all: bool,
    json: bool,
) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let version = which.find(&site)?;
    let told: Value = site.get(&format!("{}/harms", version.url()))?;
    if json {
        say(serde_json::to_string_pretty(&told)?);
        return Ok(());
    }
    let Harms { harms, not_checked, laid_over } = serde_json::from_value(told)?;
    let fixed: BTreeSet<&str> =
        laid_over.iter().flat_map(|file| &file.checks).map(String::as_str).collect();
    let is_fixed = |harm: &Harm| harm.can_be_fixed && fixed.contains(harm.check.as_str());
    let (open, dealt_with): (Vec<&Harm>, Vec<&Harm>) =
        harms.iter().partition(|harm| harm.dealt_with.is_none());
    match open.len() {
        0 => say(format!("{version}: nothing was found that hurts a diskless machine")),
        n => say(format!("{version}: found that hurt a diskless machine: {n}")),
    }
    for harm in &open {
        say(format!("\n{}", in_words(harm, is_fixed(harm))));
    }
    if all {
        for harm in &dealt_with {
            say(format!("\n{}", in_words(harm, false)));
        }
    } else if !dealt_with.is_empty() {
        say(format!(
            "\n{} more that Bootlace deals with by itself: --all shows them",
            dealt_with.len()
        ));
    }
    for NotChecked { check, why } in &not_checked {
        say(format!("\nnot known: {check}: {why}"));
    }
    tell_laid_over(&laid_over);
    let can_be_fixed = open.iter().filter(|harm| harm.can_be_fixed && !is_fixed(harm)).count();
    if can_be_fixed > 0 {
        advise(
            paths,
            &format!(
                "Files laid over the image help against {can_be_fixed} of them: bootlace image fix {version}"
            ),
        );
    }
    Ok(())
}

fn in_words(harm: &Harm, is_fixed: bool) -> String {
    let Harm { check, severity, path, line, what, effect, dealt_with, fix, can_be_fixed } = harm;
    let place = match (path, line) {
        (Some(path), Some(line)) => format!("{path}, line {line}: "),
        (Some(path), None) => format!("{path}: "),
        (None, _) => String::new(),
    };
    let helps = match dealt_with {
        Some(by) => format!("Bootlace deals with it: {by}"),
        None if is_fixed => format!("fixed at each boot: {fix}"),
        None if *can_be_fixed => format!("can be fixed: {fix}"),
        None => format!("what helps: {fix}"),
    };
    let severity =
        if dealt_with.is_some() { "dealt with".to_owned() } else { severity.to_string() };
    format!("{severity} ({check})\n  {place}{what}\n  {effect}\n  {helps}")
}

fn tell_laid_over(files: &[LaidFile]) {
    if files.is_empty() {
        return;
    }
    say("\nLaid over it at each boot:");
    for LaidFile { path, kind, checks } in files {
        let what = match kind.as_str() {
            "link" => "link",
            "removed" => "removed",
            _ => "file",
        };
        say(format!("  {path} ({what}; {})", checks.join(", ")));
    }
}

/// What the server says of a change.
#[derive(Deserialize)]
struct Changed {
    laid_over: Vec<LaidFile>,
    initrd_error: Option<String>,
}

/// Lays files over a version against the harms that are chosen; `None`: nothing is, any more.
pub(super) fn fix(
    paths: &Paths,
    which: WhichVersion,
    choice: Option<&FixChoice>,
) -> anyhow::Result<()> {
    let site = Site::open(paths)?;
    let version = which.find(&site)?;
    let url = format!("{}/laid-over", version.url());
    let Changed { laid_over, initrd_error } = match choice {
        Some(choice) => site.work_by(Method::PUT, &url, choice)?,
        None => site.work_by(Method::DELETE, &url, &Value::Null)?,
    };
    match (laid_over.is_empty(), choice.is_some()) {
        (true, true) => {
            say(format!("{version}: nothing was found that files laid over it help against"))
        }
        (true, false) => say(format!("{version}: nothing is laid over it any more")),
        (false, _) => say(format!(
            "{version}: the version stays as it is, and machines get from their next boot on:"
        )),
    }
    tell_laid_over(&laid_over);
    if let Some(why) = initrd_error {
        bail!("its initrd could not be built anew: {why}");
    }
    Ok(())
}

/// What is said of the harms in what was imported, a line each.
pub(super) fn said_of(harms: &[Harm], laid_over: &[String], version: &str) -> Vec<String> {
    let open: Vec<&Harm> = harms.iter().filter(|harm| harm.dealt_with.is_none()).collect();
    let mut lines: Vec<String> = Vec::new();
    for harm in open.iter().filter(|harm| harm.severity != Severity::Annoys) {
        let place = harm.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
        lines.push(format!(
            "warning: {} ({}): {place}{}: {}",
            harm.severity, harm.check, harm.what, harm.effect
        ));
    }
    let n_annoy = open.iter().filter(|harm| harm.severity == Severity::Annoys).count();
    if n_annoy > 0 {
        lines.push(format!("note: {n_annoy} more that annoy on a diskless machine"));
    }
    if !laid_over.is_empty() {
        lines.push(format!(
            "laid over it at each boot, the version stays as it is: {}",
            laid_over.join(", ")
        ));
    }
    let n_open = open.iter().filter(|harm| harm.can_be_fixed).count();
    if n_open > 0 && laid_over.is_empty() {
        lines.push(format!(
            "bootlace image check {version} says what helps; bootlace image fix {version} lays files over it against {n_open} of them"
        ));
    } else if !open.is_empty() {
        lines.push(format!("bootlace image check {version} says what helps"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_alone_means_its_newest_version() {
        let which: WhichVersion = "debian-12".parse().unwrap();
        assert_eq!(which.version, None);
        let which: WhichVersion = "debian-12/v3".parse().unwrap();
        assert_eq!(which.version, Some(3));
        assert!(
            "debian-12/test".parse::<WhichVersion>().unwrap_err().to_string().contains("NAME/v3")
        );
    }

    #[test]
    fn what_hurts_is_told_with_what_helps() {
        let harm = Harm {
            check: "fstab-mount".to_owned(),
            severity: Severity::StopsBoot,
            path: Some("/etc/fstab".to_owned()),
            line: Some(3),
            what: "UUID=1 is missing".to_owned(),
            effect: "it stops".to_owned(),
            dealt_with: None,
            fix: "line 3 of /etc/fstab becomes a comment".to_owned(),
            can_be_fixed: true,
        };
        let text = in_words(&harm, false);
        assert_eq!(
            text,
            "stops the boot (fstab-mount)\n  /etc/fstab, line 3: UUID=1 is missing\n  it stops\n  can be fixed: line 3 of \
             /etc/fstab becomes a comment"
        );
        assert!(in_words(&harm, true).contains("fixed at each boot: "));
        let known = Harm { dealt_with: Some("by name".to_owned()), ..harm.clone() };
        assert!(in_words(&known, false).starts_with("dealt with (fstab-mount)"));
        let annoys = Harm { severity: Severity::Annoys, ..harm.clone() };
        let lines = said_of(&[harm.clone(), annoys, known], &[], "debian/v1");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("warning: stops the boot (fstab-mount): /etc/fstab: "));
        assert!(lines[2].contains("image fix debian/v1 lays files over it against 2 of them"));
        let fixed = said_of(&[harm], &["/etc/fstab".to_owned()], "debian/v1");
        assert!(
            fixed[1].ends_with(": /etc/fstab") && fixed[2].starts_with("bootlace image check"),
            "{fixed:?}"
        );
        assert_eq!(said_of(&[], &[], "debian/v1"), [""; 0]);
    }
}
