//! A machine's disk over NBD, opened as its init opens it: with the proof of its boot.

use initcfg::{Claim, DiskName, Nonce, Token};
use nbd::client::{Handshake, HandshakeError, Transfer, Turn};
use nbd::{Command, CommandFlags, REPLY_BYTES, Request};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of one request.
const REQUEST_MAX: usize = 1 << 20;

/// A server that waits for a former boot's silence takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server that is there takes a connection at once; a firewall may say nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// As long as a machine, one that is refused tries again.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// Machines count their connections from here, too, and take the next number when they are refused.
const GENERATION: u32 = 1;

/// Why a machine's disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineDiskError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server says no.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The server asks for no proof.
    #[error("the server asks for no proof of whose disk {0} is")]
    NoChallenge(String),
    /// A request failed with this NBD error.
    #[error("request failed with NBD error {0}")]
    Request(u32),
}

/// One connection to a machine's disk, which says goodbye when it is dropped.
#[derive(Debug)]
pub struct MachineDisk {
    stream: TcpStream,
    size_bytes: u64,
    name: String,
    says_goodbye: bool,
}

impl MachineDisk {
    /// Opens the disk of `machine` in this boot, as its first connection. One that is refused tries again for a
    /// minute, as machines do.
    ///
    /// # Errors
    /// The server can't be reached, or does not give the disk.
    pub fn open(
        server: SocketAddr,
        machine: &str,
        boot: u64,
        token: Token,
    ) -> Result<Self, MachineDiskError> {
        let started = Instant::now();
        loop {
            match Self::open_as(server, machine, boot, token, GENERATION) {
                Err(MachineDiskError::Handshake(HandshakeError::Refused { .. }))
                    if started.elapsed() < REFUSED_MAX =>
                {
                    std::thread::sleep(Duration::from_millis(500));
                }
                done => return done,
            }
        }
    }

    /// Opens the disk as the connection of this number, which ends those with smaller ones. Does not try again.
    ///
    /// # Errors
    /// The server can't be reached, or does not give the disk.
    pub fn open_as(
        server: SocketAddr,
        machine: &str,
        boot: u64,
        token: Token,
        generation: u32,
    ) -> Result<Self, MachineDiskError> {
        let stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        Self::open_over(stream, machine, boot, token, generation)
    }

