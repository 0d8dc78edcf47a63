//! The kernel's NBD driver, over netlink (`include/uapi/linux/nbd-netlink.h`): it takes the connection that
//! was negotiated, and another one in its place when that is lost.

use crate::net::netlink::{Message, Socket};
use crate::root::disk::Disk;
use ::nbd::client::Export;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// The root's device, if that is on an NBD server; of a machine's further disks each has one behind it.
pub(crate) const ROOT_INDEX: u32 = 0;

/// The device of this number, which the kernel makes when it is first connected.
pub(super) fn device(index: u32) -> Disk {
    Disk { name: format!("nbd{index}") }
}

/// Must not be larger than the block size of any file system: ext4 knows 1024, and partition tables 512.
const BLOCK_SIZE_BYTES: u64 = 512;

/// How long the kernel keeps requests when the connection is lost. 0 fails them at once, and there is
/// no "for ever": ten years.
const DEAD_CONNECTION_TIMEOUT_S: u64 = 315_360_000;

/// The kernel's driver. [`connect`](Self::connect) comes first, once for all; then
/// [`reconnect`](Self::reconnect) whenever that connection was lost.
pub(crate) struct Driver {
    socket: Socket,
    family: u16,
}

impl Driver {
    /// Opens it; its module must be loaded.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::generic()?;
        let family = socket.family("nbd").map_err(|_| {
            io::Error::new(io::ErrorKind::Unsupported, "this kernel has no NBD driver")
        })?;
        Ok(Self { socket, family })
    }

    /// Hands the connection to the kernel, which makes the disk of this number of it.
    pub(crate) fn connect(
        &self,
        index: u32,
        stream: &TcpStream,
        export: &str,
        found: Export,
    ) -> io::Result<()> {
        let fd = u32::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
        self.socket.request(connect_message(self.family, (index, fd), export, found)).map(drop)
    }

    /// Hands the kernel another connection for the one that it lost.
    pub(crate) fn reconnect(&self, index: u32, stream: &TcpStream, export: &str) -> io::Result<()> {
        const RECONFIGURE: u8 = 3;
        let fd = u32::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
        let message = Message::generic(self.family, RECONFIGURE)
            .u32(ATTRIBUTE_INDEX, index)
            .text(BACKEND, export)
            .nested(SOCKETS, |sockets| sockets.nested(ITEM, |item| item.u32(FD, fd)));
        self.socket.request(message).map(drop)
    }
}

// Attributes of the kernel's NBD messages.
const ATTRIBUTE_INDEX: u16 = 1;
const SOCKETS: u16 = 7;
const BACKEND: u16 = 10;
const ITEM: u16 = 1;
const FD: u16 = 1;

fn connect_message(family: u16, (index, fd): (u32, u32), export: &str, found: Export) -> Message {
    const CONNECT: u8 = 1;
    const SIZE_BYTES: u16 = 2;
    const BLOCK_SIZE: u16 = 3;
    const TIMEOUT: u16 = 4;
    const SERVER_FLAGS: u16 = 5;
    const CLIENT_FLAGS: u16 = 6;
    const DEAD_CONNECTION_TIMEOUT: u16 = 8;
    Message::generic(family, CONNECT)
        .u32(ATTRIBUTE_INDEX, index)
        .u64(SIZE_BYTES, found.size_bytes / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES)
        .u64(BLOCK_SIZE, BLOCK_SIZE_BYTES)
        // No request timeout: a slow disk must not look like a dead server.
        .u64(TIMEOUT, 0)
        .u64(SERVER_FLAGS, found.flags.0.into())
        .u64(CLIENT_FLAGS, 0)
        .u64(DEAD_CONNECTION_TIMEOUT, DEAD_CONNECTION_TIMEOUT_S)
        // Whoever connects again later must give the same name: no wrong disk under a running system.
        .text(BACKEND, export)
        .nested(SOCKETS, |sockets| sockets.nested(ITEM, |item| item.u32(FD, fd)))
}
