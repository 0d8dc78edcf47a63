//! Sockets that were opened by whoever started us. Unsafe code is here because a descriptor number is all that is handed over.

use socket2::Socket;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use tokio::net::TcpListener;

/// The listening socket with this number, for the runtime; see [`socket_from`].
///
/// # Errors
/// The descriptor is no listening socket.
pub fn listener_from(descriptor: RawFd) -> io::Result<TcpListener> {
    let socket = socket_from(descriptor)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// The listening sockets that systemd passed in `LISTEN_FDS`. Call it once.
///
/// # Errors
/// The variables are not what systemd sets, or a descriptor is no listening socket.
pub fn handed_sockets() -> io::Result<Vec<Socket>> {
    sd_notify::listen_fds()?.map(socket_from).collect()
}

/// The listening socket with this number, which systemd passed in `LISTEN_FDS`. Call it once per descriptor.
///
/// # Errors
/// The descriptor is no listening socket.
fn socket_from(descriptor: RawFd) -> io::Result<Socket> {
    // SAFETY: the protocol of LISTEN_FDS gives these descriptors to this process, and our caller
    // takes each once; so nobody else closes or reads it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let socket = Socket::from(owned);
    if !socket.is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it doesn't listen for connections",
        ));
    }
    socket.set_cloexec(true)?;
    Ok(socket)
}
