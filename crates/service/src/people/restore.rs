//! Who is let in after a database was put back.

use super::actor::Actor;
use crate::error::Error;
use crate::store::{self, Restored};
use std::path::Path;

/// Makes a database from a backup ready, which nobody uses: it is of another time, so that nobody is logged in, and orders
/// that would throw disks away are dropped, if they don't say which disk they mean: there may be others of these names by now. It is noted in its audit log that
/// `actor` has restored it.
///
/// # Errors
/// It is damaged, or can't be written.
pub fn prepare_restored(path: &Path, actor: &Actor, now_unix_ms: u64) -> Result<Restored, Error> {
    let entry = actor.does("restore", "database", Vec::new(), now_unix_ms);
    store::prepare_restored(path, &entry)
}
