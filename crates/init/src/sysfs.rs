//! Small files of the kernel.

use std::fs;
use std::path::Path;

/// Content of a file without white space around it; `None` if it can't be read.
pub(crate) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Number in a file; `None` if it can't be read or is something else.
pub(crate) fn number(path: impl AsRef<Path>) -> Option<u64> {
    read(path)?.parse().ok()
}

/// Sets a tunable that not every kernel has; what can't be set stays as it is.
pub(crate) fn tune(path: impl AsRef<Path>, value: &str) {
    let _ = fs::write(path, value);
}

/// Names in a folder, sorted; none if there is no such folder.
pub(crate) fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
