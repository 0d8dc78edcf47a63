//! Foreign NBD clients against the storage server on loopback.

use crate::server::{Server, negotiate, open_export};
use crate::{run, succeed};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

#[test]
fn libnbd_sees_the_machine_s_export_and_no_other() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    server.prepare("lab-02", "127.0.0.9", 1, "discard");
    let list = succeed("nbdinfo", &["--list", "--json", &server.uri("")]);
    assert!(!list.contains("lab-"), "nobody is told of machines' disks: {list}");
    let info = succeed("nbdinfo", &["--json", &server.uri("lab-01")]);
    for word in ["\"can_multi_conn\": true", "\"can_fua\": true", "\"export-size\": 8388608"] {
        assert!(info.contains(word), "{info}");
    }
    let refused = run("nbdinfo", &[&server.uri("lab-02")]);
    assert!(!refused.status.success());
    let not_refused = server.exports().matches("\"refused\":0,").count();
    assert_eq!(not_refused, 1, "the attempt must be counted at lab-02");
}

#[test]
fn a_machine_that_writes_to_its_memory_leaves_nothing_on_the_server() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let uri = server.uri("lab-01");
    succeed("qemu-io", &["-f", "raw", "-c", "write -P 0xaa 0 1M", &uri]);
    server.prepare("lab-01", "127.0.0.1", 2, "ram");
    succeed("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0x11 0 1M", &uri]);
    let info = succeed("nbdinfo", &["--json", &uri]);
    assert!(info.contains("\"is_read_only\": true"), "{info}");
    let refused = run("qemu-io", &["-f", "raw", "-c", "write -P 0xaa 0 1M", &uri]);
    assert!(!refused.status.success());
    // A client that writes all the same.
    let mut stream = server.attach("lab-01");
    stream.write_all(&request(1, 0, 512)).unwrap();
    stream.write_all(&[7; 512]).unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..8], [0, 0, 0, 1], "EPERM");
    assert_eq!(server.layers(), [".layers-mark", ".lock"], "not even the layer of an earlier boot");
    assert!(server.exports().contains("\"layer_bytes\":0"));
}

#[test]
fn what_nbdcopy_writes_it_reads_again() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let folder = tempfile::tempdir().unwrap();
    let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
    let bytes: Vec<u8> = (0..8 * MIB).map(|index| (index / 512 * 7 + index % 251) as u8).collect();
    std::fs::write(&image, &bytes).unwrap();
    let uri = server.uri("lab-01");
    succeed("nbdcopy", &["--connections=4", image.to_str().unwrap(), &uri]);
    succeed("nbdcopy", &["--connections=4", &uri, copy.to_str().unwrap()]);
    assert!(std::fs::read(&copy).unwrap() == bytes, "the copy differs");
}

#[test]
fn qemu_writes_zeroes_discards_and_flushes() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let uri = server.uri("lab-01");
    let commands = [
        "read -P 0x11 0 1M",
        "write -P 0xaa 0 1M",
        "read -P 0xaa 0 1M",
        "write -z -u 0 64k",
        "read -P 0 0 64k",
        "discard 1M 1M",
        "read -P 0 1M 1M",
        "write -f -P 1 5M 4k",
        "write -P 2 5243392 512",
        "read -P 2 5243392 512",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(&uri);
    let output = succeed("qemu-io", &arguments);
    assert!(!output.contains("failed"), "{output}");
}

#[test]
fn fio_finds_every_block_as_it_wrote_it() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let uri = format!("--uri={}", server.uri("lab-01"));
    let job = "--name=verify --ioengine=nbd --rw=randwrite --bsrange=512-128k --size=8m --iodepth=16 \
               --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=20 --randseed=7";
    let mut arguments: Vec<&str> = job.split(' ').collect();
    arguments.push(&uri);
    let folder = tempfile::tempdir().unwrap();
    let state = format!("--aux-path={}", folder.path().display());
    arguments.push(&state);
    succeed("fio", &arguments);
}

