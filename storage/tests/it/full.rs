//! The server's disk is full: machines wait, and nobody's root turns read-only.

use crate::lost::Boot;
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

/// A write of so many bytes that has not been answered.
fn write(stream: &mut TcpStream, offset: u64, length: u32) {
    let (command, flags) = (Command::Write, CommandFlags::default());
    stream.write_all(&Request { command, flags, cookie: 7, offset, length }.emit()).unwrap();
    stream.write_all(&vec![0xaa; length as usize]).unwrap();
}

#[test]
fn a_machine_whose_layer_is_full_waits_and_goes_on_with_a_larger_bound() {
    let server = Server::start_with_layers_of(2 * u64::from(MIB));
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    server.prepare("lab-02", "127.0.0.2", 1, "discard");
    let mut machine = server.attach("lab-01?g=1");
    write(&mut machine, 0, 2 * MIB);
    assert_eq!(reply(&mut machine), 0);
    // What has its place already needs no room, and what is trimmed gives its own back.
    write(&mut machine, 0, MIB);
    assert_eq!(reply(&mut machine), 0);
    let (command, flags) = (Command::Trim, CommandFlags::default());
    let trim = Request { command, flags, cookie: 7, offset: 0, length: MIB };
    machine.write_all(&trim.emit()).unwrap();
    assert_eq!(reply(&mut machine), 0);
    write(&mut machine, 4 * u64::from(MIB), MIB);
    assert_eq!(reply(&mut machine), 0);

    write(&mut machine, 6 * u64::from(MIB), MIB);
    wait_for(&server, "as much room on the storage server as layer_max allows");
    let space = server.ask("GET", "/v1/space", "");
    assert!(space.contains("\"layer_max_bytes\":2097152"), "{space}");
    let mut other = server.connect_from("127.0.0.2");
    crate::server::open_export(&mut other, "lab-02");
    write(&mut other, 0, MIB);
    assert_eq!(reply(&mut other), 0, "nobody else waits");

    let server = server.restart_with_layers_of(8 * u64::from(MIB));
    let mut rest = Vec::new();
    machine.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "the kernel sees a lost connection, and no error");
    let mut machine = server.attach("lab-01?g=2");
    write(&mut machine, 6 * u64::from(MIB), MIB);
    assert_eq!(reply(&mut machine), 0);
}

#[test]
fn a_machine_that_gets_errors_gets_them_until_there_is_room_again() {
    let server = start_with_room("2m");
    let mut stream = stalled(&server);
    assert!(decide(&server, "fail").ends_with('1'));
    assert_eq!(reply(&mut stream), 28, "ENOSPC");
    // It wants to write on, and need not be failed again.
    for offset in [0, 1, 2] {
        write(&mut stream, u64::from(offset * MIB), 4 * MIB);
        assert_ne!(reply(&mut stream), 0);
    }
    let told = server.exports();
    assert!(told.contains("\"stall\":null,\"fails_writes\":true"), "{told}");
    // What is in its place already needs no room, and shows nothing.
    write(&mut stream, 0, 4096);
    assert_eq!(reply(&mut stream), 0);
    write(&mut stream, 0, 4 * MIB);
    assert_ne!(reply(&mut stream), 0);

    // There is room, and then there is none again: it waits.
    let room = |size: &str| {
        let none: Option<&Path> = None;
        let layers = server.folder().join("layers");
        mount(none, &layers, none, MsFlags::MS_REMOUNT, Some(size)).unwrap();
    };
    room("size=6m");
    write(&mut stream, 0, 4 * MIB);
    assert_eq!(reply(&mut stream), 0);
    assert!(server.exports().contains("\"fails_writes\":false"));
    write(&mut stream, 4 * u64::from(MIB), 4 * MIB);
    wait_for(&server, "\"why\":\"the storage server's disk is full\"");
    // The same by decision.
    assert!(decide(&server, "fail").ends_with('1'));
    assert_ne!(reply(&mut stream), 0);
    decide(&server, "resume");
    write(&mut stream, 4 * u64::from(MIB), 4 * MIB);
    wait_for(&server, "\"why\":\"the storage server's disk is full\"");
    room("size=16m");
    assert_eq!(reply(&mut stream), 0);
}

/// Asks for one piece of the disk to be forgotten.
fn trim(stream: &mut TcpStream, cookie: u64, offset: u64, length: u32) {
    let (command, flags) = (Command::Trim, CommandFlags::default());
    stream.write_all(&Request { command, flags, cookie, offset, length }.emit()).unwrap();
}

