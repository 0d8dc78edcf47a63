//! What must not be lost: whether it is whole, and whether there is another copy.

use super::Look;
use crate::backup::check_state;
use crate::check::Verdict;
use crate::paths::Paths;
use crate::privileges::is_owner;
use images::Store;
use service::backup::newest_backup;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A backup that is older than this is worth a look: one is made each day.
const BACKUP_DAYS_MAX: u64 = 3;

/// The timer of the package has each version read once in 30 days.
const VERIFIED_DAYS_MAX: u64 = 60;

/// Names that are listed of many.
const NAMED_MAX: usize = 5;

/// All of it, if there is anything.
pub(super) fn looks(paths: &Paths) -> Vec<Look> {
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    match paths.database().try_exists() {
        // A site that has never run has nothing to lose; one that has lost it is for check to tell.
        Ok(false) => Vec::new(),
        Ok(true) => [Some(database(paths)), Some(backup(paths, now_unix)), images(paths, now_unix)]
            .into_iter()
            .flatten()
            .map(Look::at_data)
            .collect(),
        Err(error) => {
            let what = format!("whether the database is whole, and saved ({error})");
            vec![Look::at_data(Verdict::Unseen(what))]
        }
    }
}

fn database(paths: &Paths) -> Verdict {
    if !is_owner(&paths.state()) {
        return Verdict::Unseen("whether the database is whole".to_owned());
    }
    match check_state(paths) {
        Ok(1) => Verdict::Right("the database is whole, with 1 machine".to_owned()),
        Ok(n) => Verdict::Right(format!("the database is whole, with {n} machines")),
        Err(error) => Verdict::Wrong(format!(
            "the database: {}. If it is damaged, put a backup in its place: bootlace backup restore --replace FILE",
            wire::error_chain(error.as_ref())
        )),
    }
}

fn backup(paths: &Paths, now_unix: u64) -> Verdict {
    let make = "bootlace backup create /var/backups/bootlace --keep 14 makes one, and bootlace-backup.timer does so each day";
    match newest_backup(&paths.database()) {
        Ok(Some(made_unix)) => match now_unix.checked_sub(made_unix) {
            Some(age) if age > BACKUP_DAYS_MAX * DAY => Verdict::Better(format!(
                "the newest backup is {} days old: {make}",
                age / DAY
            )),
            Some(age) => Verdict::Right(format!("newest backup: made {}", ago(age))),
            // Seconds by which a clock is corrected.
            None if made_unix - now_unix < 3600 => Verdict::Right("newest backup: made just now".to_owned()),
            None => Verdict::Better(
                "the newest backup says that it was made at a time that is yet to come: the clock was wrong, or is".to_owned(),
            ),
        },
        Ok(None) => Verdict::Better(format!(
            "no backup is made again and again: {make} (bootlace help back-up-and-restore)"
        )),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Verdict::Unseen("how old the newest backup is".to_owned())
        }
        Err(error) => Verdict::Better(format!(
            "how old the newest backup is can't be told, as what is noted of it can't be read: {error}. {make}"
        )),
    }
}

/// `5 h ago`.
fn ago(seconds: u64) -> String {
    match Duration::from_secs(seconds).as_secs() {
        0..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / DAY),
    }
}

/// When versions were read as a whole. `None`: there are none, or they can't be listed, as check tells.
fn images(paths: &Paths, now_unix: u64) -> Option<Verdict> {
    let store = Store::look(&paths.images()).ok()?;
    let versions = store.list().ok().filter(|versions| !versions.is_empty())?;
    // What was imported was read by that.
    let read_unix = |version: &model::ImageVersion| {
        let verified = store.verified(&version.image, version.version);
        verified.map_or(version.imported_unix, |it| it.at_unix.max(version.imported_unix))
    };
    let before = now_unix.saturating_sub(VERIFIED_DAYS_MAX * DAY);
    let old: Vec<String> = versions
        .iter()
        .filter(|version| read_unix(version) < before)
        .map(|version| format!("{}/v{}", version.image, version.version))
        .collect();
    let oldest = versions.iter().map(read_unix).min().unwrap_or(now_unix);
    Some(match old.len() {
        0 => Verdict::Right(format!(
            "images: each version was read as a whole {} or later",
            ago(now_unix.saturating_sub(oldest))
        )),
        n => {
            let more = n.checked_sub(NAMED_MAX).filter(|n| *n > 0);
            let more = more.map_or_else(String::new, |n| format!(" and {n} more"));
            let named = old[..n.min(NAMED_MAX)].join(", ");
            Verdict::Better(format!(
                "images: whether the disk still gives what was imported was not looked at for {VERIFIED_DAYS_MAX} days, of {named}{more}: \
                 bootlace image verify does so while machines run"
            ))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_told_by_its_age_and_what_is_damaged_is_not_none() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.state()).unwrap();
        let now = 1_800_000_000;
        let told = |made: Option<u64>| {
            if let Some(made) = made {
                service::backup::note_backup(&paths.database(), made).unwrap();
            }
            let verdict = backup(&paths, now);
            let (tag, text) = verdict.in_words();
            format!("{tag} {text}")
        };
        assert!(told(None).starts_with("note no backup is made again and again"));
        assert_eq!(told(Some(now - 5 * 3600)), "ok newest backup: made 5 h ago");
        assert!(told(Some(now - 9 * DAY)).starts_with("note the newest backup is 9 days old"));
        assert!(told(Some(now + 9 * DAY)).starts_with("note the newest backup says"));
        std::fs::write(paths.database().with_extension("last-backup"), "soon").unwrap();
        assert!(told(None).contains("can't be read: it is no time"));
    }
}
