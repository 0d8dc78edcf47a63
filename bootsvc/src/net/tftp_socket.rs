//! The socket of one TFTP transfer.

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long it is waited when the kernel has no room for another packet: so long a gigabit takes for 90.
const ROOM_WAIT: Duration = Duration::from_millis(1);

/// DATA packets that leave at once. Linux takes 64, and 65,507 bytes.
pub(super) const BLOCKS_MAX: usize = 32;

/// A DATA packet: its header, and bytes of the file.
pub(super) type Block<'a> = ([u8; 4], &'a [u8]);

/// A socket whose task is woken by what comes in only. Linux also tells of each packet that has left that there is room for another
/// one, and who waits for that, too, is woken twice for each block.
pub(super) struct TransferSocket {
    inner: AsyncFd<UdpSocket>,
    /// The kernel cuts what it is given into packets (`UDP_SEGMENT`): as far as is known.
    cuts: bool,
}

impl TransferSocket {
    /// At a port of its own.
    pub(super) fn bind(server: Ipv4Addr) -> io::Result<Self> {
        let socket = UdpSocket::bind((server, 0))?;
        socket.set_nonblocking(true)?;
        // SAFETY: the socket owns its descriptor, which nobody here exchanges, and `AsyncFd` owns the socket until both are closed.
        let inner = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self { inner, cuts: true })
    }

    /// The next datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.inner.async_io(Interest::READABLE, |socket| socket.recv_from(buffer)).await
    }

    /// A datagram that has come, also if the runtime has not heard of it yet.
    pub(super) fn waiting(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.inner.get_ref().recv_from(buffer).ok()
    }

    /// Sends up to [`BLOCKS_MAX`] packets, when there is room: all of one length but the last, which may be shorter.
    pub(super) async fn send_blocks(
        &mut self,
        blocks: &[Block<'_>],
        to: SocketAddrV4,
    ) -> io::Result<()> {
        if self.cuts && blocks.len() > 1 {
            match self.send_in_one(blocks, to).await {
                // Not on this interface; or the packets don't fit into its MTU, and must be divided.
                Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::EOPNOTSUPP) => {
                    self.cuts = false;
                }
                other => return other.map_err(io::Error::from),
            }
        }
        for block in blocks {
            self.send_in_one(std::slice::from_ref(block), to).await?;
        }
        Ok(())
    }

    async fn send_in_one(&self, blocks: &[Block<'_>], to: SocketAddrV4) -> Result<(), Errno> {
        loop {
            match self.try_send_in_one(blocks, to) {
                Err(Errno::EAGAIN) => tokio::time::sleep(ROOM_WAIT).await,
                other => return other,
            }
        }
    }

    fn try_send_in_one(&self, blocks: &[Block<'_>], to: SocketAddrV4) -> Result<(), Errno> {
        let parts = blocks.iter().flat_map(|(header, bytes)| [&header[..], *bytes]);
        let parts: Vec<IoSlice<'_>> = parts.map(IoSlice::new).collect();
        let length = blocks.first().map_or(0, |(header, bytes)| header.len() + bytes.len()) as u16;
        let cut = [ControlMessage::UdpGsoSegments(&length)];
        let cut = if blocks.len() > 1 { &cut[..] } else { &[] };
        let to = SockaddrIn::from(to);
        sendmsg(self.as_raw_fd(), &parts, cut, MsgFlags::empty(), Some(&to)).map(drop)
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
