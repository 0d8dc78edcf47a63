//! Attaches an NBD export as a disk: our handshake, then the kernel owns the connection.

mod kernel;
mod link;
mod negotiate;

pub(crate) use kernel::ROOT_INDEX;
pub(crate) use link::Link;
pub(crate) use negotiate::{Exchange, Request};

use crate::console::Console;
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::patience::Patience;
use crate::root::disk::Disk;
use crate::root::tls::Tls;
use crate::sysfs;
use initcfg::{DiskKey, HostConfig};
use kernel::Driver;
use negotiate::{Connection, negotiate_any};
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// After this time the kernel looks whether a request must be sent again on a new connection. With one
/// connection and no request timeout it never gives up because of it.
const IO_TIMEOUT_MS: u32 = 1000;

/// Large enough that a sequential read keeps a gigabit link busy, small enough not to flood one that
/// thirty machines share.
const READ_AHEAD_KB: u32 = 1024;

/// Some cards lose their first frames after the link is up, and TCP repeats a lost one only after a
/// second: the first tries are short.
const CONNECT_TIMEOUT_FIRST: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);
const SILENT_AT_FIRST: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A server that answers, but refuses the export for so long, will not change its mind for this boot:
/// a new one asks the boot server again.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// The disk, and how it is reached.
pub(crate) struct Attached {
    pub(crate) disk: Disk,
    /// Which of the addresses gives it.
    pub(crate) server: SocketAddrV4,
    /// Ours of the connection that the kernel has: [`Link`] sees by it when that is lost.
    pub(crate) connection: TcpStream,
    /// Number of that connection.
    pub(crate) generation: u32,
    /// What it was told inside of TLS.
    pub(crate) told: Option<HostConfig>,
}

/// Connects, for as long as it takes or until `end`, and gives the connection to the kernel. If this boot has no key,
/// `find_key` is asked for it each time that the disk is refused.
pub(crate) fn attach(
    servers: &[SocketAddrV4],
    mut request: Request,
    end: Option<Instant>,
    find_key: impl Fn() -> Option<DiskKey>,
    modules: &Modules,
    console: &Console,
) -> Result<Attached, Failure> {
    let tls = if request.is_foreign { Ok(None) } else { Tls::open() };
    let tls = tls.map_err(|error| {
        let text = format!("the initrd says that NBD needs TLS, which does not work: {error}");
        Failure::new(text, "have the boot server rebuild the initrd")
    })?;
    let with_tls = || if tls.is_some() { Tls::load_driver(modules) } else { Ok(()) };
    load_driver(modules)
        .and_then(|()| with_tls())
        .map_err(|error| cannot_load("NBD", &error, modules))?;
    let (server, (connection, found)) =
        wait_for_export(servers, &mut request, end, find_key, tls.as_ref(), console)?;
    let Request { machine, is_foreign, generation, exchange, index, .. } = request;
    let told = exchange.as_ref().and_then(Exchange::told);
    // The kernel shows this name to everybody.
    let given =
        Driver::open().and_then(|driver| driver.connect(index, &connection, &machine, found));
    given.map_err(|error| {
        Failure::new(
            format!("the kernel refuses the NBD connection to {server}: {error}"),
            "this is a fault of the kernel or of this initrd: try another kernel version",
        )
    })?;
    let disk = kernel::device(index);
    for (file, value) in [
        ("queue/io_timeout", IO_TIMEOUT_MS.to_string()),
        ("queue/read_ahead_kb", READ_AHEAD_KB.to_string()),
    ] {
        sysfs::tune(disk.sys(file), &value);
    }
    if disk.size_bytes().is_none() {
        return Err(match is_foreign || index != ROOT_INDEX {
            true => Failure::new(
                format!("the disk {machine} of the NBD server {server} is empty"),
                "look at what that server exports",
            ),
            false => Failure::new(
                format!("the disk {machine} of the storage server {server} is empty"),
                "import the image again",
            ),
        });
    }
    Ok(Attached { disk, server, connection, generation, told })
}

/// Tries until one of the addresses gives the export, or one has refused it for too long; once at least.
fn wait_for_export(
    servers: &[SocketAddrV4],
    request: &mut Request,
    end: Option<Instant>,
    find_key: impl Fn() -> Option<DiskKey>,
    tls: Option<&Tls>,
    console: &Console,
) -> Result<(SocketAddrV4, Connection), Failure> {
    let mut patience = Patience::new(console, "attach");
    let started = Instant::now();
    let mut retry = RETRY_FIRST;
    let mut timeout = CONNECT_TIMEOUT_FIRST;
    let mut refused_since: Option<Instant> = None;
    loop {
        request.generation += 1;
        let (server, error) = match negotiate_any(servers, request, tls, timeout) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let is_refused = error.is_word();
        if is_refused && request.key.is_none() {
            request.key = find_key();
        }
        let text = request.why(server, &error);
        if !is_refused || error.passes().is_some() {
            refused_since = None;
        } else {
            refused_since = refused_since.or_else(|| Some(Instant::now()));
        }
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        if is_over || refused_since.is_some_and(|since| since.elapsed() > REFUSED_MAX) {
            let remedy = match request.is_foreign {
                true => "look at that server's log; the machine restarts and asks again",
                false if is_over => {
                    "look at the storage server's log, and restart this machine to have it"
                }
                false => "look at the storage server's log; the machine restarts and asks again",
            };
            return Err(Failure::new(text, remedy));
        }
        // Nobody need read of the first tries, unless the answer was no.
        if started.elapsed() > SILENT_AT_FIRST || is_refused {
            patience.waiting(&text);
        }
        timeout = (timeout * 2).min(CONNECT_TIMEOUT_MAX);
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Loads the kernel's part.
pub(crate) fn load_driver(modules: &Modules) -> io::Result<()> {
    // One device is enough here, and each further one delays the real system's udev.
    modules.load("nbd", "nbds_max=1")
}
