//! PCs that fetch a file by TFTP, many at once, and count what they notice of the server.
//!
//! A client as firmware is: it acknowledges each window (RFC 7440), says at once what it has when a block comes that it does
//! not expect, and says it again when nothing comes.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use tftp::Packet;

/// Nothing comes so often, one after the other: then a client gives up.
const TIMEOUTS_MAX: u32 = 10;

/// Longest packet; Ethernet carries no longer one in one piece.
const PACKET_BYTES: usize = 1500;

/// What each client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// The server's port of requests.
    pub server: SocketAddrV4,
    /// The file.
    pub path: &'a str,
    /// Bytes of a block.
    pub block_size: u16,
    /// Blocks of a window; without the option if it is 1.
    pub window: u16,
    /// A client that hears nothing for so long repeats what it said.
    pub patience: Duration,
    /// So many of a thousand packets get lost, each way.
    pub lost_per_thousand: u32,
}

/// What a client has got.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// Bytes of the file.
    pub n_bytes: u64,
    /// A number that differs if the bytes do.
    pub digest: u64,
    /// Blocks of a window as the server granted it.
    pub window: u16,
    /// DATA packets that came, without those that got lost.
    pub n_packets: u64,
    /// Blocks of these that it had already.
    pub n_copies: u64,
    /// How often nothing came.
    pub n_timeouts: u32,
    /// From its request to the last block.
    pub took: Duration,
}

/// All clients, each from one of these addresses of this host, ask at once. What became of each.
pub fn fetch_all(fetch: &Fetch<'_>, from: &[Ipv4Addr]) -> Vec<io::Result<Fetched>> {
    let begin = Barrier::new(from.len());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..)
            .zip(from)
            .map(|(seed, &address)| {
                let begin = &begin;
                scope.spawn(move || {
                    let client = Client::open(fetch, address, seed);
                    begin.wait();
                    client?.run()
                })
            })
            .collect();
        let joined = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    })
}

/// One client asks from this address of this host, and keeps what it gets.
///
/// # Errors
/// The file does not come; the error is the server's message if there is one.
pub fn fetch(fetch: &Fetch<'_>, from: Ipv4Addr) -> io::Result<(Fetched, Vec<u8>)> {
    let mut content = Vec::new();
    let mut client = Client::open(fetch, from, 1)?;
    client.keep = Some(&mut content);
    let fetched = client.run()?;
    Ok((fetched, content))
}

struct Client<'a> {
    fetch: &'a Fetch<'a>,
    socket: UdpSocket,
    /// Where the transfer comes from, once something has come.
    peer: Option<SocketAddrV4>,
    dice: u64,
    block_size: usize,
    got: Fetched,
    hasher: DefaultHasher,
    /// Where the content goes.
    keep: Option<&'a mut Vec<u8>>,
    /// Blocks that came in order.
    n_blocks: u64,
    /// Blocks since it acknowledged something.
    n_unacknowledged: u16,
}

impl<'a> Client<'a> {
    fn open(fetch: &'a Fetch<'a>, address: Ipv4Addr, seed: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(fetch.patience))?;
        let got = Fetched {
            n_bytes: 0,
            digest: 0,
            window: 1,
            n_packets: 0,
            n_copies: 0,
            n_timeouts: 0,
            took: Duration::ZERO,
        };
        let block_size = usize::from(tftp::BLOCK_SIZE_DEFAULT);
        let hasher = DefaultHasher::new();
        Ok(Self {
            fetch,
            socket,
            peer: None,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            block_size,
            got,
            hasher,
            keep: None,
            n_blocks: 0,
            n_unacknowledged: 0,
        })
    }

    fn run(mut self) -> io::Result<Fetched> {
        let begin = Instant::now();
        let mut buffer = [0; PACKET_BYTES];
        let mut n_silent = 0;
        self.ask()?;
        loop {
            let (length, sender) = match self.socket.recv_from(&mut buffer) {
                Ok((length, std::net::SocketAddr::V4(sender))) => (length, sender),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    n_silent += 1;
                    self.got.n_timeouts += 1;
                    if n_silent == TIMEOUTS_MAX {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    match self.peer {
                        Some(_) => self.acknowledge()?,
                        None => self.ask()?,
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.peer.is_some_and(|peer| peer != sender) || self.is_lost() {
                continue;
            }
            n_silent = 0;
            self.peer = Some(sender);
            match Packet::parse(&buffer[..length]) {
                Ok(Packet::OptionAck(options)) => {
                    self.settle(&options);
                    self.acknowledge()?;
                }
                Ok(Packet::Data { block, bytes }) if self.on_data(block, bytes)? => {
                    self.got.took = begin.elapsed();
                    self.got.digest = self.hasher.finish();
                    return Ok(self.got);
                }
                Ok(Packet::Error { message, .. }) => {
                    return Err(io::Error::other(message.escape_ascii().to_string()));
                }
                _ => {}
            }
        }
    }

    fn ask(&self) -> io::Result<()> {
        let (block_size, window) =
            (self.fetch.block_size.to_string(), self.fetch.window.to_string());
        let mut options = vec![("tsize", "0"), ("blksize", &*block_size)];
        if self.fetch.window > 1 {
            options.push(("windowsize", &window));
        }
        let request = tftp::read_request(self.fetch.path, "octet", &options);
        self.socket.send_to(&request, self.fetch.server).map(drop)
    }

    fn settle(&mut self, options: &[(&[u8], &[u8])]) {
        for (name, value) in options {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u16>().ok());
            match (*name, number) {
                (b"blksize", Some(size)) => self.block_size = size.into(),
                (b"windowsize", Some(window)) => self.got.window = window,
                _ => {}
            }
        }
    }

    /// Whether that was the last block.
    fn on_data(&mut self, block: u16, bytes: &[u8]) -> io::Result<bool> {
        self.got.n_packets += 1;
        let ahead = block.wrapping_sub(self.n_blocks as u16);
        if ahead != 1 {
            self.got.n_copies += u64::from(ahead == 0 || ahead > u16::MAX / 2);
            self.acknowledge()?;
            return Ok(false);
        }
        self.n_blocks += 1;
        self.n_unacknowledged += 1;
        self.got.n_bytes += bytes.len() as u64;
        self.hasher.write(bytes);
        if let Some(content) = &mut self.keep {
            content.extend_from_slice(bytes);
        }
        let is_last = bytes.len() < self.block_size;
        if is_last || self.n_unacknowledged >= self.got.window {
            self.acknowledge()?;
        }
        Ok(is_last)
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        self.n_unacknowledged = 0;
        let Some(peer) = self.peer.filter(|_| !self.is_lost()) else { return Ok(()) };
        self.socket.send_to(&tftp::ack(self.n_blocks as u16), peer).map(drop)
    }

    fn is_lost(&mut self) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1000 < self.fetch.lost_per_thousand.into()
    }
}