#[test]
fn a_slow_writer_s_large_request_arrives_whole() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut client = server.attach("lab-01");
    let data: Vec<u8> = (0..3 * MIB).map(|index| (index % 253) as u8).collect();
    let write = request(1, 4096, data.len() as u32);
    // The header comes in two parts, and a read is waiting behind the data.
    client.write_all(&write[..5]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let read = request(0, 4096, data.len() as u32);
    client.write_all(&[&write[5..], &data, &read].concat()).unwrap();
    let mut replies = vec![0; 16 + 16 + data.len()];
    client.read_exact(&mut replies).unwrap();
    assert_eq!(replies[4..8], [0; 4]);
    assert!(replies[32..] == data, "what was read is not what was written");
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
    request.extend(0u16.to_be_bytes());
    request.extend(command.to_be_bytes());
    request.extend(7u64.to_be_bytes());
    request.extend(offset.to_be_bytes());
    request.extend(length.to_be_bytes());
    request
}

/// As when it is upgraded under systemd: the socket is systemd's.
#[test]
fn who_connects_while_the_server_is_away_is_served_when_it_is_back() {
    let server = Server::start_handed();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let uri = server.uri("lab-01");
    succeed("qemu-io", &["-f", "raw", "-c", "write -P 0xaa 0 64k", "-c", "flush", &uri]);
    let mut waiting = None;
    let _server = server.restart_after(|server| {
        let mut stream = server.connect();
        waiting = Some(std::thread::spawn(move || {
            open_export(&mut stream, "lab-01");
        }));
    });
    waiting.unwrap().join().expect("it is served");
    succeed("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0xaa 0 64k", &uri]);
}

#[test]
fn a_new_boot_throws_away_what_a_discard_layer_held() {
    let server = Server::start();
    let uri = server.uri("lab-01");
    let write = ["-f", "raw", "-c", "write -P 0xaa 0 64k", "-c", "flush", &uri];
    let read =
        |byte| succeed("qemu-io", &["-f", "raw", "-c", &format!("read -P {byte} 0 64k"), &uri]);
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    succeed("qemu-io", &write);
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    assert!(!read("0xaa").contains("failed"), "the same boot again must change nothing");
    server.prepare("lab-01", "127.0.0.1", 2, "discard");
    assert!(!read("0x11").contains("failed"), "the new boot must see the image");
    server.prepare("lab-01", "127.0.0.1", 3, "persistent");
    succeed("qemu-io", &write);
    server.prepare("lab-01", "127.0.0.1", 4, "persistent");
    assert!(!read("0xaa").contains("failed"), "a persistent disk must go on");
}

#[test]
fn a_new_boot_ends_the_connections_of_the_former() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut client = server.attach("lab-01");
    server.prepare("lab-01", "127.0.0.1", 2, "discard");
    let mut rest = Vec::new();
    assert_eq!(client.read_to_end(&mut rest).unwrap_or(0), 0, "closed, and without an error reply");
}

#[test]
fn a_client_that_reconnects_is_rid_of_its_former_connection_first() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut former = server.attach("lab-01");
    // Half a write is on its way when the client loses its connection.
    former.write_all(&[&request(1, 0, 4096)[..], &[0xaa; 2048]].concat()).unwrap();
    let mut newer = server.attach("lab-01?g=1");
    let _ = former.write_all(&[0xaa; 2048]);
    newer
        .write_all(&[&request(1, 0, 4096)[..], &[0xbb; 4096], &request(0, 0, 4096)].concat())
        .unwrap();
    let mut replies = vec![0; 16 + 16 + 4096];
    newer.read_exact(&mut replies).unwrap();
    assert!(replies[32..] == [0xbb; 4096], "a write of the former connection came later");
    let mut rest = Vec::new();
    assert_eq!(former.read_to_end(&mut rest).unwrap_or(0), 0, "the former connection lives");
    let late = negotiate(&mut server.connect(), |_| "lab-01".to_owned()).unwrap_err();
    assert!(late.to_string().contains("a newer connection"), "{late}");
    newer.write_all(&request(0, 0, 512)).unwrap();
    newer.read_exact(&mut [0; 16 + 512]).unwrap();
}

