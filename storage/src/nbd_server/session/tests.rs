//! A disk that is slow in places, with and without TLS.

use super::{Pools, run};
use crate::export::{Export, Label};
use crate::nbd_server::link::Link;
use crate::nbd_server::link::Opening;
use images::{Block, Memory, Zeroes};
use nbd::server::Agreed;
use nbd::{Command, CommandFlags, Request};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SLOW_FROM: u64 = 1 << 20;
const SLOW: Duration = Duration::from_millis(200);

/// Reads behind the first MiB take their time, and so do flushes.
struct Slow {
    memory: Memory,
    n_flushes: AtomicUsize,
}

impl Block for Slow {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset >= SLOW_FROM {
            std::thread::sleep(SLOW);
        }
        self.memory.read_at(buffer, offset)
    }
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        if offset >= SLOW_FROM {
            return Ok(false);
        }
        self.memory.read_at(buffer, offset).map(|()| true)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.memory.write_at(data, offset)
    }
    fn flush(&self) -> io::Result<()> {
        std::thread::sleep(SLOW);
        self.n_flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.memory.trim(offset, length)
    }
    fn write_zeroes(&self, offset: u64, length: u64, how: Zeroes) -> io::Result<()> {
        self.memory.write_zeroes(offset, length, how)
    }
    fn is_read_only(&self) -> bool {
        false
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server's link, as far as a TLS handshake on `theirs` brings it, and the client's stream.
fn links(ours: Socket, theirs: &Socket, has_tls: bool) -> (Link<'_>, Box<dyn Stream>) {
    if !has_tls {
        return (Link::Plain(theirs), Box::new(ours));
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut client = StreamOwned::new(connection, ours);
    let mut link = Link::open_tls(theirs, Arc::new(server)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| client.conn.complete_io(&mut client.sock).unwrap());
        while !matches!(link.go_on_opening().unwrap(), Opening::Done) {}
    });
    (link, Box::new(client))
}

/// Sends requests at once, and returns the cookies of the replies in their order, with their data.
fn converse(requests: &[Request], has_tls: bool) -> (Vec<(u64, Vec<u8>)>, Duration, usize) {
    let bytes: Vec<u8> = (0..2 << 20).map(|at: u32| (at / 4096) as u8).collect();
    let slow = Arc::new(Slow { memory: Memory::new(bytes), n_flushes: AtomicUsize::new(0) });
    let disk: Arc<dyn Block> = Arc::<Slow>::clone(&slow);
    let label = Label { name: "slow".into(), description: String::new() };
    let export = Arc::new(Export::new(label, disk));
    let connection = export.connections.join_work().unwrap();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    let (link, mut ours) = links(ours, &theirs, has_tls);
    let pools = Pools::default();
    std::thread::scope(|scope| {
        let server =
            scope.spawn(|| run(&export, &connection, link, &pools, Agreed::default(), &[]));
        let (replies, took) = ask(&mut *ours, requests);
        drop(ours);
        server.join().unwrap().unwrap();
        (replies, took, slow.n_flushes.load(Ordering::Relaxed))
    })
}

fn ask(ours: &mut dyn Stream, requests: &[Request]) -> (Vec<(u64, Vec<u8>)>, Duration) {
    let began = Instant::now();
    let wire: Vec<u8> = requests
        .iter()
        .flat_map(|request| {
            let payload = if request.command == Command::Write { request.length } else { 0 };
            [request.emit().to_vec(), vec![9; payload as usize]].concat()
        })
        .collect();
    // In pieces that are no records of anything.
    for piece in wire.chunks(5000) {
        ours.write_all(piece).unwrap();
    }
    let mut replies = Vec::new();
    for _ in requests {
        let mut header = [0; 16];
        ours.read_exact(&mut header).unwrap();
        assert_eq!(header[4..8], [0; 4]);
        let cookie = u64::from_be_bytes(header[8..].try_into().unwrap());
        let request = requests.iter().find(|request| request.cookie == cookie).unwrap();
        let length = if request.command == Command::Read { request.length as usize } else { 0 };
        let mut data = vec![0; length];
        ours.read_exact(&mut data).unwrap();
        replies.push((cookie, data));
    }
    (replies, began.elapsed())
}

