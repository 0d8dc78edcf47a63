//! The connection of a running system to its NBD server, which the kernel can't restore by itself.

use super::kernel::{self, Driver};
use super::negotiate::{Request, negotiate_any};
use crate::root::tls::Tls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// The kernel's connection to the storage server: [`wait_for_loss`](Self::wait_for_loss), then
/// [`connect`](Self::connect) until that succeeds, and so on.
pub(crate) struct Link {
    servers: Vec<SocketAddrV4>,
    /// For the last connection. The storage server ends those of smaller generations first, so that no late write of a
    /// former one overtakes a repeated one.
    request: Request,
    size_bytes: u64,
    /// Ours of the kernel's connection: it hangs up when the kernel gives it up.
    connection: OwnedFd,
    tls: Option<Tls>,
    driver: Driver,
}

impl Link {
    /// The connection that the kernel has, which was made by this request, and all that it takes to make another one.
    pub(crate) fn open(
        servers: &[SocketAddrV4],
        request: Request,
        connection: OwnedFd,
    ) -> io::Result<Self> {
        let driver = Driver::open()?;
        let disk = kernel::device(request.index);
        let size_bytes = disk.size_bytes().ok_or_else(|| io::Error::other("the disk is gone"))?;
        let servers = servers.to_vec();
        let tls = if request.is_foreign { None } else { Tls::open()? };
        Ok(Self { servers, request, size_bytes, connection, tls, driver })
    }

    /// Waits until the kernel has given the connection up.
    pub(crate) fn wait_for_loss(&self) {
        loop {
            // Hang-ups and errors are reported without being asked for; the data is the kernel's.
            let mut list = [PollFd::new(&self.connection, PollFlags::empty())];
            if poll(&mut list, None::<&Timespec>).is_ok()
                && list[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
            {
                return;
            }
        }
    }

    /// Makes another connection and gives it to the kernel; returns by which of the addresses.
    ///
    /// # Errors
    /// In words for the person who waits. It may be tried again.
    pub(crate) fn connect(&mut self) -> Result<SocketAddrV4, String> {
        self.request.generation += 1;
        let machine = &self.request.machine;
        let (server, (stream, found)) =
            negotiate_any(&self.servers, &self.request, self.tls.as_ref(), CONNECT_TIMEOUT)
                .map_err(|(server, error)| self.request.why(server, &error))?;
        if found.size_bytes / 512 * 512 != self.size_bytes {
            return Err(format!(
                "the disk {machine} of {server} has {} bytes now, but had {}: this is not the disk of this system; \
                 restart this machine",
                found.size_bytes, self.size_bytes
            ));
        }
        self.driver
            .reconnect(self.request.index, &stream, machine)
            .map_err(|error| format!("the kernel refuses the connection: {error}"))?;
        self.connection = stream.into();
        Ok(server)
    }
}
