//! Many TCP connections of one host, from many addresses, that ask for something and then do nothing.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a connection may take to be opened.
const PATIENCE: Duration = Duration::from_secs(2);

/// Room for what comes in and is not read; the kernel takes its own minimum.
const RECEIVE_BUFFER_BYTES: usize = 2048;

/// How long a [`Drip`] waits between two bytes.
const DRIP: Duration = Duration::from_millis(500);

/// Connections, held open until this is dropped.
#[derive(Debug, Default)]
pub struct Crowd {
    sockets: Vec<Socket>,
}

impl Crowd {
    /// Opens `count` connections from these addresses in turn, and sends `text` on each. Fewer, if the server takes no
    /// more. The addresses must be on this host.
    ///
    /// # Errors
    /// We may not open so many.
    pub fn open(
        server: SocketAddrV4,
        from: &[Ipv4Addr],
        count: usize,
        text: &str,
    ) -> io::Result<Self> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        let mut sockets = Vec::with_capacity(count);
        for &address in from.iter().cycle().take(count) {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
            socket.bind(&SocketAddr::from((address, 0)).into())?;
            if socket.connect_timeout(&SocketAddr::V4(server).into(), PATIENCE).is_ok()
                && (&socket).write_all(text.as_bytes()).is_ok()
            {
                sockets.push(socket);
            }
        }
        Ok(Self { sockets })
    }

    /// How many of them the server has not ended.
    ///
    /// # Errors
    /// The system fails.
    pub fn alive(&self) -> io::Result<usize> {
        let mut alive = 0;
        for socket in &self.sockets {
            socket.set_nonblocking(true)?;
            // An error that the server's RST has left is told once, by this.
            let is_ended = socket.take_error()?.is_some() || socket.peer_addr().is_err();
            alive += usize::from(!is_ended && !is_closed(socket));
        }
        Ok(alive)
    }
}

/// A connection that does very little all the time, and never ends by itself.
#[derive(Debug)]
pub struct Drip {
    socket: Socket,
}

impl Drip {
    /// Opens one from this address of this host.
    ///
    /// # Errors
    /// The server takes it not.
    pub fn open(server: SocketAddrV4, from: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&SocketAddr::V4(server).into(), PATIENCE)?;
        socket.set_read_timeout(Some(DRIP))?;
        Ok(Self { socket })
    }

    /// Sends a byte of a request now and then, which has no end. Returns after how long the server ended it; `None`: not within
    /// `most`.
    pub fn asks(&self, most: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let mut request = b"GET / HTTP/1.1\r\n".iter().chain(b"X: x\r\n".iter().cycle());
        while begin.elapsed() < most {
            let byte = request.next().copied().unwrap_or_default();
            let is_sent = (&self.socket).write_all(&[byte]).is_ok();
            // An end may come with an answer that says why.
            if !is_sent || (&self.socket).read(&mut [0; 4096]).is_ok() {
                return Some(begin.elapsed());
            }
        }
        None
    }

    /// Asks for a file, and takes a little of it now and then. Returns after how long the server ended it; `None`: not within
    /// `most`.
    pub fn reads(&self, path: &str, most: Duration) -> Option<Duration> {
        let begin = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        if (&self.socket).write_all(request.as_bytes()).is_err() {
            return Some(begin.elapsed());
        }
        while begin.elapsed() < most {
            match (&self.socket).read(&mut [0; 128]) {
                Ok(0) => return Some(begin.elapsed()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Some(begin.elapsed());
                }
                _ => std::thread::sleep(DRIP),
            }
        }
        None
    }
}

/// Whether the end of what is sent has come. Does not read it.
fn is_closed(socket: &Socket) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    matches!(socket.peek(&mut byte), Ok(0))
}
