//! Attaches an NBD export as the root disk: our handshake, then the kernel owns the connection.

use crate::console::Console;
use crate::failure::Failure;
use crate::keeper;
use crate::modules::Modules;
use crate::net::dhcp::Held;
use crate::net::netlink::{Message, Socket};
use crate::net::nic::{Nic, Patience};
use crate::root::disk::Disk;
use crate::root::tls::Tls;
use crate::sysfs;
use ::nbd::client::{Export, Handshake, HandshakeError, Step};
use rustix::net::sockopt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The root disk is always the first NBD device.
const INDEX: u32 = 0;

/// Its name.
pub(crate) const DEVICE: &str = "nbd0";

/// Must not be larger than the block size of any file system: ext4 knows 1024, and partition tables 512.
const BLOCK_SIZE_BYTES: u64 = 512;

/// How long the kernel keeps requests when the connection is lost. 0 fails them at once, and there is
/// no "for ever": ten years.
const DEAD_CONNECTION_TIMEOUT_S: u64 = 315_360_000;

/// After this time the kernel looks whether a request must be sent again on a new connection. With one
/// connection and no request timeout it never gives up because of it.
const IO_TIMEOUT_MS: u32 = 1000;

/// A silent server is given up after this time, so that the connection can be made anew.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Large enough that a sequential read keeps a gigabit link busy, small enough not to flood one that
/// thirty machines share.
const READ_AHEAD_KB: u32 = 1024;

/// Some cards lose their first frames after the link is up, and TCP repeats a lost one only after a
/// second: the first tries are short.
const CONNECT_TIMEOUT_FIRST: Duration = Duration::from_millis(300);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const SILENT_AT_FIRST: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A server that answers, but refuses the export for so long, will not change its mind for this boot:
/// a new one asks the boot server again.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// Connects, for as long as it takes; also returns by which of the addresses.
pub(crate) fn attach(
    servers: &[SocketAddrV4],
    export: &str,
    modules: &Modules,
    console: &Console,
    own_lease: Option<(&Held, &Nic)>,
) -> Result<(Disk, SocketAddrV4), Failure> {
    let tls = Tls::open().map_err(|error| {
        let text = format!("the initrd says that NBD needs TLS, which does not work: {error}");
        Failure::new(text, "have the boot server build the initrd anew")
    })?;
    let with_tls = || if tls.is_some() { Tls::load_driver(modules) } else { Ok(()) };
    load_driver(modules).and_then(|()| with_tls()).map_err(|error| {
        Failure::new(
            format!("can't load the NBD driver: {error}"),
            format!("the initrd is for kernel {}: use it with that kernel", modules.kernel()),
        )
    })?;
    let mut patience = Patience::new(console, "attach");
    let started = Instant::now();
    let mut retry = RETRY_FIRST;
    let mut timeout = CONNECT_TIMEOUT_FIRST;
    let mut refused_since: Option<Instant> = None;
    let (server, (stream, found)) = loop {
        let (server, error) = match negotiate_any(servers, export, tls.as_ref(), timeout) {
            Ok(connection) => break connection,
            Err(error) => error,
        };
        let is_refused = error.is_word();
        let text = why(server, export, &error);
        let since = *refused_since.get_or_insert_with(Instant::now);
        if !is_refused {
            refused_since = None;
        } else if since.elapsed() > REFUSED_MAX {
            let remedy =
                "look into the storage server's log; the machine starts again and asks anew";
            return Err(Failure::new(text, remedy));
        }
        // Nobody need read of the first tries, unless the answer was no.
        if started.elapsed() > SILENT_AT_FIRST || is_refused {
            patience.waiting(&text);
        }
        timeout = (timeout * 2).min(CONNECT_TIMEOUT_MAX);
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    };
    let disk = Disk { name: DEVICE.to_owned() };
    connect(&stream, export, found).map_err(|error| {
        Failure::new(
            format!("the kernel does not take the NBD connection to {server}: {error}"),
            "this is a fault of the kernel or of this initrd: try another kernel version",
        )
    })?;
    for (file, value) in [
        ("queue/io_timeout", IO_TIMEOUT_MS.to_string()),
        ("queue/read_ahead_kb", READ_AHEAD_KB.to_string()),
    ] {
        sysfs::tune(disk.sys(file), &value);
    }
    if disk.size_bytes().is_none() {
        return Err(Failure::new(
            format!("the disk {export} of the storage server {server} is empty"),
            "import the image again",
        ));
    }
    if let Err(error) = keeper::start(Some(stream), own_lease) {
        // The disk works; only an outage of its server would be the end of this system.
        console.say("attach", &format!("nobody will restore a lost connection: {error}"));
    }
    Ok((disk, server))
}

/// Loads the kernel's part.
pub(crate) fn load_driver(modules: &Modules) -> io::Result<()> {
    // One device is enough here, and each further one delays the real system's udev.
    modules.load("nbd", "nbds_max=1")
}

