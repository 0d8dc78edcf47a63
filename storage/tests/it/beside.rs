//! A disk beside a machine's root is one of its own: by its own name, with its own layer.

use crate::lan::CLIENT_MAC;
use crate::server::{Server, first_byte, negotiate, spec, write};
use model::{Claim, DiskKey, DiskName, Nonce};
use nbd::client::HandshakeError;
use std::net::TcpStream;

const fn key(boot: u64) -> DiskKey {
    DiskKey::new([boot as u8; 32])
}

/// The boot server has a disk exported for a boot of this number.
fn put(server: &Server, disk: &str, boot: u64, write_mode: &str) {
    let spec = spec(disk, "nbd", "127.0.0.1", CLIENT_MAC, boot, write_mode);
    let order = spec.replacen('{', &format!("{{\"key\":\"{}\",", key(boot).to_hex()), 1);
    let answer = server.ask("PUT", &format!("/v1/exports/{disk}"), &order);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The machine opens `disk`, with a proof that is for `proven`.
fn open(
    server: &Server,
    disk: &str,
    proven: &str,
    boot: u64,
    generation: u32,
) -> Result<TcpStream, HandshakeError> {
    let mut stream = server.connect();
    let name = |said: Option<&str>| {
        let nonce = Nonce::of_challenge(said.unwrap()).unwrap();
        let proof = key(boot).prove(&nonce, proven, boot, generation);
        let claim = Some(Claim { boot, proof });
        DiskName { machine: disk, generation, claim }.to_string()
    };
    negotiate(&mut stream, name).map(|()| stream)
}

const ROOT: &str = "lab-01";
const HOME: &str = "lab-01+home";

#[test]
fn what_is_written_beside_the_root_outlives_it_and_is_thrown_away_alone() {
    let server = Server::start();
    put(&server, ROOT, 1, "discard");
    put(&server, HOME, 1, "persistent");
    let mut root = open(&server, ROOT, ROOT, 1, 1).unwrap();
    let mut home = open(&server, HOME, HOME, 1, 1).unwrap();
    write(&mut root);
    write(&mut home);
    assert_eq!((first_byte(&mut root), first_byte(&mut home)), (0xaa, 0xaa));
    // A proof is for one disk; and there is no third one.
    for (disk, proven) in [(HOME, ROOT), ("lab-01+other", "lab-01+other"), ("lab-01+", ROOT)] {
        let refused = open(&server, disk, proven, 1, 2).unwrap_err().to_string();
        assert!(refused.contains("the disk is not given"), "{disk}: {refused}");
    }
    drop((root, home));

    // The machine restarts.
    put(&server, ROOT, 2, "discard");
    put(&server, HOME, 2, "persistent");
    let mut root = open(&server, ROOT, ROOT, 2, 1).unwrap();
    let mut home = open(&server, HOME, HOME, 2, 1).unwrap();
    assert_ne!(first_byte(&mut root), 0xaa, "the root is forgotten");
    assert_eq!(first_byte(&mut home), 0xaa);
    let told = server.ask("GET", "/v1/disks", "");
    assert!(told.contains("\"machine\":\"lab-01+home\""), "{told}");

    // The key of a former boot opens nothing any more, also of what this boot has not attached, or does not have.
    put(&server, "lab-01+data", 2, "persistent");
    drop((open(&server, "lab-01+data", "lab-01+data", 2, 1).unwrap(), root, home));
    put(&server, ROOT, 3, "discard");
    put(&server, HOME, 3, "persistent");
    let mut root = open(&server, ROOT, ROOT, 3, 1).unwrap();
    for disk in [HOME, "lab-01+data"] {
        let refused = open(&server, disk, disk, 2, 9).unwrap_err().to_string();
        assert!(refused.contains("the disk is not given"), "{disk}: {refused}");
    }
    let mut home = open(&server, HOME, HOME, 3, 1).unwrap();
    assert_eq!(first_byte(&mut home), 0xaa);

    // What is thrown away is that one alone.
    write(&mut root);
    drop(home);
    let answer = server.ask("DELETE", &format!("/v1/disks/{HOME}"), "");
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(first_byte(&mut root), 0xaa);
    put(&server, HOME, 3, "persistent");
    let mut home = open(&server, HOME, HOME, 3, 5).unwrap();
    assert_ne!(first_byte(&mut home), 0xaa);
    write(&mut home);
    drop((root, home));

    // And this server: whoever ran has both again.
    let server = server.restart();
    assert_eq!(first_byte(&mut open(&server, HOME, HOME, 3, 6).unwrap()), 0xaa);
    assert_eq!(first_byte(&mut open(&server, ROOT, ROOT, 3, 2).unwrap()), 0xaa);
}
