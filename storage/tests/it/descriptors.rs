//! Many disks, and few descriptors.

use crate::server::{ask, attach_to, config, folder, free_address, prepare, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the child serves, and how many descriptors it may have; set only there.
const FOLDER: &str = "BOOTLACE_TEST_FEW_FOLDER";
const ADDRESS: &str = "BOOTLACE_TEST_FEW_ADDRESS";
const LIMIT: &str = "BOOTLACE_TEST_FEW_LIMIT";

/// What most systems let a process have, and some not more.
const USUAL_LIMIT: u64 = 1024;

/// Not a test of its own: the server of the next ones.
#[test]
fn child_that_serves_with_few_descriptors() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let address = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let limit: u64 = std::env::var(LIMIT).unwrap().parse().unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
    serve(config(Path::new(&folder), address, Vec::new()), || (), std::future::pending());
}

struct Few {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Few {
    fn start(limit: u64) -> Self {
        Self::start_in(folder(), limit)
    }

    fn start_in(folder: TempDir, limit: u64) -> Self {
        let address = free_address();
        let child = Self::command(folder.path(), address, limit).spawn().unwrap();
        let server = Self { child, folder, address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn command(folder: &Path, address: SocketAddr, limit: u64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "descriptors::child_that_serves_with_few_descriptors"]);
        command.env(FOLDER, folder).env(ADDRESS, address.to_string());
        command.env(LIMIT, limit.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn restart(mut self, limit: u64) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, limit)
    }

    fn prepare(&self, index: usize, boot: u64, write_mode: &str) {
        let machine = name(index);
        let spec = serde_json::json!({
            "machine": machine, "image": "debian-12", "version": 1, "write_mode": write_mode,
            "boot": boot, "root": "nbd", "address": "127.0.0.1",
            "mac": format!("52:54:00:00:{:02x}:{:02x}", index / 256, index % 256),
            "shelf_slot": format!("{}.{}", 1 + index / 200, index % 200),
        });
        prepare(self.folder.path(), &machine, &spec.to_string());
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// As the storage API tells it.
    fn n_refused(&self) -> u64 {
        let reply = ask(self.folder.path(), "GET", "/v1/descriptors", "");
        let body = reply.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["refused_connections"].as_u64().unwrap()
    }

    fn attach(&self, index: usize) -> TcpStream {
        attach_to(self.address, &name(index))
    }

    fn n_open(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// So many are open, once those who have gone are gone.
    fn has_open(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.n_open() != count {
            assert!(Instant::now() < deadline, "{} are open, not {count}", self.n_open());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many are open while nobody is there.
    fn n_open_idle(&self) -> usize {
        // Whoever looked whether the server is there must have left.
        std::thread::sleep(Duration::from_secs(1));
        self.n_open()
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name(index: usize) -> String {
    format!("lab-{index}")
}

/// Makes room for this process's own ends of the connections.
fn have_many() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// A write of 4 KiB of the byte, and its acknowledgement.
fn write(stream: &mut TcpStream, byte: u8) {
    use std::io::Write as _;
    let mut request = Vec::new();
    request.extend_from_slice(&0x2560_9513_u32.to_be_bytes());
    request.extend_from_slice(&[0, 0, 0, 1]);
    request.extend_from_slice(&7u64.to_be_bytes());
    request.extend_from_slice(&0u64.to_be_bytes());
    request.extend_from_slice(&4096u32.to_be_bytes());
    request.extend_from_slice(&[byte; 4096]);
    stream.write_all(&request).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..8], [0; 4], "the write failed");
}

#[test]
fn a_disk_that_nobody_uses_takes_no_descriptor_and_a_machine_two() {
    let server = Few::start(USUAL_LIMIT);
    let before = server.n_open_idle();
    server.prepare(0, 1, "discard");
    // The image's disk, which all its machines share.
    server.has_open(before + 1);
    for (index, mode) in [(1, "discard"), (2, "persistent"), (3, "ram"), (4, "discard")] {
        server.prepare(index, 1, mode);
    }
    server.has_open(before + 1);
    let mut machine = server.attach(1);
    write(&mut machine, 1);
    // The connection, the layer's data, and the map to which something was just written.
    server.has_open(before + 1 + 3);
    let _other = server.attach(2);
    server.has_open(before + 1 + 3 + 2);
}

#[test]
fn with_the_usual_limit_345_machines_start_and_attach() {
    have_many();
    let server = Few::start(USUAL_LIMIT);
    for index in 0..345 {
        server.prepare(index, 1, if index % 3 == 0 { "persistent" } else { "discard" });
    }
    let server = server.restart(USUAL_LIMIT);
    let mut machines: Vec<TcpStream> = (0..345).map(|index| server.attach(index)).collect();
    for (index, machine) in machines.iter_mut().enumerate() {
        write(machine, index as u8);
    }
    let n_open = server.n_open();
    // 345 connections, 345 layers, 32 maps.
    assert!(n_open < 760, "{n_open} are open");
    assert_eq!(server.n_refused(), 0);
}

#[test]
fn a_client_beyond_the_descriptors_is_refused_at_once_and_counted() {
    // 90 are for connections, as a fifteenth and 192 are set aside.
    let server = Few::start(300);
    server.prepare(0, 1, "discard");
    let clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    let is_refused = |client: &TcpStream| {
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // A server that has let somebody in says its name.
        !matches!((&*client).read(&mut [0; 8]), Ok(8))
    };
    let n_refused = clients.iter().filter(|client| is_refused(client)).count();
    assert!((10..=60).contains(&n_refused), "{n_refused} of 100");
    assert_eq!(server.n_refused(), n_refused as u64);
    drop(clients);
    attach_soon(&server);
}

#[test]
fn without_any_descriptor_clients_are_sent_away_and_the_server_does_not_spin() {
    let server = Few::start(300);
    server.prepare(0, 1, "discard");
    let mut machine = server.attach(0);
    // The storage API is open to root alone, and takes what is there.
    let socket = server.folder.path().join("storage.sock");
    let requests: Vec<UnixStream> =
        (0..300).map_while(|_| UnixStream::connect(&socket).ok()).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.n_open() < 300 {
        assert!(Instant::now() < deadline, "only {} are open", server.n_open());
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..5 {
        let client = server.connect();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let end = (&client).read(&mut [0; 8]);
        let is_closed = match &end {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(is_closed, "{end:?}");
    }
    let before = server.cpu_ticks();
    std::thread::sleep(Duration::from_secs(2));
    let spent = server.cpu_ticks() - before;
    assert!(spent < 20, "{spent} hundredths of a second of processor time in two seconds");
    // Who is in notices nothing, though the map of what he has written must be opened for him.
    let writing = std::thread::spawn(move || write(&mut machine, 7));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!writing.is_finished(), "a write was done, or failed, without a descriptor for it");
    drop(requests);
    writing.join().expect("the write is done when there are descriptors again");
    assert!(server.n_refused() >= 5);
    attach_soon(&server);
}

/// A machine gets its disk, when those who are gone have left.
fn attach_soon(server: &Few) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_open = || {
        let client = server.connect();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        matches!((&client).read(&mut [0; 8]), Ok(8))
    };
    while !is_open() {
        assert!(Instant::now() < deadline, "nobody is let in again");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.attach(0);
}

#[test]
fn a_server_that_could_let_nobody_in_does_not_start() {
    let folder = folder();
    let status = Few::command(folder.path(), free_address(), 200).status().unwrap();
    assert!(!status.success());
}
