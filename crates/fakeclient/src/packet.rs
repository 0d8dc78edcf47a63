//! Frames in and out of an interface: any, and those of AoE many at once.

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockaddrLike, bind, recvmmsg, sendmmsg,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Frames that one call sends or receives.
pub(crate) const BATCH_MAX: usize = 64;

/// Room for a frame of 16 sectors, the most that is used.
const FRAME_BYTES: usize = aoe::ATA_HEADER_BYTES + 16 * aoe::SECTOR_BYTES;

/// All frames of all clients wait here.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// A socket for whole frames of this type on an interface. Needs root.
pub(crate) fn raw_socket(interface: &str, ethertype: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    let index = if_nametoindex(interface)?;
    let is_it = |address: &LinkAddr| address.ifindex() == index as usize;
    let address = nix::ifaddrs::getifaddrs()?
        .filter_map(|one| one.address)
        .filter(|address| address.family() == Some(AddressFamily::Packet))
        .find_map(|address| address.as_link_addr().copied().filter(is_it))
        .ok_or(io::ErrorKind::NotFound)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

pub(crate) struct Packets {
    socket: Socket,
    incoming: MultiHeaders<()>,
    outgoing: MultiHeaders<()>,
    buffers: Vec<Vec<u8>>,
}

impl Packets {
    pub(crate) fn open(interface: &str, patience: Duration) -> io::Result<Self> {
        let socket = raw_socket(interface, aoe::ETHERTYPE)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.set_read_timeout(Some(patience))?;
        let headers = || MultiHeaders::preallocate(BATCH_MAX, None);
        let buffers = vec![vec![0; FRAME_BYTES]; BATCH_MAX];
        Ok(Self { socket, incoming: headers(), outgoing: headers(), buffers })
    }

    /// Sends frames, all that the interface takes.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) -> io::Result<()> {
        for frames in frames.chunks(BATCH_MAX) {
            let mut left: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
            while !left.is_empty() {
                let nobody = vec![None; left.len()];
                let sent = sendmmsg(
                    self.socket.as_raw_fd(),
                    &mut self.outgoing,
                    &left,
                    &nobody,
                    [],
                    MsgFlags::empty(),
                )?
                .count();
                left.drain(..sent.max(1).min(left.len()));
            }
        }
        Ok(())
    }

    /// Waits for a frame for as long as was said, and gives all that are there to `take`.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut lengths = [0; BATCH_MAX];
        let mut count = 0;
        {
            let mut parts: Vec<_> =
                self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let descriptor = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_WAITFORONE;
            match recvmmsg(descriptor, &mut self.incoming, parts.iter_mut(), flags, None) {
                Ok(received) => {
                    for message in received {
                        lengths[count] = message.bytes;
                        count += 1;
                    }
                }
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (buffer, &length) in self.buffers.iter().zip(&lengths[..count]) {
            take(&buffer[..length]);
        }
        Ok(())
    }
}
