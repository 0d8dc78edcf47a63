//! Everything that a layer does to the disk below it, in one place: so that the tests can write it down, and see what any power cut
//! would have left.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    super::power_cut::wrote(file, bytes, offset);
    Ok(())
}

pub(super) fn set_len(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    #[cfg(test)]
    super::power_cut::resized(file, length);
    Ok(())
}

/// Gives the space back, if the file system can; it reads as zeroes then.
pub(super) fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let _is_done = crate::sparse::punch(file, offset, length)?;
    #[cfg(test)]
    if _is_done {
        super::power_cut::punched(file, offset, length);
    }
    Ok(())
}

pub(super) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    super::power_cut::synced(file);
    Ok(())
}

pub(super) fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    super::power_cut::synced(file);
    Ok(())
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    crate::folder::sync(path)?;
    #[cfg(test)]
    super::power_cut::synced_folder(path);
    Ok(())
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    super::power_cut::renamed(from, to);
    Ok(())
}

/// Tells that a new file has got its name.
pub(super) fn created(path: &Path, file: &File) {
    #[cfg(test)]
    super::power_cut::created(path, file);
    let _ = (path, file);
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(test)]
    super::power_cut::removed(path);
    Ok(())
}
