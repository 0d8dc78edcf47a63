//! A note beside the database that there is one: if only the note is left, a site was lost, and an empty one in its place
//! would be taken for it.

use crate::error::{Error, io_error};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const TEXT: &str = "This folder has the database of a Bootlace site, state.db. Without it no server starts, so that nobody \
                    takes an\nempty site for the one that was here. Restore a backup: bootlace backup restore FILE. To begin \
                    with an empty site,\ndelete this file.\n";

pub(super) fn marker_of(database: &Path) -> PathBuf {
    database.with_extension("was-here")
}

/// Whether a database may be made here: there was none.
pub(super) fn check(database: &Path) -> Result<(), Error> {
    let marker = marker_of(database);
    let length = match fs::metadata(database) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io_error("find the database", database)(error)),
    };
    match length == 0 && marker.try_exists().map_err(io_error("find", &marker))? {
        true => Err(Error::DatabaseMissing {
            is_empty: database.exists(),
            path: database.to_owned(),
            marker,
        }),
        false => Ok(()),
    }
}

/// There is a database now.
pub(super) fn put(database: &Path) -> Result<(), Error> {
    let marker = marker_of(database);
    if marker.exists() {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&marker)?;
        file.write_all(TEXT.as_bytes())
    };
    match write() {
        // A full disk keeps no server from starting: it is written the next time.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written.map_err(io_error("write", &marker)),
    }
}