/// Why there is no connection yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NegotiationError {
    /// The server can't be reached, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server answered something else than yes.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// There is no TLS session with it; why, in words.
    #[error("{0}")]
    Tls(String),
}

impl NegotiationError {
    /// Whether the server has said something.
    const fn is_word(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// What an error means for the person who waits.
pub(crate) fn why(server: SocketAddrV4, export: &str, error: &NegotiationError) -> String {
    match error {
        NegotiationError::Handshake(error) => {
            format!("the storage server {server} does not give the disk {export}: {error}")
        }
        NegotiationError::Tls(why) => {
            format!("the storage server {server} can't be trusted with the disk {export}: {why}")
        }
        NegotiationError::Io(error) => {
            format!(
                "waiting for the storage server {server}: {}",
                unreachable(error, "storage server")
            )
        }
    }
}

/// A connection to the export, ready for the kernel.
type Connection = (TcpStream, Export);

/// The next address of the server is tried after this time without an answer of the former.
const STAGGER: Duration = Duration::from_millis(300);

/// The keeper's memory is locked, so that stacks are small; those of TLS are not.
const STACK_BYTES: usize = if cfg!(feature = "tls") { 256 << 10 } else { 64 << 10 };

/// Tries all addresses, one a little after the other, and takes the first that gives the export. If none
/// does, a word of the server counts more than silence.
pub(crate) fn negotiate_any(
    servers: &[SocketAddrV4],
    export: &str,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<(SocketAddrV4, Connection), (SocketAddrV4, NegotiationError)> {
    if let [server] = servers {
        let connection =
            negotiate(*server, export, tls, timeout).map_err(|error| (*server, error))?;
        return Ok((*server, connection));
    }
    let (sender, answers) = mpsc::channel();
    let mut left = servers.iter();
    let mut n_running = 0;
    let mut trouble: Option<(SocketAddrV4, NegotiationError)> = None;
    loop {
        if let Some(&server) = left.next() {
            let (sender, export, tls) = (sender.clone(), export.to_owned(), tls.cloned());
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            // Nobody listens any more when another one was faster: that connection is closed.
            let work = move || {
                let done = negotiate(server, &export, tls.as_ref(), timeout);
                drop(sender.send((server, done)));
            };
            match thread.spawn(work) {
                Ok(_) => n_running += 1,
                Err(error) => trouble = trouble.or(Some((server, error.into()))),
            }
        }
        let is_last = left.len() == 0;
        if is_last && n_running == 0 {
            let silent = || (servers[0], io::Error::from(io::ErrorKind::TimedOut).into());
            return Err(trouble.unwrap_or_else(silent));
        }
        // A thread has time limits of its own.
        let patience = if is_last { timeout + 3 * HANDSHAKE_TIMEOUT } else { STAGGER };
        match answers.recv_timeout(patience) {
            Ok((server, Ok(connection))) => return Ok((server, connection)),
            Ok((server, Err(error))) => {
                n_running -= 1;
                let is_word = error.is_word();
                if is_word || trouble.is_none() {
                    trouble = Some((server, error));
                }
            }
            Err(_) if is_last => n_running = 0,
            Err(_) => {}
        }
    }
}

fn negotiate(
    server: SocketAddrV4,
    export: &str,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<Connection, NegotiationError> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(server), timeout)?;
    tune_socket(&stream)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let found = open_export(&mut stream, server, export, tls)?;
    // The kernel inherits the socket: a read timeout would end the connection in an idle moment.
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, found))
}

fn open_export(
    stream: &mut TcpStream,
    server: SocketAddrV4,
    export: &str,
    tls: Option<&Tls>,
) -> Result<Export, NegotiationError> {
    let mut handshake = match tls {
        Some(_) => Handshake::with_tls(export),
        None => Handshake::new(export),
    };
    loop {
        match handshake.step()? {
            Step::Send(bytes) => stream.write_all(&bytes)?,
            Step::Receive(length) => {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes)?;
                handshake.on_bytes(&bytes)?;
            }
            Step::StartTls => {
                if let Some(tls) = tls {
                    tls.start(stream, *server.ip()).map_err(NegotiationError::Tls)?;
                }
                handshake.on_tls();
            }
            Step::Done(found) => return Ok(found),
        }
    }
}

/// What the usual errors of a connection mean for the person who waits.
pub(crate) fn unreachable(error: &io::Error, server: &str) -> String {
    let meaning = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            return format!("the machine is there, but no {server} runs on it");
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer",
        io::ErrorKind::HostUnreachable => "no machine answers at this address",
        io::ErrorKind::NetworkUnreachable => "there is no route to it: is the router set?",
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection",
        _ => return error.to_string(),
    };
    meaning.to_owned()
}

pub(crate) fn tune_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Without these the death of a silent server is noticed after 15 minutes, or never.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    let timeout_ms = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, timeout_ms)?;
    Ok(())
}

