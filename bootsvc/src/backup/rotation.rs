//! Backups in a folder, one beside the other: how they are named, and which of them go.

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

/// Those of our backups in a folder that are older than the newest `n_kept`, but for the one that was made just now: the
/// clock may have been set back.
///
/// # Errors
/// It can't be listed.
pub(crate) fn superfluous(folder: &Path, n_kept: usize, new: &Path) -> io::Result<Vec<PathBuf>> {
    let mut ours = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_ours) && entry.file_type()?.is_file() {
            ours.push(entry.path());
        }
    }
    ours.sort_unstable();
    ours.truncate(ours.len().saturating_sub(n_kept));
    ours.retain(|path| path != new);
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_ours_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |seconds: i64| name(Timestamp::from_second(1_795_000_000 + seconds).unwrap());
        assert_eq!(at(0), "bootlace-20261118T110640Z.tar.zst");
        let foreign =
            ["site.tar.zst", "bootlace-old.tar.zst", "bootlace-20261118T110640Z.tar.zst.part"];
        for name in foreign.map(str::to_owned).into_iter().chain([0, 86_400, 3600].map(at)) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join(at(-86_400))).unwrap();
        let path = |seconds| folder.path().join(at(seconds));
        let superfluous = |n_kept, new| superfluous(folder.path(), n_kept, &path(new)).unwrap();
        assert_eq!(superfluous(2, 86_400), [path(0)]);
        assert_eq!(superfluous(1, 86_400), [path(0), path(3600)]);
        assert!(superfluous(3, 86_400).is_empty());
        assert_eq!(superfluous(1, 0), [path(3600)], "the clock was set back");
    }
}
