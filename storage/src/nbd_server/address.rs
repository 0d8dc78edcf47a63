//! Where NBD is served.

use crate::admission::Peer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A room full of PCs that is switched on at once connects at once.
const BACKLOG: i32 = 1024;

/// What a local client may leave for later, so that the two wait for each other less often.
const LOCAL_SEND_BYTES: usize = 1 << 20;

/// A machine that takes no data for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over the network.
    Tcp(SocketAddr),
    /// On this host: a Unix socket, which only its owner may open.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A socket that listens; a Unix socket's file goes with it.
pub(super) struct Listener {
    socket: Socket,
    file: Option<PathBuf>,
    /// Can be read when nobody shall be let in any more. The socket itself may be somebody else's, too,
    /// who goes on listening, so it must not be shut down.
    stop: OwnedFd,
    /// A descriptor for nothing, given up for a moment to refuse a client when there is no other.
    spare: Mutex<Option<OwnedFd>>,
}

/// Who is at the door.
pub(super) enum Accepted {
    Client(Socket, SockAddr),
    /// A client that was sent away, since this process may have no more descriptors. Otherwise it would wait for
    /// good, and this server would be told of it for good.
    NoRoom,
    /// [`Listener::stop`] was called.
    Stopped,
}

impl Listener {
    pub(super) fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(BACKLOG)?;
                Self::new(socket, None)
            }
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                remove_dead(path)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let listener = Self::new(socket, Some(path.clone()))?;
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                listener.socket.listen(BACKLOG)?;
                Ok(listener)
            }
        }
    }

    /// A socket that somebody else opened, and whose file is his.
    pub(super) fn handed(socket: Socket) -> io::Result<Self> {
        Self::new(socket, None)
    }

    fn new(socket: Socket, file: Option<PathBuf>) -> io::Result<Self> {
        // What was announced may be gone when it is accepted.
        socket.set_nonblocking(true)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let spare = Mutex::new(Some(stop.try_clone()?));
        Ok(Self { socket, file, stop, spare })
    }

    /// Waits for the next connection.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        loop {
            let mut waits =
                [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut waits, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !waits[0].revents().is_empty() {
                return Ok(Accepted::Stopped);
            }
            match self.socket.accept() {
                Ok((stream, address)) => return Ok(Accepted::Client(stream, address)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_out_of_descriptors(&error) => {
                    return self.send_away().map(|()| Accepted::NoRoom);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the next connection at once.
    fn send_away(&self) -> io::Result<()> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        drop(spare.take());
        let sent_away = self.socket.accept().map(drop);
        *spare = self.stop.try_clone().ok();
        sent_away
    }

    /// Ends [`accept`](Self::accept).
    pub(super) fn stop(&self) {
        // It only counts, and can't overflow.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where it listens: with the port that was chosen, if it was asked for any.
    pub(super) fn address(&self) -> io::Result<Address> {
        if let Some(file) = &self.file {
            return Ok(Address::Unix(file.clone()));
        }
        let address = self.socket.local_addr()?;
        let path = || Address::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned());
        Ok(address.as_socket().map_or_else(path, Address::Tcp))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Somebody may have removed it.
            let _ = fs::remove_file(file);
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// Removes a socket's file that a server left behind which was killed.
fn remove_dead(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Prepares an accepted connection, and says who it is.
pub(super) fn prepare(stream: &Socket, address: &SockAddr) -> io::Result<Peer> {
    let Some(address) = address.as_socket() else {
        // TCP adapts its buffer by itself.
        stream.set_send_buffer_size(LOCAL_SEND_BYTES)?;
        return Ok(Peer::Unix);
    };
    stream.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(4);
    stream.set_tcp_keepalive(&keepalive)?;
    stream.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(Peer::Tcp(address))
}