fn request(cookie: u64, command: Command, offset: u64) -> Request {
    Request { flags: CommandFlags::default(), command, cookie, offset, length: 4096 }
}

#[test]
fn what_is_in_memory_does_not_wait_for_what_is_not() {
    let cold = request(1, Command::Read, SLOW_FROM + 4096);
    let hot = request(2, Command::Read, 8192);
    for has_tls in [false, true] {
        let (replies, ..) = converse(&[cold, hot], has_tls);
        assert_eq!(replies[0], (2, vec![2; 4096]));
        assert_eq!(replies[1], (1, vec![1; 4096]));
    }
}

#[test]
fn reads_of_one_connection_wait_for_the_disk_together() {
    let reads: Vec<Request> =
        (0..16).map(|at| request(at, Command::Read, SLOW_FROM + at * 4096)).collect();
    for has_tls in [false, true] {
        let (replies, took, _) = converse(&reads, has_tls);
        assert!(took < 8 * SLOW, "one after the other: {took:?}");
        assert!(replies.iter().all(|(cookie, data)| *data == vec![*cookie as u8; 4096]));
    }
}

#[test]
fn nothing_waits_for_a_flush() {
    let write = Request { flags: CommandFlags::FUA, ..request(1, Command::Write, 0) };
    let requests = [write, request(2, Command::Flush, 0), request(3, Command::Read, 0)];
    for has_tls in [false, true] {
        let (replies, _, n_flushes) = converse(&requests, has_tls);
        assert_eq!(replies[0], (3, vec![9; 4096]), "the read sees the write, and is first");
        assert_eq!(n_flushes, 2);
    }
}

#[test]
fn who_goes_while_the_disk_is_busy_is_waited_for() {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    let memory = Memory::new(vec![7; 2 << 20]);
    let slow = Slow { memory, n_flushes: AtomicUsize::new(0) };
    let label = Label { name: "slow".into(), description: String::new() };
    let export = Arc::new(Export::new(label, Arc::new(slow)));
    let connection = export.connections.join_work().unwrap();
    (&ours).write_all(&request(1, Command::Read, SLOW_FROM).emit()).unwrap();
    drop(ours);
    let began = Instant::now();
    // The reply can't be sent any more; the disk is let go of all the same.
    let link = Link::Plain(&theirs);
    let _ = run(&export, &connection, link, &Pools::default(), Agreed::default(), &[]);
    assert!(began.elapsed() >= SLOW);
    drop(connection);
    assert!(export.connections.close());
}

/// The second half of a record comes when a request that waits for the disk is done already.
#[test]
fn half_a_tls_record_holds_up_no_reply() {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    let raw = ours.try_clone().unwrap();
    let slow = Slow { memory: Memory::new(vec![7; 2 << 20]), n_flushes: AtomicUsize::new(0) };
    let label = Label { name: "slow".into(), description: String::new() };
    let export = Arc::new(Export::new(label, Arc::new(slow)));
    let connection = export.connections.join_work().unwrap();
    let (link, mut ours) = links(ours, &theirs, true);
    let pools = Pools::default();
    std::thread::scope(|scope| {
        let server =
            scope.spawn(|| run(&export, &connection, link, &pools, Agreed::default(), &[]));
        ours.write_all(&request(1, Command::Read, SLOW_FROM).emit()).unwrap();
        (&raw).write_all(&[23, 3, 3, 0, 100, 1, 2, 3]).unwrap();
        raw.set_read_timeout(Some(SLOW * 20)).unwrap();
        let mut reply = vec![0; 16 + 4096];
        ours.read_exact(&mut reply).unwrap();
        assert_eq!(reply[16..], [7; 4096]);
        // What follows is no TLS: the connection is over.
        (&raw).write_all(&[0; 200]).unwrap();
        assert_eq!(server.join().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}
