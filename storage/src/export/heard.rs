//! How long ago the other end of a connection was heard of.

use socket2::Socket;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Time since the client's kernel acknowledged something, be it a probe (`tcpi_last_ack_recv`); `None`: it is no
/// TCP connection. Also known of one that is closed.
pub(super) fn acknowledged_ago(stream: &Socket) -> Option<Duration> {
    // SAFETY: all zeroes are a valid value of this plain C structure.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for the `length` bytes that the kernel writes at most; both outlive the call.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (failed == 0).then(|| Duration::from_millis(info.tcpi_last_ack_recv.into()))
}
