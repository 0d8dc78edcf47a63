//! The cpio format that kernels unpack (`newc`), which RPM packages use, too.

mod read;
mod write;

pub(crate) use read::{ArchiveError, Next, Reader};
pub(crate) use write::Archive;
