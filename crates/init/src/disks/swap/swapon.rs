//! The call that no library has but libc, whose form of it is unsafe.

use std::ffi::CString;
use std::io;

/// The low bits are the priority (`include/uapi/linux/swap.h`).
const PREFER: i32 = 0x8000;
const PRIORITY_MASK: i32 = 0x7fff;

/// Has the kernel swap to a device with this priority.
pub(super) fn swapon(device: &str, priority: u16) -> io::Result<()> {
    let device = CString::new(device)?;
    let flags = PREFER | i32::from(priority) & PRIORITY_MASK;
    #[expect(unsafe_code, reason = "no library has a safe form of this call")]
    // SAFETY: the kernel reads a path that ends with a NUL and lives as long as the call, and keeps none of it.
    let result = unsafe { libc::swapon(device.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
