//! The socket of one TFTP transfer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long it is waited when the kernel has no room for another packet: so long a gigabit takes for 90.
const ROOM_WAIT: Duration = Duration::from_millis(1);

/// A socket whose task is woken by what comes in only. Linux also tells of each packet that has left that there is room for another
/// one, and who waits for that, too, is woken twice for each block.
pub(super) struct TransferSocket {
    inner: AsyncFd<UdpSocket>,
}

impl TransferSocket {
    /// At a port of its own.
    pub(super) fn bind(server: Ipv4Addr) -> io::Result<Self> {
        let socket = UdpSocket::bind((server, 0))?;
        socket.set_nonblocking(true)?;
        // SAFETY: the socket owns its descriptor, which nobody here exchanges, and `AsyncFd` owns the socket until both are closed.
        let inner = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self { inner })
    }

    /// The next datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.async_io(Interest::READABLE, |socket| socket.recv_from(buffer)).await
    }

    /// A datagram that has come, also if the runtime has not heard of it yet.
    pub(super) fn waiting(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.inner.get_ref().recv_from(buffer).ok()
    }

    /// Sends it, when there is room.
    pub(super) async fn send(&self, packet: &[u8], to: SocketAddrV4) -> io::Result<()> {
        loop {
            match self.try_send(packet, to.into()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(ROOM_WAIT).await;
                }
                other => return other,
            }
        }
    }

    /// Sends it, if there is room.
    pub(super) fn try_send(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        self.inner.get_ref().send_to(packet, to).map(drop)
    }
}

impl AsFd for TransferSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for TransferSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}
