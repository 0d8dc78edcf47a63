//! When the last backup was made of those that are made again and again, so that somebody is told when none is any more.

use crate::plain_file::open_plain;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Older ones are worth a warning: that is two that were not made, if one is made each day.
pub(crate) const LAST_BACKUP_MAX_SECONDS: u64 = 60 * 3600;

/// The same of images: one night that was missed.
pub(crate) const LAST_IMAGE_BACKUP_MAX_SECONDS: u64 = 26 * 3600;

/// Longer is no time.
const NOTE_BYTES_MAX: u64 = 64;

/// Of what a backup was made.
#[derive(Clone, Copy)]
enum Of {
    Site,
    Images,
}

fn note(database: &Path, of: Of) -> PathBuf {
    database.with_extension(match of {
        Of::Site => "last-backup",
        Of::Images => "last-image-backup",
    })
}

/// Notes beside the database that a backup of it was made at this time, in seconds since 1970.
///
/// # Errors
/// It can't be written.
pub fn note_backup(database: &Path, made_unix: u64) -> io::Result<()> {
    put(&note(database, Of::Site), made_unix)
}

/// Notes beside the database that images were all kept elsewhere, too, at this time.
///
/// # Errors
/// It can't be written.
pub fn note_image_backup(database: &Path, made_unix: u64) -> io::Result<()> {
    put(&note(database, Of::Images), made_unix)
}

fn put(note: &Path, made_unix: u64) -> io::Result<()> {
    let mut new = note.as_os_str().to_owned();
    new.push(".new");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    writeln!(file, "{made_unix}")?;
    fs::rename(new, note)
}

/// When the last one was made, in seconds since 1970; `None` if none is made again and again.
///
/// # Errors
/// What is noted can't be read, or is no time.
pub fn newest_backup(database: &Path) -> io::Result<Option<u64>> {
    newest(database, Of::Site)
}

fn newest(database: &Path, of: Of) -> io::Result<Option<u64>> {
    let read = || {
        // Root reads it in a folder of the servers' user, who could put a pipe there, or a file without end.
        let mut text = String::new();
        open_plain(&note(database, of))?.take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    match read() {
        Ok(text) => match text.trim().parse() {
            Ok(made_unix) => Ok(Some(made_unix)),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no time")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, with what can't be read taken for none.
pub(crate) fn last_backup(database: &Path) -> Option<u64> {
    newest_backup(database).ok().flatten()
}

/// When images were kept elsewhere last; `None` if that is not done.
pub(crate) fn last_image_backup(database: &Path) -> Option<u64> {
    newest(database, Of::Images).ok().flatten()
}
