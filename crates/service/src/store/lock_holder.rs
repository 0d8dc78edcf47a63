//! Which other process keeps all others from writing to a database.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The byte of the file `-shm` that a writer has locked (`WAL_WRITE_LOCK` in SQLite's wal.c).
const WRITE_LOCK: u64 = 120;

/// The process, as a person would look for it; `None`: it is not to be found, since it has just ended, or runs in
/// another container.
pub(super) fn lock_holder(database: &Path) -> Option<String> {
    let mut index = database.as_os_str().to_owned();
    index.push("-shm");
    let inode = fs::metadata(index).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let own = std::process::id();
    let process = holders(&locks, inode).find(|process| *process != own)?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(format!("{} (process {process})", name.trim()))
}

/// Processes that have the write lock, by the kernel's list: `1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120`.
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "WRITE").skip(1);
        let (process, file) = (words.next()?.parse().ok()?, words.next()?);
        let (first, last) = (words.next()?.parse::<u64>().ok()?, words.next()?);
        let last = last.parse().unwrap_or(u64::MAX);
        let is_ours = file.rsplit(':').next()?.parse() == Ok(inode);
        (is_ours && (first..=last).contains(&WRITE_LOCK)).then_some(process)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_told_from_readers_and_from_locks_of_other_files() {
        let locks = "1: POSIX  ADVISORY  READ  10 fe:00:77 123 123\n\
                     2: POSIX  ADVISORY  WRITE 11 fe:00:78 120 120\n\
                     3: FLOCK  ADVISORY  WRITE 12 fe:00:77 0 EOF\n\
                     4: -> POSIX  ADVISORY  WRITE 13 fe:00:77 128 128\n\
                     5: POSIX  ADVISORY  WRITE 14 fe:00:77 120 120\n\
                     garbage";
        assert_eq!(holders(locks, 77).collect::<Vec<_>>(), [12, 14]);
        assert_eq!(holders(locks, 99).count(), 0);
    }
}