#[test]
fn exports_are_back_after_a_restart_with_what_was_written() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let uri = server.uri("lab-01");
    succeed("qemu-io", &["-f", "raw", "-c", "write -P 0xaa 0 64k", &uri]);
    let server = server.restart();
    let uri = server.uri("lab-01");
    let read = succeed("qemu-io", &["-f", "raw", "-c", "read -P 0xaa 0 64k", &uri]);
    assert!(!read.contains("failed"), "{read}");
}

#[test]
fn garbage_and_silence_disturb_nobody() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let silent: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff",
    ] {
        let mut client = server.connect();
        client.write_all(garbage).unwrap();
    }
    let mut half = server.attach("lab-01");
    half.write_all(b"\x25\x60\x95\x13\0\0\0\x01").unwrap();
    let mut mad = server.attach("lab-01");
    mad.write_all(&[0xab; 4096]).unwrap();
    let mut rest = Vec::new();
    assert_eq!(mad.read_to_end(&mut rest).unwrap_or(0), 0, "a wrong magic ends the connection");
    let info = succeed("nbdinfo", &["--size", &server.uri("lab-01")]);
    assert_eq!(info.trim(), "8388608");
    drop(silent);
}

#[test]
fn illegal_requests_get_errors_and_the_connection_lives() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut client = server.attach("lab-01");
    let mut ask = |command: u16, offset: u64, length: u32| {
        let mut request = request(command, offset, length);
        if command == 1 {
            request.resize(request.len() + length as usize, 0);
        }
        client.write_all(&request).unwrap();
        let mut reply = [0; 16];
        client.read_exact(&mut reply).unwrap();
        u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]])
    };
    let end = 8 * MIB as u64;
    assert_eq!(ask(0, end, 512), 22, "a read beyond the end is EINVAL");
    assert_eq!(ask(0, u64::MAX, 512), 22);
    assert_eq!(ask(0, 0, u32::MAX), 22);
    assert_eq!(ask(1, end, 512), 28, "a write beyond the end is ENOSPC");
    assert_eq!(ask(1, 0, 33 << 20), 22, "an oversized write is EINVAL");
    assert_eq!(ask(6, end - 512, 1024), 28, "zeroes beyond the end are ENOSPC");
    assert_eq!(ask(4, end - 512, 1024), 22, "a trim beyond the end is EINVAL");
    assert_eq!(ask(99, 0, 0), 22, "an unknown command is EINVAL");
    assert_eq!(ask(3, 0, 0), 0, "and the connection still works");
}

#[test]
fn strangers_can_not_keep_a_machine_from_its_disk() {
    let (server, other) = Server::start_at_two();
    server.prepare("lab-02", "127.0.0.2", 1, "discard");
    let connect =
        |index| if index % 2 == 0 { server.connect() } else { TcpStream::connect(other).unwrap() };
    let mut strangers: Vec<TcpStream> = (0..500).map(connect).collect();
    let mut machine = server.connect_from("127.0.0.2");
    open_export(&mut machine, "lab-02");
    let mut rest = Vec::new();
    assert!(strangers[0].read_to_end(&mut rest).is_ok(), "the first of them is let go");
    assert_eq!(rest.len(), 18, "and hears the greeting only");
    // There are 50 at most, at both addresses together, and who had to go for it is known.
    let told = || server.ask("GET", "/v1/nbd", "");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !told().contains(r#""let_go":[{"address":"127.0.0.1","count":450,"machine":null}]"#) {
        assert!(Instant::now() < deadline, "{}", told());
        std::thread::sleep(Duration::from_millis(20));
    }
    // A stranger that is not silent is answered all the same.
    let refused = run("nbdinfo", &[&server.uri("lab-02")]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("opt_go request"), "{text}");
}

/// A PC that loses its power while it reads leaves a connection that takes nothing and never ends.
#[test]
fn the_server_ends_although_a_client_takes_no_replies() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut client = server.attach("lab-01");
    for _ in 0..8 {
        client.write_all(&request(0, 0, 8 * MIB as u32)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let took = server.stop();
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(client);
}