/// Hands the connection to the kernel.
fn connect(stream: &TcpStream, export: &str, found: Export) -> io::Result<()> {
    let socket = Socket::generic()?;
    let family = socket
        .family("nbd")
        .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "this kernel has no NBD driver"))?;
    let fd = u32::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
    socket.request(connect_message(family, fd, export, found)).map(drop)
}

/// Hands the kernel another connection for the one that it lost.
pub(crate) fn reconfigure(
    socket: &Socket,
    family: u16,
    stream: &TcpStream,
    export: &str,
) -> io::Result<()> {
    const RECONFIGURE: u8 = 3;
    let fd = u32::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
    let message = Message::generic(family, RECONFIGURE)
        .u32(ATTRIBUTE_INDEX, INDEX)
        .text(BACKEND, export)
        .nested(SOCKETS, |sockets| sockets.nested(ITEM, |item| item.u32(FD, fd)));
    socket.request(message).map(drop)
}

// Attributes of the kernel's NBD messages: include/uapi/linux/nbd-netlink.h.
const ATTRIBUTE_INDEX: u16 = 1;
const SOCKETS: u16 = 7;
const BACKEND: u16 = 10;
const ITEM: u16 = 1;
const FD: u16 = 1;

fn connect_message(family: u16, fd: u32, export: &str, found: Export) -> Message {
    const CONNECT: u8 = 1;
    const SIZE_BYTES: u16 = 2;
    const BLOCK_SIZE: u16 = 3;
    const TIMEOUT: u16 = 4;
    const SERVER_FLAGS: u16 = 5;
    const CLIENT_FLAGS: u16 = 6;
    const DEAD_CONNECTION_TIMEOUT: u16 = 8;
    Message::generic(family, CONNECT)
        .u32(ATTRIBUTE_INDEX, INDEX)
        .u64(SIZE_BYTES, found.size_bytes / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES)
        .u64(BLOCK_SIZE, BLOCK_SIZE_BYTES)
        // No request timeout: a slow disk must not look like a dead server.
        .u64(TIMEOUT, 0)
        .u64(SERVER_FLAGS, found.flags.0.into())
        .u64(CLIENT_FLAGS, 0)
        .u64(DEAD_CONNECTION_TIMEOUT, DEAD_CONNECTION_TIMEOUT_S)
        // Whoever connects anew later must give the same name: no wrong disk under a running system.
        .text(BACKEND, export)
        .nested(SOCKETS, |sockets| sockets.nested(ITEM, |item| item.u32(FD, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::nbd::TransmissionFlags;
    use ::nbd::server::{self, ExportInfo, Exports};
    use std::net::TcpListener;

    struct OneDisk;

    impl Exports for OneDisk {
        fn find(&self, name: &str) -> Result<ExportInfo, String> {
            let flags = TransmissionFlags::HAS_FLAGS;
            let disk = ExportInfo { size_bytes: 512, flags, description: String::new() };
            (name == "lab-07").then_some(disk).ok_or_else(|| format!("no {name} here"))
        }

        fn names(&self) -> Vec<String> {
            Vec::new()
        }
    }

    fn listen() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        (listener, address)
    }

    /// A storage server with the disk `lab-07`.
    fn server() -> SocketAddrV4 {
        let (listener, address) = listen();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut handshake = server::Handshake::default();
            let mut bytes = [0; 512];
            loop {
                match handshake.step(&OneDisk) {
                    server::Step::Send(bytes) => stream.write_all(&bytes).unwrap(),
                    server::Step::Receive => match stream.read(&mut bytes).unwrap_or(0) {
                        0 => return,
                        length => handshake.on_bytes(&bytes[..length]),
                    },
                    _ => return,
                }
            }
        });
        address
    }

    /// Takes connections and says nothing.
    fn silent() -> (TcpListener, SocketAddrV4) {
        listen()
    }

    /// Nobody listens there.
    fn dead() -> SocketAddrV4 {
        listen().1
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_address_that_gives_the_disk_is_taken() {
        let (_silent, silent) = silent();
        let started = Instant::now();
        let servers = [silent, dead(), server()];
        let (found, (_, export)) = negotiate_any(&servers, "lab-07", None, TIMEOUT).unwrap();
        assert_eq!((found, export.size_bytes), (servers[2], 512));
        assert!(started.elapsed() < HANDSHAKE_TIMEOUT, "the silent one is not waited for");
        let server = server();
        let (found, _) = negotiate_any(&[server], "lab-07", None, TIMEOUT).unwrap();
        assert_eq!(found, server);
    }

    #[test]
    fn a_word_of_the_server_counts_more_than_silence() {
        let servers = [dead(), server(), dead()];
        let (from, error) = negotiate_any(&servers, "lab-08", None, TIMEOUT).unwrap_err();
        assert_eq!(from, servers[1]);
        assert!(why(from, "lab-08", &error).contains("does not give the disk lab-08"));
        let (_, error) = negotiate_any(&[dead(), dead()], "lab-07", None, TIMEOUT).unwrap_err();
        assert!(matches!(error, NegotiationError::Io(_)));
    }
}
