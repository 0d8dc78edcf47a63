//! `bootlace image verify`

use super::as_job::{Work, as_job};
use super::image::REPAIR;
use super::{Refused, say};
use crate::paths::Paths;
use crate::privileges::is_owner;
use anyhow::{Context, bail};
use hyper::StatusCode;
use images::{Progress, Store, VerifyError};
use model::{ImageName, ImageVersion, Size};
use service::jobs::{JobKind, NewJob};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An image, or one of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Which {
    image: ImageName,
    version: Option<u32>,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (image, version) = match text.split_once('/') {
            Some((image, version)) => (image, Some(version)),
            None => (text, None),
        };
        let number = |text: &str| text.strip_prefix('v').unwrap_or(text).parse().ok();
        let version = match version.map(number) {
            None => None,
            Some(Some(number)) => Some(number),
            Some(None) => return Err("a version is like debian-12/v3".to_owned()),
        };
        let image = image.parse().map_err(|error: model::InvalidName| error.to_string())?;
        Ok(Self { image, version })
    }
}

impl Which {
    fn means(&self, image: &ImageName, version: u32) -> bool {
        self.image == *image && self.version.is_none_or(|number| number == version)
    }
}

pub(super) fn verify(
    paths: &Paths,
    which: &[Which],
    older_than: Option<u32>,
    by: String,
) -> anyhow::Result<()> {
    if !is_owner(&paths.state()) {
        bail!(
            "a verification reads all of {}, which only root and the servers' user may: use sudo",
            paths.images().display()
        );
    }
    let store = Store::open(&paths.images())?;
    let mut versions = store.list()?;
    // That disks can't be looked at is for check to say.
    let disks = storage::kept_disks(&paths.state().join("exports.toml"), &paths.layers(), &[]);
    let needed = disks.map(|disks| disks.stands_on.into_values().collect()).unwrap_or_default();
    let mut lost = lost_versions(&store, &versions, needed)?;
    for wanted in which {
        let is_known = versions.iter().any(|it| wanted.means(&it.image, it.version))
            || lost.keys().any(|(image, number)| wanted.means(image, *number));
        if !is_known {
            let number = wanted.version.map(|number| format!("/v{number}")).unwrap_or_default();
            let image = &wanted.image;
            let text = format!("there is no image {image}{number}: bootlace image ls shows all");
            return Err(Refused::new(StatusCode::NOT_FOUND, text).into());
        }
    }
    let is_meant = |image: &ImageName, number: u32| {
        which.is_empty() || which.iter().any(|it| it.means(image, number))
    };
    versions.retain(|version| is_meant(&version.image, version.version));
    lost.retain(|(image, number), _| is_meant(image, *number));
    let lost: Vec<String> = lost
        .into_iter()
        .map(|((image, number), why)| format!("{image}/v{number}: {why}"))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let read_at = |version: &ImageVersion| {
        store.verified(&version.image, version.version).map_or(0, |verified| verified.at_unix)
    };
    if let Some(days) = older_than {
        let before = now.saturating_sub(DAY * days).as_secs();
        versions.retain(|version| read_at(version) <= before);
    }
    versions.sort_by_cached_key(read_at);
    if versions.is_empty() && lost.is_empty() {
        say("nothing to read");
        return Ok(());
    }

    let what = match &versions[..] {
        [version] => format!("{}/v{}", version.image, version.version),
        several => format!("{} versions", several.len()),
    };
    let new = NewJob { kind: JobKind::ImageVerify, what, by };
    as_job(paths, new, |work| verify_now(&store, &versions, &lost, now, work))
}

/// Versions of which there is nothing to read, and why: those that were given out and are missed, and those that are `needed`,
/// as disks stand on them, whatever newer ones there are.
fn lost_versions(
    store: &Store,
    there: &[ImageVersion],
    needed: BTreeSet<(ImageName, u32)>,
) -> anyhow::Result<BTreeMap<(ImageName, u32), String>> {
    let mut lost = store.troubles()?;
    for (image, number) in needed {
        if let Some(trouble) = store.trouble_of(&image, number) {
            lost.insert((image, number), trouble);
        }
    }
    let is_there = |image: &ImageName, number: u32| {
        there.iter().any(|it| (&it.image, it.version) == (image, number))
    };
    lost.retain(|(image, number), _| !is_there(image, *number));
    Ok(lost.into_iter().map(|(version, trouble)| (version, trouble.why)).collect())
}

/// Returns what became of it, in a sentence.
fn verify_now(
    store: &Store,
    versions: &[ImageVersion],
    lost: &[String],
    now: Duration,
    work: &mut Work,
) -> anyhow::Result<String> {
    let (mut n_changed, mut done_bytes) = (lost.len(), 0);
    for lost in lost {
        work.say(lost);
    }
    let total_bytes = versions.iter().map(|version| version.size_bytes).sum();
    let stop = work.stop.clone();
    for (n_done, version) in versions.iter().enumerate() {
        let ImageVersion { image, version: number, size_bytes, .. } = version;
        let mut on_progress = |progress: Progress| {
            work.show("reading", done_bytes + progress.done_bytes, total_bytes);
        };
        let verified = store.verify(image, *number, now.as_secs(), &stop, &mut on_progress);
        done_bytes += size_bytes;
        match verified {
            Ok(verified) => match verified.flaw {
                None => work.say(format!("{image}/v{number}: whole, {}", Size(*size_bytes))),
                Some(flaw) => {
                    n_changed += 1;
                    work.say(format!("{image}/v{number}: {flaw}"));
                }
            },
            Err(VerifyError::Stopped) => {
                bail!(
                    "stopped after {n_done} of {}: the next time it begins with those that were not read whole",
                    versions.len()
                )
            }
            Err(error) => return Err(error).with_context(|| format!("{image}/v{number}")),
        }
    }
    match n_changed {
        0 => Ok("all is as it was imported".to_owned()),
        1 => bail!("one version is not what was imported. {REPAIR}"),
        n => bail!("{n} versions are not what was imported. {REPAIR}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_gone_is_lost_if_it_is_the_newest_or_a_disk_stands_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = [1, 2, 3]
            .map(|n| format!("[[given]]\nimage = \"debian\"\nversion = {n}\ndigest = \"00\"\n"));
        std::fs::write(folder.path().join(".numbers.toml"), given.concat()).unwrap();
        std::fs::create_dir_all(folder.path().join("debian/2")).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let image: ImageName = "debian".parse().unwrap();
        let lost = |needed: &[u32]| {
            let needed = needed.iter().map(|number| (image.clone(), *number)).collect();
            let lost = lost_versions(&store, &[], needed).unwrap();
            lost.into_keys().map(|(_, number)| number).collect::<Vec<u32>>()
        };
        assert_eq!(
            lost(&[]),
            [2, 3],
            "the second is damaged, and of the first there is a newer one"
        );
        assert_eq!(lost(&[1]), [1, 2, 3]);
    }

    #[test]
    fn an_image_or_one_of_its_versions_is_meant() {
        let which = |text: &str| text.parse::<Which>();
        let image: ImageName = "debian-12".parse().unwrap();
        assert_eq!(which("debian-12").unwrap(), Which { image: image.clone(), version: None });
        for text in ["debian-12/v3", "debian-12/3"] {
            assert_eq!(which(text).unwrap(), Which { image: image.clone(), version: Some(3) });
        }
        for text in ["", "/v3", "debian-12/", "debian-12/x", "debian-12/v-1", "a b"] {
            which(text).unwrap_err();
        }
    }
}
