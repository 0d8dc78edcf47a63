//! What folders need that is more than their files: durable names, and the room below them.

use model::Space;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in a folder durable.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The file system that holds a folder.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let told = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Ok(Space { total_bytes: bytes(told.f_blocks), free_bytes: bytes(told.f_bavail) })
}
