//! The way to a client: its socket, or a TLS session on it.

use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, Socket};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Received at once, so that long writes take few calls; rustls takes 4 KiB at a time.
const RECEIVE_BYTES: usize = 64 << 10;

/// Encrypted at once, and then sent.
const ENCRYPT_BYTES: usize = 64 << 10;

/// The way to one client. Only one thread uses it.
///
/// It is plain at first. After [`open_tls`](Self::open_tls) call [`go_on_opening`](Self::go_on_opening) until that is
/// done; then [`read`](Self::read) and [`write_all`](Self::write_all), and at a proper end [`finish`](Self::finish).
pub(super) enum Link<'a> {
    Plain(&'a Socket),
    Tls(&'a Socket, Box<Tls>),
}

/// How far a TLS handshake is.
pub(super) enum Opening {
    Goes,
    Done,
    /// The client has closed the connection.
    BrokenOff,
}

impl<'a> Link<'a> {
    /// Begins TLS with what the client sends next. [`Self::go_on_opening`] says when it is done.
    pub(super) fn open_tls(
        socket: &'a Socket,
        config: Arc<ServerConfig>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::Tls(socket, Box::new(Tls::new(config)?)))
    }

    pub(super) const fn socket(&self) -> &'a Socket {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket,
        }
    }

    /// The version of TLS in use.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        let Self::Tls(_, tls) = self else { return None };
        tls.connection.protocol_version().and_then(|version| version.as_str())
    }

    /// Whether files can be sent by the kernel, and are faster so: over Unix sockets.
    pub(super) fn takes_files(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.domain().is_ok_and(|domain| domain == Domain::UNIX),
            Self::Tls(..) => false,
        }
    }

    /// Whether something is received that [`read`](Self::read) has not given out: then waiting for the
    /// socket would be wrong.
    pub(super) const fn has_received(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_, tls) => tls.has_received(),
        }
    }

    /// Reads what there is; 0 at the end. `WouldBlock` means that what came is not yet of use: wait for
    /// more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => {
                let mut socket: &Socket = socket;
                socket.read(buffer)
            }
            Self::Tls(socket, tls) => tls.read(socket, buffer),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                let mut socket: &Socket = socket;
                socket.write_all(bytes)
            }
            Self::Tls(socket, tls) => tls.write_all(socket, bytes),
        }
    }

    /// Goes one step on in the TLS handshake.
    pub(super) fn go_on_opening(&mut self) -> io::Result<Opening> {
        let Self::Tls(socket, tls) = self else { return Ok(Opening::Done) };
        let is_open = match tls.receive(socket) {
            Ok(is_open) => is_open,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => return Err(error),
        };
        Ok(match tls.connection.is_handshaking() {
            _ if !is_open => Opening::BrokenOff,
            true => Opening::Goes,
            false => Opening::Done,
        })
    }

    /// Says that nothing follows, to a client that still listens.
    pub(super) fn finish(&mut self) {
        if let Self::Tls(socket, tls) = self {
            tls.connection.send_close_notify();
            let _ = tls.send(socket);
        }
    }
}

pub(super) struct Tls {
    connection: ServerConnection,
    /// What is received and not yet decrypted is in `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Decrypted and not yet given out.
    n_decrypted: usize,
}

impl Tls {
    fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        // We bound it, by what we hand over.
        connection.set_buffer_limit(None);
        let buffer = vec![0; RECEIVE_BYTES];
        Ok(Self { connection, buffer, start: 0, end: 0, n_decrypted: 0 })
    }

    const fn has_received(&self) -> bool {
        self.n_decrypted > 0 || self.start < self.end
    }

    fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.has_received() && !self.receive(socket)? {
            return Ok(0);
        }
        while self.n_decrypted == 0 && self.start < self.end {
            self.decrypt(socket)?;
        }
        match self.connection.reader().read(buffer) {
            Ok(count) => {
                self.n_decrypted -= count;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Receives what there is; `false` at the end.
    fn receive(&mut self, mut socket: &Socket) -> io::Result<bool> {
        self.start = 0;
        self.end = 0;
        self.end = socket.read(&mut self.buffer)?;
        if self.end == 0 {
            return Ok(false);
        }
        while self.n_decrypted == 0 && self.start < self.end {
            self.decrypt(socket)?;
        }
        Ok(true)
    }

    /// Decrypts a part of what is received. An error is told to the client, too.
    fn decrypt(&mut self, socket: &Socket) -> io::Result<()> {
        let mut received = &self.buffer[self.start..self.end];
        match self.connection.read_tls(&mut received)? {
            // The client has said goodbye: what follows counts for nothing.
            0 => self.start = self.end,
            count => self.start += count,
        }
        let decrypted = self.connection.process_new_packets();
        // Answers of the handshake, of a change of keys, or an alert.
        let sent = self.send(socket);
        match decrypted {
            Ok(state) => self.n_decrypted = state.plaintext_bytes_to_read(),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        sent
    }

    fn write_all(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(ENCRYPT_BYTES) {
            self.connection.writer().write_all(piece)?;
            self.send(socket)?;
        }
        Ok(())
    }

    fn send(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
