//! Sockets that were opened by whoever started us. Unsafe code is here because a descriptor number is all that is handed over.

use super::port_holder::{Protocol, in_use};
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use tokio::net::TcpListener;

/// A listening socket that was handed over.
#[derive(Debug)]
pub struct Handed {
    /// What it is called in `LISTEN_FDNAMES`: the socket unit, or what the socket was stored as. `unknown` without that.
    pub name: String,
    /// The socket.
    pub socket: Socket,
}

impl Handed {
    /// Whether it listens there.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.socket.local_addr().is_ok_and(|own| own.as_socket() == Some(address))
    }

    /// Whether it is a Unix socket with this file.
    pub fn is_on(&self, path: &Path) -> bool {
        self.socket.local_addr().is_ok_and(|own| own.as_pathname() == Some(path))
    }

    /// The same socket once more, for a server that begins anew in this process.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn again(name: &str, socket: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), socket: socket.try_clone_to_owned()?.into() })
    }
}

/// The first of these, for the runtime, or a new one at the address.
///
/// # Errors
/// It can't be opened; the text names the program that has the port.
pub async fn listener(handed: Vec<Handed>, address: SocketAddr) -> anyhow::Result<TcpListener> {
    match handed.into_iter().next() {
        Some(handed) => {
            handed.socket.set_nonblocking(true)?;
            Ok(TcpListener::from_std(handed.socket.into())?)
        }
        None => Ok(TcpListener::bind(address)
            .await
            .map_err(|error| in_use(Protocol::Tcp, address, error))?),
    }
}

/// The listening sockets that systemd passed in `LISTEN_FDS`. Call it once.
///
/// # Errors
/// The variables are not what systemd sets, or a descriptor is no listening socket.
pub fn handed_sockets() -> io::Result<Vec<Handed>> {
    let handed = sd_notify::listen_fds_with_names()?;
    handed.map(|(descriptor, name)| Ok(Handed { name, socket: socket_from(descriptor)? })).collect()
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
