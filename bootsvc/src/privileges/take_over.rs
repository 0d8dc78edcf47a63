//! State that root has made, given to the user that the servers become.

use super::Account;
use nix::unistd::{Gid, Uid};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chownat, fstat, openat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Folders in folders. Ours are five deep; whoever breaks into a server may make more, and gets nothing by it.
const DEPTH_MAX: usize = 16;

/// Makes the account the owner of the folder and of all in it; how many files had another one.
///
/// It follows no symbolic link, also not at `folder` itself, and leaves a file alone that has another name, which
/// may be outside of the folder: the user may have put it there himself, to have it given to him.
pub(super) fn take_over(folder: &Path, to: &Account) -> io::Result<u64> {
    let to = (to.uid, to.gid);
    match openat(CWD, folder, FOLDER, Mode::empty()) {
        Ok(folder) => take(&folder, to, DEPTH_MAX),
        // A symbolic link.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            tracing::warn!(folder = %folder.display(), "it is a symbolic link: its owner stays who he is");
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Looks at a file and opens nothing.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn take(folder: &OwnedFd, to: (Uid, Gid), depth: usize) -> io::Result<u64> {
    let mut taken = chown(folder, &fstat(folder)?, to)?;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            taken += take_entry(folder, name, to, depth)?;
        }
    }
    Ok(taken)
}

fn take_entry(folder: &OwnedFd, name: &CStr, to: (Uid, Gid), depth: usize) -> io::Result<u64> {
    // A server that runs may remove a file at any time.
    let gone = |error: Errno| if error == Errno::NOENT { Ok(0) } else { Err(error.into()) };
    let file = match openat(folder, name, LOOK, Mode::empty()) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    // What was looked at is what is changed, whatever has that name meanwhile.
    let about = fstat(&file)?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::Directory if depth > 0 => match openat(folder, name, FOLDER, Mode::empty()) {
            Ok(folder) => take(&folder, to, depth - 1),
            Err(error) => gone(error),
        },
        FileType::RegularFile if about.st_nlink == 1 => chown(&file, &about, to),
        // A server that runs has given it to a group.
        FileType::Socket if about.st_uid == to.0.as_raw() => Ok(0),
        FileType::Symlink | FileType::Socket => chown(&file, &about, to),
        _ => Ok(0),
    }
}

fn chown(file: impl AsFd, about: &Stat, (uid, gid): (Uid, Gid)) -> io::Result<u64> {
    if (about.st_uid, about.st_gid) == (uid.as_raw(), gid.as_raw()) {
        return Ok(0);
    }
    let owner = rustix::fs::Uid::from_raw(uid.as_raw());
    let group = rustix::fs::Gid::from_raw(gid.as_raw());
    chownat(file, c"", Some(owner), Some(group), AtFlags::EMPTY_PATH)?;
    Ok(1)
}