/// The request that is answered next, and well.
fn answered(stream: &mut TcpStream) -> u64 {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..8], [0; 4], "{reply:?}");
    u64::from_be_bytes(reply[8..].try_into().unwrap())
}

#[test]
fn a_boot_that_finds_no_room_for_its_layer_is_told_to_wait() {
    let server = start_with_room("2m");
    let boot = Boot { number: 1, byte: 1 };
    let waiting = Boot { number: 2, byte: 2 };
    assert!(boot.put(&server, "discard").starts_with("HTTP/1.1 200"));
    // It was there when the loader asked, and is not when init does.
    assert!(waiting.put(&server, "persistent").starts_with("HTTP/1.1 200"));
    let filler = server.folder().join("layers/filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(40);
    let said = loop {
        let said = waiting.try_attach(&server, 1).err().unwrap();
        if said.contains(model::NO_ROOM_YET) {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
    };
    assert!(said.contains("is full: delete files"), "{said}");
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(crate::server::first_byte(&mut waiting.attach(&server, 1)), 0x11);
}

#[test]
fn what_frees_room_does_not_wait_behind_what_waits_for_room() {
    let server = Server::start_with_layers_of(2 * u64::from(MIB));
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let mut machine = server.attach("lab-01");
    write(&mut machine, 0, 2 * MIB);
    assert_eq!(reply(&mut machine), 0);
    let mib = u64::from(MIB);
    write(&mut machine, 4 * mib, MIB);
    write(&mut machine, 5 * mib, MIB / 2);
    wait_for(&server, "as layer_max allows");
    // A flush is about what was answered, and both are.
    let (command, flags) = (Command::Flush, CommandFlags::default());
    let flush = Request { command, flags, cookie: 1, offset: 0, length: 0 };
    machine.write_all(&flush.emit()).unwrap();
    assert_eq!(answered(&mut machine), 1);
    trim(&mut machine, 2, 0, 2 * MIB);
    assert_eq!([answered(&mut machine), answered(&mut machine), answered(&mut machine)], [2, 7, 7]);
    wait_for(&server, "\"stall\":null");
}

#[test]
fn what_is_about_the_blocks_of_a_write_that_waits_comes_after_it() {
    let server = Server::start_with_layers_of(2 * u64::from(MIB));
    server.prepare("lab-01", "127.0.0.1", 1, "persistent");
    let mut machine = server.attach("lab-01?g=1");
    write(&mut machine, 0, 2 * MIB);
    assert_eq!(reply(&mut machine), 0);
    let mib = u64::from(MIB);
    write(&mut machine, 4 * mib, MIB);
    wait_for(&server, "as layer_max allows");
    // Were this done first, the write would find the blocks as it left them.
    trim(&mut machine, 2, 4 * mib, MIB);
    trim(&mut machine, 3, 0, MIB);
    machine.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(machine.peek(&mut [0]).is_err(), "it was overtaken");
    machine.set_read_timeout(None).unwrap();
    let told = decide(&server, "fail");
    assert!(told.ends_with('1'), "{told}");
    let mut replies = [0; 48];
    machine.read_exact(&mut replies).unwrap();
    let cookies = [15, 31, 47].map(|at| replies[at]);
    let are_errors = [0, 16, 32].map(|at| replies[at + 4..at + 8] != [0; 4]);
    assert_eq!((cookies, are_errors), ([7, 2, 3], [true, false, false]));
}

#[test]
fn the_rest_of_the_disk_is_for_those_that_have_written_little() {
    // Of this 2 MiB are kept.
    let server = start_with_room("100m");
    let disk = server.folder().join("images/debian-12/1/disk.raw");
    let size_bytes = 256 * u64::from(MIB);
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(size_bytes).unwrap();
    let about = disk.with_file_name("image.toml");
    let text = std::fs::read_to_string(&about).unwrap();
    std::fs::write(&about, text.replace("8388608", &size_bytes.to_string())).unwrap();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut greedy = server.attach("lab-01");
    for index in 0..97 {
        write(&mut greedy, index * u64::from(MIB), MIB);
        assert_eq!(reply(&mut greedy), 0, "{index} MiB");
    }
    write(&mut greedy, 100 * u64::from(MIB), 2 * MIB);
    wait_for(&server, "what is left is kept for machines that start");
    server.prepare("lab-02", "127.0.0.2", 1, "persistent");
    let mut other = server.connect_from("127.0.0.2");
    crate::server::open_export(&mut other, "lab-02");
    write(&mut other, 0, MIB);
    assert_eq!(reply(&mut other), 0, "it has written little");
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
