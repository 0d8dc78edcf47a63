//! A shared disk and clients that behave badly; and how it ends.

use crate::lan::{self, CLIENT, CLIENT_MAC, Initiator, SERVER};
use crate::server::open_export;
use crate::{run, succeed};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage::{Address, AoeAddress, Durability, Share, ShareConfig, Writes};

const SIZE_BYTES: usize = 64 << 20;

fn config(folder: &Path) -> ShareConfig {
    let file = folder.join("disk");
    std::fs::write(&file, vec![0x11; SIZE_BYTES]).unwrap();
    ShareConfig {
        file,
        name: "lab".into(),
        writes: Writes::Through,
        durability: Durability::Durable,
        nbd: vec![Address::Tcp("127.0.0.1:0".parse().unwrap())],
        nbd_sockets: vec![],
        tls: None,
        aoe: vec![],
        allow: vec![],
    }
}

fn address(share: &Share) -> SocketAddr {
    let uri = &share.addresses()[0];
    uri.trim_start_matches("nbd://").trim_end_matches("/lab").parse().unwrap()
}

fn attach(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    open_export(&mut stream, "lab");
    stream
}

fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
    request.extend([0, 0]);
    request.extend(command.to_be_bytes());
    request.extend(cookie.to_be_bytes());
    request.extend(offset.to_be_bytes());
    request.extend(length.to_be_bytes());
    request
}

/// Writes with sixteen requests in flight until the server ends; how many were acknowledged.
fn write_until_the_end(mut stream: TcpStream, blocks: u64, acknowledged: &AtomicU64) {
    let (mut next, mut replies) = (0, Vec::new());
    loop {
        while next < acknowledged.load(Ordering::Relaxed) + 16 && next < blocks {
            let mut write = request(1, next, next * 4096, 4096);
            write.extend([0x22; 4096]);
            if stream.write_all(&write).is_err() {
                break;
            }
            next += 1;
        }
        let mut reply = [0; 4096];
        let count = stream.read(&mut reply).unwrap_or(0);
        if count == 0 {
            break;
        }
        replies.extend(&reply[..count]);
        let whole = replies.len() / 16 * 16;
        for reply in replies.drain(..whole).collect::<Vec<u8>>().chunks(16) {
            assert_eq!(reply[4..8], [0; 4], "an error reply");
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(replies.len() % 16, 0, "half a reply");
}

#[test]
fn the_end_under_load_brings_no_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let share = Share::start(config(folder.path())).unwrap();
    let address = address(&share);
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_the_end(attach(address), 16_000, &acknowledged));
        let deadline = Instant::now() + Duration::from_secs(10);
        while acknowledged.load(Ordering::Relaxed) < 200 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(share);
        writer.join().unwrap();
    });
    let count = acknowledged.load(Ordering::Relaxed) as usize;
    assert!(count >= 200);
    let disk = std::fs::read(folder.path().join("disk")).unwrap();
    assert!(disk[..count * 4096].iter().all(|byte| *byte == 0x22), "an acknowledged write is lost");
}

/// Memory that this process uses, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn who_takes_no_replies_or_dies_disturbs_nobody_and_costs_little() {
    let folder = tempfile::tempdir().unwrap();
    let share = Share::start(config(folder.path())).unwrap();
    let address = address(&share);
    let before = memory();
    let greedy: Vec<TcpStream> = (0..120)
        .map(|_| {
            let mut stream = attach(address);
            let reads: Vec<u8> = (0..64).flat_map(|at| request(0, at, 0, 32 << 20)).collect();
            stream.write_all(&reads).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let mut dying = attach(address);
        dying.write_all(&[request(0, 1, 0, 32 << 20), request(1, 2, 0, 1 << 20)].concat()).unwrap();
    }
    let silent: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(address).unwrap()).collect();
    let uri = share.addresses()[0].clone();
    assert_eq!(succeed("nbdinfo", &["--size", &uri]).trim(), SIZE_BYTES.to_string());
    let read = succeed("qemu-io", &["-f", "raw", "-c", "read -P 0x11 0 16M", &uri]);
    assert!(!read.contains("failed"), "{read}");
    // Others were served before any of these took a byte, or was let go.
    let mut first = [0];
    let answered = greedy.iter().filter(|stream| stream.peek(&mut first).is_ok_and(|n| n > 0));
    assert_eq!(answered.count(), greedy.len(), "their replies still wait for them");
    // Other tests of this process need some, too.
    let grown = memory().saturating_sub(before);
    assert!(grown < 150 << 20, "{} MiB for 140 clients", grown >> 20);
    // It ends while they are all there.
    drop(share);
    drop((greedy, silent));
}

#[test]
fn a_share_is_for_those_that_are_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.allow = vec!["127.0.0.7".parse().unwrap()];
    let share = Share::start(config).unwrap();
    let uri = share.addresses()[0].clone();
    assert!(!run("nbdinfo", &["--size", &uri]).status.success());
    let list = succeed("nbdinfo", &["--list", &uri.replace("/lab", "/")]);
    assert!(!list.contains("lab"), "{list}");
}

#[test]
fn a_share_over_aoe_is_found_at_each_of_its_addresses() {
    lan::enter(1500);
    let folder = tempfile::tempdir().unwrap();
    let at = |address: &str| AoeAddress {
        interface: SERVER.into(),
        address: address.parse().unwrap(),
        mac: None,
    };
    let config = ShareConfig {
        nbd: vec![],
        aoe: vec![at("1.1"), at("2.5")],
        allow: vec![CLIENT_MAC.parse().unwrap()],
        ..config(folder.path())
    };
    let share = Share::start(config).unwrap();
    assert_eq!(share.addresses(), ["aoe e1.1 on srv0", "aoe e2.5 on srv0"]);
    for [shelf, slot] in [["1", "1"], ["2", "5"]] {
        let text = succeed("aoecfg", &["-t", "5", shelf, slot, CLIENT]);
        assert!(text.contains("lab"), "{text}");
    }
    let mut machine = Initiator::new();
    machine.write(8, &[0x33; 1024]);
    assert!(machine.read(8, 2) == [0x33; 1024]);
    drop(share);
    let disk = std::fs::read(folder.path().join("disk")).unwrap();
    assert!(disk[4096..5120] == [0x33; 1024] && disk[5120] == 0x11);
}
