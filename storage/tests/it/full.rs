//! The server's disk is full: machines wait, and nobody's root turns read-only.

use crate::server::Server;
use crate::succeed;
use nbd::{Command, CommandFlags, Request};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u32 = 1 << 20;

/// Takes the calling thread, and what it starts, to mounts of its own, and gives the layers of its
/// servers so much room.
fn start_with_room(size: &str) -> Server {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let folder = crate::server::folder();
    let layers = folder.path().join("layers");
    std::fs::create_dir(&layers).unwrap();
    let options = format!("size={size}");
    mount(none, &layers, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
    Server::start_in(folder)
}

/// A machine that has written 4 MiB where there is less room, and gets no reply.
fn stalled(server: &Server) -> TcpStream {
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut stream = server.attach("lab-01");
    let (command, flags) = (Command::Write, CommandFlags::default());
    let request = Request { command, flags, cookie: 7, offset: 0, length: 4 * MIB };
    stream.write_all(&request.emit()).unwrap();
    stream.write_all(&vec![0xaa; 4 * MIB as usize]).unwrap();
    wait_for(server, "\"why\":\"the storage server's disk is full\"");
    stream
}

fn wait_for(server: &Server, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.exports().contains(text) {
        assert!(Instant::now() < deadline, "{text} is not in {}", server.exports());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The error number of the reply.
fn reply(stream: &mut TcpStream) -> u32 {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]])
}

fn decide(server: &Server, verb: &str) -> String {
    server.ask("POST", "/v1/exports/lab-01/stall", &format!("\"{verb}\""))
}

#[test]
fn a_machine_waits_until_there_is_room_again() {
    let server = start_with_room("2m");
    let space = server.ask("GET", "/v1/space", "");
    assert!(space.contains("{\"total_bytes\":2097152,\"free_bytes\":20"), "{space}");
    let mut stream = stalled(&server);
    // Others read on.
    let uri = server.uri("lab-01");
    succeed("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0x11 6M 1M", &uri]);
    let none: Option<&Path> = None;
    let layers = server.folder().join("layers");
    mount(none, &layers, none, MsFlags::MS_REMOUNT, Some("size=16m")).unwrap();
    let told = decide(&server, "resume");
    // It may have found the room itself.
    assert!(told.ends_with('1') || told.ends_with('0'), "{told}");
    assert_eq!(reply(&mut stream), 0);
    wait_for(&server, "\"stall\":null");
    succeed("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0xaa 0 4M", &uri]);
}

#[test]
fn the_administrator_may_let_its_writes_fail() {
    let server = start_with_room("2m");
    let mut stream = stalled(&server);
    let told = decide(&server, "fail");
    assert!(told.starts_with("HTTP/1.1 200") && told.ends_with('1'), "{told}");
    assert_eq!(reply(&mut stream), 28, "ENOSPC");
    wait_for(&server, "\"stall\":null");
    let nobody = server.ask("POST", "/v1/exports/lab-02/stall", "\"fail\"");
    assert!(nobody.starts_with("HTTP/1.1 404") && nobody.contains("no disk here"), "{nobody}");
    assert!(decide(&server, "hope").starts_with("HTTP/1.1 422"));
}
