//! Snapshots over the storage API, while a client reads and writes over NBD.

use crate::server::Server;
use crate::succeed;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const N_BLOCKS: u64 = (8 << 20) / BLOCK as u64;

fn request(stream: &mut TcpStream, kind: u8, block: u64, length: usize, data: &[u8]) {
    let head = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, kind], &[0; 8]].concat();
    let place =
        [&(block * BLOCK as u64).to_be_bytes()[..], &(length as u32).to_be_bytes()].concat();
    stream.write_all(&[&head[..], &place, data].concat()).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..8], [0; 4], "the machine sees an error");
}

fn write(stream: &mut TcpStream, block: u64, data: &[u8]) {
    request(stream, 1, block, data.len(), data);
}

fn flush(stream: &mut TcpStream) {
    request(stream, 3, 0, 0, &[]);
}

fn read(stream: &mut TcpStream, block: u64) -> Vec<u8> {
    request(stream, 0, block, BLOCK, &[]);
    let mut data = vec![0; BLOCK];
    stream.read_exact(&mut data).unwrap();
    data
}

/// The body of an answer that is no error.
fn body(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1
}

fn snapshot(server: &Server) -> String {
    body(&server.ask("POST", "/v1/disks/lab-01/snapshots", "{}")).to_owned()
}

fn list(server: &Server) -> String {
    body(&server.ask("GET", "/v1/disks/lab-01/snapshots", "")).to_owned()
}

