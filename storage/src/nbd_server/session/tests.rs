//! A disk that is slow in places.

use super::{Pools, run};
use crate::export::{Disk, Export, Label};
use images::{Block, Memory, Zeroes};
use nbd::server::Agreed;
use nbd::{Command, CommandFlags, Request};
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

/// Sends requests at once, and returns the cookies of the replies in their order, with their data.
fn converse(requests: &[Request]) -> (Vec<(u64, Vec<u8>)>, Duration, usize) {
    let bytes: Vec<u8> = (0..2 << 20).map(|at: u32| (at / 4096) as u8).collect();
    let slow = Arc::new(Slow { memory: Memory::new(bytes), n_flushes: AtomicUsize::new(0) });
    let disk: Arc<dyn Block> = Arc::<Slow>::clone(&slow);
    let label = Label { name: "slow".into(), description: String::new() };
    let export = Export::new(label, Disk::Plain(disk));
    let joined = export.join(None, 0).unwrap();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    let server = std::thread::spawn(move || {
        run(&joined, &theirs, &Pools::default(), Agreed::default(), &[])
    });
    let began = Instant::now();
    let wire: Vec<u8> = requests
        .iter()
        .flat_map(|request| {
            let payload = if request.command == Command::Write { request.length } else { 0 };
            [request.emit().to_vec(), vec![9; payload as usize]].concat()
        })
        .collect();
    (&ours).write_all(&wire).unwrap();
    let mut replies = Vec::new();
    for _ in requests {
        let mut header = [0; 16];
        (&ours).read_exact(&mut header).unwrap();
        assert_eq!(header[4..8], [0; 4]);
        let cookie = u64::from_be_bytes(header[8..].try_into().unwrap());
        let request = requests.iter().find(|request| request.cookie == cookie).unwrap();
        let length = if request.command == Command::Read { request.length as usize } else { 0 };
        let mut data = vec![0; length];
        (&ours).read_exact(&mut data).unwrap();
        replies.push((cookie, data));
    }
    let took = began.elapsed();
    drop(ours);
    server.join().unwrap().unwrap();
    (replies, took, slow.n_flushes.load(Ordering::Relaxed))
}

fn request(cookie: u64, command: Command, offset: u64) -> Request {
    Request { flags: CommandFlags::default(), command, cookie, offset, length: 4096 }
}

#[test]
fn what_is_in_memory_does_not_wait_for_what_is_not() {
    let cold = request(1, Command::Read, SLOW_FROM + 4096);
    let hot = request(2, Command::Read, 8192);
    let (replies, ..) = converse(&[cold, hot]);
    assert_eq!(replies[0], (2, vec![2; 4096]));
    assert_eq!(replies[1], (1, vec![1; 4096]));
}

#[test]
fn reads_of_one_connection_wait_for_the_disk_together() {
    let reads: Vec<Request> =
        (0..16).map(|at| request(at, Command::Read, SLOW_FROM + at * 4096)).collect();
    let (replies, took, _) = converse(&reads);
    assert!(took < 4 * SLOW, "{took:?}");
    assert!(replies.iter().all(|(cookie, data)| *data == vec![*cookie as u8; 4096]));
}

#[test]
fn nothing_waits_for_a_flush() {
    let write = Request { flags: CommandFlags::FUA, ..request(1, Command::Write, 0) };
    let requests = [write, request(2, Command::Flush, 0), request(3, Command::Read, 0)];
    let (replies, _, n_flushes) = converse(&requests);
    assert_eq!(replies[0], (3, vec![9; 4096]), "the read sees the write, and is first");
    assert_eq!(n_flushes, 2);
}

#[test]
fn who_goes_while_the_disk_is_busy_is_waited_for() {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    let memory = Memory::new(vec![7; 2 << 20]);
    let slow = Slow { memory, n_flushes: AtomicUsize::new(0) };
    let label = Label { name: "slow".into(), description: String::new() };
    let export = Export::new(label, Disk::Plain(Arc::new(slow)));
    let joined = export.join(None, 0).unwrap();
    (&ours).write_all(&request(1, Command::Read, SLOW_FROM).emit()).unwrap();
    drop(ours);
    let began = Instant::now();
    // The reply can't be sent any more; the disk is let go of all the same.
    let _ = run(&joined, &theirs, &Pools::default(), Agreed::default(), &[]);
    assert!(began.elapsed() >= SLOW);
    drop(joined);
    assert!(export.close());
}
