//! Opening a tap interface, which no library names safely.

use nix::libc::{IFF_NO_PI, IFF_TAP, IFNAMSIZ, c_char, c_int, c_short, ifreq};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

nix::ioctl_write_ptr_bad!(
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<c_int>()),
    ifreq
);

/// Opens the tap interface of this name in the thread's network namespace: one frame a read, and one a write.
///
/// # Errors
/// There is none, or somebody has it open.
pub(crate) fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut ifr_name: [c_char; IFNAMSIZ] = [0; IFNAMSIZ];
    // The last one stays 0.
    for (to, from) in ifr_name[..IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let flags = c_short::try_from(IFF_TAP | IFF_NO_PI).map_err(io::Error::other)?;
    let request =
        ifreq { ifr_name, ifr_ifru: nix::libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the file is open, and the kernel reads an ifreq, which lives until the call is over.
    unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}