fn data_files(server: &Server) -> usize {
    let entries = fs::read_dir(server.folder().join("layers/lab-01")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("data")).count()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_machine_goes_back_at_its_next_boot_and_can_undo_that() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let mut disk = server.attach("lab-01");
    assert_eq!(snapshot(&server), "null", "nothing was written");
    write(&mut disk, 3, &[1; BLOCK]);
    let made = body(&server.ask("POST", "/v1/disks/lab-01/snapshots", r#"{"note":"as it was"}"#))
        .to_owned();
    assert!(made.contains(r#""number":1"#) && made.contains("as it was"), "{made}");
    write(&mut disk, 3, &[2; BLOCK]);
    body(&server.ask("PUT", "/v1/disks/lab-01/rollback", r#"{"snapshot":1}"#));
    // Asked for again by the same boot, and over a restart: it runs.
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    assert_eq!(read(&mut disk, 3)[0], 2);
    let server = server.restart();
    assert_eq!(read(&mut server.attach("lab-01"), 3)[0], 2);
    assert!(list(&server).contains(r#""is_next":true"#));

    server.prepare("lab-01", "127.0.0.1", 2, "persistent");
    assert_eq!(read(&mut server.attach("lab-01"), 3)[0], 1);
    assert!(list(&server).contains(r#""kind":"before-rollback""#), "{}", list(&server));
    body(&server.ask("PUT", "/v1/disks/lab-01/rollback", r#"{"snapshot":2}"#));
    server.prepare("lab-01", "127.0.0.1", 3, "persistent");
    assert_eq!(read(&mut server.attach("lab-01"), 3)[0], 2);
    let withdrawn = server.ask("DELETE", "/v1/disks/lab-01/rollback", "");
    assert_eq!(body(&withdrawn), "false");
    let unknown = server.ask("PUT", "/v1/disks/lab-01/rollback", r#"{"snapshot":7}"#);
    assert!(unknown.starts_with("HTTP/1.1 404") && unknown.contains("no snapshot 7"), "{unknown}");
    // A reset takes them, too.
    body(&server.ask("DELETE", "/v1/disks/lab-01", ""));
    let gone = server.ask("GET", "/v1/disks/lab-01/snapshots", "");
    assert!(gone.starts_with("HTTP/1.1 404") && gone.contains("no persistent disk"), "{gone}");
}

#[test]
fn a_client_that_writes_sees_no_snapshot_come_or_go() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let is_over = AtomicBool::new(false);
    let (server, is_over) = (&server, &is_over);
    let expected = std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut disk = server.attach("lab-01");
            let mut expected = vec![0x11u8; N_BLOCKS as usize];
            for round in 1u64.. {
                let block = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % N_BLOCKS;
                let byte = round as u8;
                write(&mut disk, block, &[byte; BLOCK]);
                expected[block as usize] = byte;
                let other = round.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) % N_BLOCKS;
                assert_eq!(read(&mut disk, other), vec![expected[other as usize]; BLOCK]);
                if round % 64 == 0 {
                    flush(&mut disk);
                }
                if is_over.load(Ordering::Acquire) {
                    return expected;
                }
            }
            unreachable!("rounds don't end")
        });
        for number in 1..=12 {
            wait_until("a snapshot", || snapshot(server) != "null");
            if number > 3 {
                let path = format!("/v1/disks/lab-01/snapshots/{}", number - 3);
                body(&server.ask("DELETE", &path, ""));
            }
        }
        // Three snapshots, and what is written.
        wait_until("all is merged", || data_files(server) == 4);
        is_over.store(true, Ordering::Release);
        client.join().unwrap()
    });
    let mut disk = server.attach("lab-01");
    for (block, byte) in expected.iter().enumerate() {
        assert_eq!(read(&mut disk, block as u64), vec![*byte; BLOCK], "block {block}");
    }
}

#[test]
fn files_of_a_snapshot_are_listed_and_read() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("files/etc")).unwrap();
    fs::write(at("files/etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let large: Vec<u8> = (0..500_000u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(at("files/large"), &large).unwrap();
    for (target, name) in [("etc/hosts", "link"), ("circle", "circle"), ("../../../etc", "up")] {
        std::os::unix::fs::symlink(target, at("files").join(name)).unwrap();
    }
    succeed("mkfifo", &[at("files/pipe").to_str().unwrap()]);
    let image = at("disk");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let names = [at("files").to_str().unwrap().to_owned(), image.to_str().unwrap().to_owned()];
    succeed("mkfs.ext4", &["-q", "-F", "-d", &names[0], &names[1]]);
    let mut disk = server.attach("lab-01");
    for (block, data) in fs::read(&image).unwrap().chunks(BLOCK).enumerate() {
        write(&mut disk, block as u64, data);
    }
    snapshot(&server);
    // What comes later is not in it.
    write(&mut disk, 0, &[0; BLOCK]);

    let look = |path: &str| {
        let asked = serde_json::json!({ "path": path }).to_string();
        server.ask("POST", "/v1/disks/lab-01/snapshots/1/look", &asked)
    };
    let listing = look("/");
    for part in [
        r#"{"name":"etc","kind":"folder","size_bytes":null}"#,
        r#"{"name":"large","kind":"file","size_bytes":2000000}"#,
        r#"{"name":"circle","kind":"link","size_bytes":null}"#,
        r#"{"name":"pipe","kind":"special","size_bytes":null}"#,
        r#""partition":null"#,
    ] {
        assert!(listing.contains(part), "{part}: {listing}");
    }
    assert!(body(&look("/up")).contains("hosts"), "a link that leads out stays inside");
    assert!(look("/../../etc/hosts").contains("hosts"));
    assert!(look("/circle").contains("circles"), "{}", look("/circle"));
    assert!(look("/nothing").starts_with("HTTP/1.1 404"), "{}", look("/nothing"));
    assert!(look("etc").starts_with("HTTP/1.1 409"), "{}", look("etc"));

    let fetch = |path: &str| {
        let socket = server.folder().join("storage.sock");
        let asked = serde_json::json!({ "path": path }).to_string();
        let fetched = at("fetched");
        succeed(
            "curl",
            &[
                "-sS",
                "-w",
                "%{http_code}",
                "-o",
                fetched.to_str().unwrap(),
                "--unix-socket",
                socket.to_str().unwrap(),
                "-H",
                "content-type: application/json",
                "-d",
                &asked,
                "http://storage/v1/disks/lab-01/snapshots/1/read",
            ],
        ) + ": "
            + &String::from_utf8_lossy(&fs::read(&fetched).unwrap())
    };
    assert_eq!(fetch("/link"), "200: 127.0.0.1 localhost\n");
    assert!(fetch("/large").starts_with("200") && fs::read(at("fetched")).unwrap() == large);
    assert!(fetch("/etc").contains("it is a folder"), "{}", fetch("/etc"));
    assert!(fetch("/pipe").contains("device, pipe or socket"), "{}", fetch("/pipe"));
    assert!(fetch("/circle").starts_with("409"), "{}", fetch("/circle"));
}
