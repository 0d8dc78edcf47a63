//! Backups in a folder, one beside the other: how they are named, and which of them go.

use crate::new_file;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::path::{Path, PathBuf};
use std::{fs, io};

const BEGIN: &str = "bootlace-";
const END: &str = ".tar.zst";

/// The time in a name, so that names are in the order of time: `20261128T031500Z`.
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// The name of a backup that is made now.
pub(crate) fn name(now: Timestamp) -> String {
    format!("{BEGIN}{}{END}", now.to_zoned(TimeZone::UTC).strftime(TIME))
}

/// Whether this is a name that we give.
fn is_ours(name: &str) -> bool {
    let time = name.strip_prefix(BEGIN).and_then(|name| name.strip_suffix(END));
    time.is_some_and(|time| jiff::civil::DateTime::strptime(TIME, time).is_ok())
}

/// What is in a folder of backups and takes room for nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Older than the newest ones.
    pub(crate) superfluous: Vec<PathBuf>,
    /// Of a time that is yet to come, as they say: nobody knows how old these are.
    pub(crate) ahead: Vec<PathBuf>,
    /// Of backups that were never completed.
    pub(crate) unfinished: Vec<PathBuf>,
}

/// Looks at our backups in a folder, of which the newest `n_kept` are to stay.
///
/// # Errors
/// It can't be listed.
pub(crate) fn look(folder: &Path, n_kept: usize, now: Timestamp) -> io::Result<Kept> {
    let mut kept = Kept::default();
    let this = name(now);
    let mut ours = Vec::new();
    for (found, path) in files(folder)? {
        if is_ours(&found) {
            if found > this { &mut kept.ahead } else { &mut ours }.push(path);
        } else if new_file::unfinished(&found).is_some_and(is_ours) && new_file::is_abandoned(&path)
        {
            kept.unfinished.push(path);
        }
    }
    ours.sort_unstable();
    ours.truncate(ours.len().saturating_sub(n_kept));
    kept.superfluous = ours;
    kept.ahead.sort_unstable();
    Ok(kept)
}

/// The newest of our backups in a folder, by its name.
///
/// # Errors
/// It can't be listed.
pub(crate) fn newest(folder: &Path) -> io::Result<Option<PathBuf>> {
    let ours = files(folder)?.into_iter().filter(|(name, _)| is_ours(name));
    Ok(ours.map(|(_, path)| path).max())
}

/// Files in a folder, by name; links and folders are none.
fn files(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.file_type()?.is_file()
        {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_ours_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |seconds: i64| name(Timestamp::from_second(1_795_000_000 + seconds).unwrap());
        assert_eq!(at(0), "bootlace-20261118T110640Z.tar.zst");
        let foreign = ["site.tar.zst", "bootlace-old.tar.zst", ".bootlace-old.tar.zst.x.part"];
        for name in foreign.map(str::to_owned).into_iter().chain([0, 86_400, 3600].map(at)) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join(at(-86_400))).unwrap();
        let path = |seconds| folder.path().join(at(seconds));
        let look = |n_kept, now: i64| {
            let now = Timestamp::from_second(1_795_000_000 + now).unwrap();
            look(folder.path(), n_kept, now).unwrap()
        };
        assert_eq!(newest(folder.path()).unwrap(), Some(path(86_400)));
        let superfluous = |n_kept| look(n_kept, 86_400).superfluous;
        assert_eq!(superfluous(2), [path(0)]);
        assert_eq!(superfluous(1), [path(0), path(3600)]);
        assert!(superfluous(3).is_empty());
        let set_back = look(1, 0);
        assert_eq!(
            (set_back.superfluous, set_back.ahead),
            (vec![], vec![path(3600), path(86_400)])
        );
        let unfinished = folder.path().join(format!(".{}.Xyz012.part", at(60)));
        fs::write(&unfinished, "").unwrap();
        assert_eq!(look(3, 86_400), Kept { unfinished: vec![unfinished], ..Kept::default() });
    }
}
