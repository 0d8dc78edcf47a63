//! A site in one file: what a backup holds, how it is written, and how it is read, from whoever it comes.
//!
//! A tar archive, compressed with Zstandard, so that `tar --zstd -xf` opens it, too. First comes the manifest, which names
//! all others with their size and digest; they follow in its order, and nothing else does.

mod error;
mod last;
mod manifest;
mod read;
mod write;

pub use error::BackupError;
pub(crate) use last::{
    LAST_BACKUP_MAX_SECONDS, LAST_IMAGE_BACKUP_MAX_SECONDS, last_backup, last_image_backup,
};
pub use last::{newest_backup, note_backup, note_image_backup};
pub use manifest::{AUTHORITY_FILES, BackupFile, Kind, Manifest};
pub use read::read_backup;
pub use write::{digest, write_backup};

/// Name of the manifest in the archive.
const MANIFEST: &str = "manifest.json";
