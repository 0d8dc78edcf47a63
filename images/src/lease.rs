//! Whether a file is open for writing, as the kernel counts it: whoever has it open, in whatever container, by whatever name.

use nix::libc::{self, c_int};
use rustix::fs::fstatfs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// File systems whose files only this kernel opens (`f_type` in statfs(2)): ext4, XFS, btrfs, F2FS and tmpfs. Over the network
/// a lease may be refused for other reasons.
const LOCAL: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// `F_SETSIG` in Linux's `fcntl.h`; libc does not have it for all C libraries.
const SET_SIGNAL: c_int = 10;

/// Whether somebody has the file, which must be open for reading only, open for writing; `None`: it can't be told. So it is
/// where the file is another user's.
pub(crate) fn has_writer(file: &File) -> Option<bool> {
    let kind = fstatfs(file).ok()?.f_type;
    if !LOCAL.contains(&kind) || !file.metadata().ok()?.is_file() {
        return None;
    }
    // Who opens it while we have the lease waits for us, and we are told by a signal: by one that does nothing.
    set(file, SET_SIGNAL, libc::SIGURG).ok()?;
    match set(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            set(file, libc::F_SETLEASE, libc::F_UNLCK).ok()?;
            Some(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(true),
        Err(_) => None,
    }
}

/// Gives a descriptor something that is a number.
fn set(file: &File, command: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: these commands take a number, and no memory of ours; the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