    /// [`open_as`](Self::open_as) over a connection that is there.
    ///
    /// # Errors
    /// It breaks, or the server does not give the disk.
    pub fn open_over(
        mut stream: TcpStream,
        machine: &str,
        boot: u64,
        token: Token,
        generation: u32,
    ) -> Result<Self, MachineDiskError> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut opened = String::new();
        let mut handshake = Handshake::new(machine);
        loop {
            match turn(&mut handshake, &mut stream)? {
                Turn::Answered(said) => {
                    let nonce = said.as_deref().and_then(Nonce::of_challenge);
                    let nonce =
                        nonce.ok_or_else(|| MachineDiskError::NoChallenge(machine.to_owned()))?;
                    let proof = token.disk_key().prove(&nonce, machine, boot, generation);
                    let claim = Some(Claim { boot, proof });
                    let name = DiskName { machine, generation, claim };
                    opened = name.to_string();
                    handshake.open(&opened);
                }
                Turn::Done(export) => {
                    let size_bytes = export.size_bytes;
                    return Ok(Self { stream, size_bytes, name: opened, says_goodbye: true });
                }
                Turn::StartTls => return Err(HandshakeError::NotNbd.into()),
            }
        }
    }

    /// Copies the whole disk to `target`.
    ///
    /// # Errors
    /// The connection breaks, the disk can't be read, or `target` can't be written.
    pub fn copy_to(&mut self, target: &mut impl Write) -> Result<(), MachineDiskError> {
        let mut offset = 0;
        while offset < self.size_bytes {
            let length = (self.size_bytes - offset).min(REQUEST_MAX as u64);
            target.write_all(&self.read(offset, length as u32)?)?;
            offset += length;
        }
        Ok(())
    }

    /// The first bytes of the disk, 1 MiB at most.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be read.
    pub fn read_start(&mut self, length: usize) -> Result<Vec<u8>, MachineDiskError> {
        let length = length.min(REQUEST_MAX);
        self.send(Command::Read, 0, length as u32)?;
        self.receive_reply()?;
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes these bytes to the beginning of the disk, so that they last.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be written.
    pub fn write_start(&mut self, bytes: &[u8]) -> Result<(), MachineDiskError> {
        self.write(0, bytes)
    }

    /// Writes these bytes from this byte of the disk on, so that they last.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MachineDiskError> {
        self.write_only(offset, bytes)?;
        self.flush()
    }

    /// Writes these bytes from this byte of the disk on. They last when [`flush`](Self::flush) has been called.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be written.
    pub fn write_only(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MachineDiskError> {
        for (index, part) in bytes.chunks(REQUEST_MAX).enumerate() {
            let offset = offset + (index * REQUEST_MAX) as u64;
            self.send(Command::Write, offset, part.len() as u32)?;
            self.stream.write_all(part)?;
            self.receive_reply()?;
        }
        Ok(())
    }

    /// Makes all last that was written over this connection.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be written.
    pub fn flush(&mut self) -> Result<(), MachineDiskError> {
        self.send(Command::Flush, 0, 0)?;
        self.receive_reply()
    }

    /// Sends a write of at most 1 MiB, and does not take the reply: call [`abandon`](Self::abandon) next.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn write_and_leave(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= REQUEST_MAX, "{} bytes are more than one request", bytes.len());
        self.send(Command::Write, offset, bytes.len() as u32)?;
        self.stream.write_all(bytes)
    }

    /// Reads so many bytes, 1 MiB at most, from this byte of the disk on.
    ///
    /// # Errors
    /// The connection breaks, or the disk can't be read.
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, MachineDiskError> {
        assert!(length as usize <= REQUEST_MAX, "{length} bytes are more than one request");
        self.send(Command::Read, offset, length)?;
        self.receive_reply()?;
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Asks for so many parts of this length from the beginning of the disk on, and takes none of the replies.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn ask_and_leave(&mut self, count: u32, length: u32) -> io::Result<()> {
        (0..count).try_for_each(|index| {
            self.send(Command::Read, u64::from(index) * u64::from(length), length)
        })
    }

    /// Asks for so many bytes, 1 MiB at most, and takes the answer from [`answered`](Self::answered) later, where the cookie
    /// tells which it is.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn ask_read(&mut self, cookie: u64, offset: u64, length: u32) -> io::Result<()> {
        assert!(length as usize <= REQUEST_MAX, "{length} bytes are more than one request");
        self.ask(cookie, Command::Read, offset, length)
    }

    /// Asks likewise to write these bytes.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn ask_write(&mut self, cookie: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask(cookie, Command::Write, offset, bytes.len() as u32)?;
        self.stream.write_all(bytes)
    }

    /// Asks likewise that what was written lasts.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn ask_flush(&mut self, cookie: u64) -> io::Result<()> {
        self.ask(cookie, Command::Flush, 0, 0)
    }

    /// Waits for the next answer; `buffer_of` tells where the bytes go that were asked for with its cookie.
    ///
    /// # Errors
    /// The connection breaks, or the server says no.
    pub fn answered<'a>(
        &mut self,
        buffer_of: impl FnOnce(u64) -> &'a mut [u8],
    ) -> Result<u64, MachineDiskError> {
        let cookie = self.receive_reply_of()?;
        self.stream.read_exact(buffer_of(cookie))?;
        Ok(cookie)
    }

    /// Ends the connection without a word, as a PC that is switched off.
    pub fn abandon(mut self) {
        self.says_goodbye = false;
    }

    /// The name by which the disk was opened, with the proof: what somebody hears who listens.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, command: Command, offset: u64, length: u32) -> io::Result<()> {
        self.ask(1, command, offset, length)
    }

    fn ask(&mut self, cookie: u64, command: Command, offset: u64, length: u32) -> io::Result<()> {
        let flags = CommandFlags::default();
        let request = Request { flags, command, cookie, offset, length };
        self.stream.write_all(&request.emit())
    }

    fn receive_reply(&mut self) -> Result<(), MachineDiskError> {
        self.receive_reply_of().map(drop)
    }

    /// The cookie of the request that was done.
    fn receive_reply_of(&mut self) -> Result<u64, MachineDiskError> {
        let mut reply = [0; REPLY_BYTES];
        self.stream.read_exact(&mut reply)?;
        let [_, _, _, _, a, b, c, d, cookie @ ..] = reply;
        match u32::from_be_bytes([a, b, c, d]) {
            0 => Ok(u64::from_be_bytes(cookie)),
            error => Err(MachineDiskError::Request(error)),
        }
    }
}

/// Whether the server opens a disk by `name`, said to its challenge as it stands; `asked` is what it is asked for first.
///
/// # Errors
/// The connection breaks.
pub fn opens(server: SocketAddr, asked: &str, name: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut handshake = Handshake::new(asked);
    loop {
        match turn(&mut handshake, &mut stream) {
            Ok(Turn::Answered(_)) => handshake.open(name),
            Ok(Turn::Done(_)) => return Ok(true),
            Err(MachineDiskError::Io(error)) => return Err(error),
            Ok(Turn::StartTls) | Err(_) => return Ok(false),
        }
    }
}

/// Goes on with a handshake until there is something to say.
fn turn(handshake: &mut Handshake, stream: &mut TcpStream) -> Result<Turn, MachineDiskError> {
    handshake.run(|transfer| match transfer {
        Transfer::Send(bytes) => Ok(stream.write_all(bytes)?),
        Transfer::Receive(bytes) => Ok(stream.read_exact(bytes)?),
    })
}

impl Drop for MachineDisk {
    fn drop(&mut self) {
        // The server then waits for nobody; it ends the connection when all is done.
        if self.says_goodbye && self.send(Command::Disconnect, 0, 0).is_ok() {
            let _ = self.stream.read(&mut [0]);
        }
    }
}
