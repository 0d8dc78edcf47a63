//! The storage server is killed, and started again: machines find their disks as they were.

use crate::lan::{self, CLIENT_MAC, Initiator, SERVER};
use crate::server::{config, folder, free_address, prepare, serve, spec};
use crate::succeed;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the child serves; set only there.
const FOLDER: &str = "BOOTLACE_TEST_FOLDER";
const ADDRESS: &str = "BOOTLACE_TEST_ADDRESS";
const INTERFACE: &str = "BOOTLACE_TEST_INTERFACE";

/// Not a test of its own: the server that the next ones kill.
#[test]
fn child_that_serves_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let address = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let interfaces = std::env::var(INTERFACE).into_iter().collect();
    serve(config(Path::new(&folder), address, interfaces), || (), std::future::pending());
}

fn start(folder: &Path, address: SocketAddr, interface: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::child_that_serves_until_it_is_killed", "--nocapture"]);
    command.env(FOLDER, folder).env(ADDRESS, address.to_string()).stdout(Stdio::null());
    if let Some(interface) = interface {
        command.env(INTERFACE, interface);
    }
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(folder.join("storage.sock")).is_err() {
        assert!(Instant::now() < deadline, "the server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_nbd_disk_is_as_it_was() {
    let folder = folder();
    let address = free_address();
    let uri = format!("nbd://{address}/lab-01");
    for (boot, mode) in [(1, "discard"), (2, "persistent")] {
        let server = start(folder.path(), address, None);
        let spec = spec("lab-01", "nbd", "127.0.0.1", CLIENT_MAC, boot, mode);
        prepare(folder.path(), "lab-01", &spec);
        succeed("qemu-io", &["-f", "raw", "-c", "write -P 0xaa 0 1M", &uri]);
        kill(server);
        let server = start(folder.path(), address, None);
        let read = succeed("qemu-io", &["-f", "raw", "-c", "read -P 0xaa 0 1M", &uri]);
        assert!(!read.contains("failed"), "{mode}: {read}");
        kill(server);
    }
}

#[test]
fn an_aoe_disk_is_as_it_was() {
    lan::enter(1500);
    let folder = folder();
    let address = free_address();
    let server = start(folder.path(), address, Some(SERVER));
    let spec = spec("lab-01", "aoe", "127.0.0.1", CLIENT_MAC, 1, "discard");
    prepare(folder.path(), "lab-01", &spec);
    let mut machine = Initiator::new();
    machine.write(8, &[0xaa; 1024]);
    kill(server);
    let server = start(folder.path(), address, Some(SERVER));
    assert_eq!(machine.read(8, 2), [0xaa; 1024]);
    kill(server);
}
