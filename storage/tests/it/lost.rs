//! What is lost, restored or not mounted: a machine gets its own disk, or is told why it gets none.

use crate::lan::CLIENT_MAC;
use crate::server::{Server, first_byte, negotiate, spec, write};
use model::{Claim, DiskKey, DiskName, Nonce};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A boot of lab-01, whose number another one has had.
#[derive(Clone, Copy)]
pub(crate) struct Boot {
    pub(crate) number: u64,
    /// Of its identity and its key.
    pub(crate) byte: u8,
}

impl Boot {
    fn order(self, write_mode: &str, extra: &str) -> String {
        let spec = spec("lab-01", "nbd", "127.0.0.1", CLIENT_MAC, self.number, write_mode);
        let byte = format!("{:02x}", self.byte);
        let (key, identity) = (byte.repeat(32), byte.repeat(16));
        spec.replacen('{', &format!("{{\"key\":\"{key}\",\"identity\":\"{identity}\",{extra}"), 1)
    }

    pub(crate) fn put(self, server: &Server, write_mode: &str) -> String {
        put(server, &self.order(write_mode, ""))
    }

    /// Its disk; waits until the former boot has been silent for long enough.
    pub(crate) fn attach(self, server: &Server, generation: u32) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            match self.try_attach(server, generation) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Its disk, or what the server says.
    pub(crate) fn try_attach(self, server: &Server, generation: u32) -> Result<TcpStream, String> {
        let key = DiskKey::new([self.byte; 32]);
        let mut stream = server.connect();
        let opened = negotiate(&mut stream, |said| {
            let nonce = Nonce::of_challenge(said.unwrap()).unwrap();
            let proof = key.prove(&nonce, "lab-01", self.number, generation);
            let claim = Some(Claim { boot: self.number, proof });
            DiskName { machine: "lab-01", generation, claim }.to_string()
        });
        opened.map(|()| stream).map_err(|error| error.to_string())
    }
}

fn put(server: &Server, order: &str) -> String {
    server.ask("PUT", "/v1/exports/lab-01", order)
}

pub(crate) fn is_done(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

/// Writes to the machine's own disk, and switches it off.
fn use_disk(server: &Server, boot: Boot) {
    let answer = boot.put(server, "persistent");
    assert!(is_done(&answer), "{answer}");
    write(&mut boot.attach(server, 1));
}

#[test]
fn a_boot_number_that_comes_again_brings_no_earlier_writes() {
    let server = Server::start();
    let before = Boot { number: 5, byte: 1 };
    assert!(is_done(&before.put(&server, "discard")));
    let mut machine = before.attach(&server, 1);
    write(&mut machine);
    // The database was lost, and counts from one again.
    let after = Boot { number: 5, byte: 2 };
    let answer = after.put(&server, "discard");
    assert!(answer.contains("\"candidate\":5"), "{answer}");
    assert_eq!(first_byte(&mut machine), 0xaa, "a boot that has proven nothing took its disk");
    drop(machine);
    assert_eq!(first_byte(&mut after.attach(&server, 1)), 0x11);
    let exports = server.exports();
    assert!(exports.contains(&format!("\"identity\":\"{}\"", "02".repeat(16))), "{exports}");

    // The same over a restart.
    write(&mut after.attach(&server, 2));
    let server = server.restart();
    assert_eq!(first_byte(&mut after.attach(&server, 3)), 0xaa, "it is the same boot");
    let again = Boot { number: 5, byte: 3 };
    assert!(is_done(&again.put(&server, "discard")));
    assert_eq!(first_byte(&mut again.attach(&server, 1)), 0x11);
}

#[test]
fn the_boot_server_admits_one_of_two_boots_with_the_same_number() {
    let server = Server::start();
    let [first, second] = [1, 2].map(|byte| Boot { number: 5, byte });
    assert!(is_done(&first.put(&server, "discard")) && is_done(&second.put(&server, "discard")));
    let admit = |byte: &str| {
        let body = format!("{{\"boot\":5,\"identity\":\"{}\"}}", byte.repeat(16));
        server.ask("POST", "/v1/exports/lab-01/admit", &body)
    };
    assert!(admit("03").starts_with("HTTP/1.1 404"), "{}", admit("03"));
    let answer = admit("02");
    assert!(is_done(&answer) && answer.contains(&"02".repeat(16)), "{answer}");
}

#[test]
fn a_disk_that_is_not_mounted_is_not_taken_for_a_new_one() {
    let server = Server::start();
    use_disk(&server, Boot { number: 1, byte: 1 });
    let (layers, away) = (server.folder().join("layers"), server.folder().join("away"));
    let server = server.restart_after(|_| fs::rename(&layers, &away).unwrap());
    // Neither after the restart nor for the next boot is one made.
    let next = Boot { number: 2, byte: 2 };
    let answer = next.put(&server, "persistent");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("not mounted"), "{answer}");
    assert!(server.exports().ends_with("[]") && !layers.join("lab-01").exists());
    let told = server.ask("GET", "/v1/disks", "");
    assert!(told.contains("\"machine\":\"lab-01\"") && told.contains("not mounted"), "{told}");
    // Nor is a new one begun on the disk below it, which would be gone as soon as it is mounted.
    for write_mode in ["discard", "persistent"] {
        let answer = put_lab_02(&server, write_mode);
        assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("not mounted"), "{answer}");
    }
    assert_eq!(machines_in(&layers), 0);
    let told = |server: &Server| server.ask("GET", "/v1/place", "");
    assert!(told(&server).contains("is not the folder in which"), "{}", told(&server));
    // Machines that need none go on, and what they do forgets nothing.
    assert!(is_done(&put_lab_02(&server, "ram")));

    fs::remove_dir_all(&layers).unwrap();
    fs::rename(&away, &layers).unwrap();
    assert!(told(&server).ends_with("null"), "{}", told(&server));
    let before = Boot { number: 1, byte: 1 };
    assert_eq!(first_byte(&mut before.attach(&server, 2)), 0xaa, "the machine that ran goes on");
    assert!(is_done(&next.put(&server, "persistent")));
    assert_eq!(first_byte(&mut next.attach(&server, 1)), 0xaa);
}

#[test]
fn a_damaged_disk_is_told_before_its_machine_asks_for_it() {
    let server = Server::start();
    use_disk(&server, Boot { number: 1, byte: 1 });
    let disk = server.folder().join("layers/lab-01");
    let told = || server.ask("GET", "/v1/disks", "");
    assert!(told().contains("\"trouble\":null"), "{}", told());
    for (file, expected) in [("data", "bytes instead of"), ("map", "damaged")] {
        let path = disk.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        if file == "map" {
            fs::write(&path, vec![0x55; whole.len()]).unwrap();
        }
        let told = told();
        assert!(told.contains("damaged") && told.contains(expected), "{file}: {told}");
        fs::remove_file(&path).unwrap();
        assert!(server.ask("GET", "/v1/disks", "").contains("it is missing"), "{file}");
        fs::write(&path, whole).unwrap();
    }
    assert!(told().contains("\"trouble\":null"), "{}", told());
}

fn put_lab_02(server: &Server, write_mode: &str) -> String {
    let spec = spec("lab-02", "nbd", "127.0.0.2", "52:54:00:00:00:02", 1, write_mode);
    server.ask("PUT", "/v1/exports/lab-02", &spec)
}

/// How many layers are in the folder.
fn machines_in(layers: &Path) -> usize {
    let names = fs::read_dir(layers).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.as_encoded_bytes().first() != Some(&b'.')).count()
}

#[test]
fn machines_that_forget_write_only_where_they_did_before() {
    let server = Server::start();
    let boot = Boot { number: 1, byte: 1 };
    assert!(is_done(&boot.put(&server, "discard")));
    write(&mut boot.attach(&server, 1));
    let (layers, away) = (server.folder().join("layers"), server.folder().join("away"));
    let server = server.restart_after(|_| fs::rename(&layers, &away).unwrap());
    let next = Boot { number: 2, byte: 2 };
    let answer = next.put(&server, "discard");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("not mounted"), "{answer}");
    assert_eq!(machines_in(&layers), 0);

    fs::remove_dir_all(&layers).unwrap();
    fs::rename(&away, &layers).unwrap();
    assert_eq!(first_byte(&mut boot.attach(&server, 2)), 0xaa, "the machine that ran goes on");
    assert!(is_done(&next.put(&server, "discard")));
    assert_eq!(first_byte(&mut next.attach(&server, 1)), 0x11);

    // The way out that is told, if the folder is another one for good.
    let server = server.restart_after(|_| fs::remove_dir_all(&layers).unwrap());
    let last = Boot { number: 3, byte: 3 };
    let answer = last.put(&server, "discard");
    assert!(answer.contains("remove") && answer.contains("layers.was-here"), "{answer}");
    fs::remove_file(server.folder().join("layers.was-here")).unwrap();
    assert!(is_done(&last.put(&server, "discard")), "at once");
}

#[test]
fn a_folder_without_the_disks_that_are_known_is_none_to_begin_in() {
    let server = Server::start();
    use_disk(&server, Boot { number: 1, byte: 1 });
    let server = server.restart_after(|server| {
        // As an earlier release leaves it.
        fs::remove_file(server.folder().join("layers.was-here")).unwrap();
        fs::remove_dir_all(server.folder().join("layers")).unwrap();
    });
    let answer = put_lab_02(&server, "discard");
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(!server.folder().join("layers.was-here").exists());
}

#[test]
fn whichever_memory_of_a_disk_is_left_it_is_not_made_anew() {
    let refused = |forget: &[&str], extra: &str| {
        let server = Server::start();
        use_disk(&server, Boot { number: 1, byte: 1 });
        let server = server.restart_after(|server| {
            fs::remove_dir_all(server.folder().join("layers")).unwrap();
            for name in forget {
                fs::remove_file(server.folder().join(name)).unwrap();
            }
        });
        let answer = put(&server, &Boot { number: 2, byte: 2 }.order("persistent", extra));
        assert!(answer.starts_with("HTTP/1.1 409"), "{forget:?}: {answer}");
        // The way out that it names.
        let answer =
            put(&server, &Boot { number: 3, byte: 3 }.order("persistent", "\"reset\":true,"));
        assert!(is_done(&answer), "{answer}");
        assert_eq!(first_byte(&mut Boot { number: 3, byte: 3 }.attach(&server, 1)), 0x11);
    };
    refused(&[], "");
    refused(&["exports.toml", "exports-keys.toml"], "");
    let all = ["exports.toml", "exports-keys.toml", "kept-disks.toml"];
    refused(&all, "\"has_disk\":true,");
}

#[test]
fn disks_are_remembered_again_where_only_they_are_left() {
    let server = Server::start();
    use_disk(&server, Boot { number: 1, byte: 1 });
    let server = server.restart_after(|server| {
        for name in ["exports.toml", "exports-keys.toml", "kept-disks.toml"] {
            fs::remove_file(server.folder().join(name)).unwrap();
        }
    });
    let told = server.ask("GET", "/v1/disks", "");
    assert!(told.contains("\"machine\":\"lab-01\"") && told.contains("\"trouble\":null"), "{told}");
    let server = server.restart_after(|server| {
        fs::remove_dir_all(server.folder().join("layers")).unwrap();
    });
    let answer = Boot { number: 1, byte: 2 }.put(&server, "persistent");
    assert!(answer.contains("not mounted"), "{answer}");
}

#[test]
fn a_machine_that_ran_gets_its_disk_when_its_image_is_there_again() {
    let server = Server::start();
    let boot = Boot { number: 1, byte: 1 };
    assert!(is_done(&boot.put(&server, "discard")));
    write(&mut boot.attach(&server, 1));
    let (images, away) = (server.folder().join("images"), server.folder().join("away"));
    let server = server.restart_after(|_| fs::rename(&images, &away).unwrap());
    server.ask("DELETE", "/v1/disks/lab-02", "");
    fs::remove_dir_all(&images).unwrap();
    fs::rename(&away, &images).unwrap();
    assert_eq!(first_byte(&mut boot.attach(&server, 2)), 0xaa);
}

#[test]
fn a_machine_that_is_gone_keeps_its_disk_and_not_its_address() {
    let server = Server::start();
    let gone = Boot { number: 1, byte: 1 };
    use_disk(&server, gone);
    // A database that was restored gives its address to another machine.
    let other = spec("lab-02", "aoe", "127.0.0.2", CLIENT_MAC, 2, "discard");
    let other = other.replace("\"1.2\"", "\"1.1\"");
    let asked = |server: &Server| server.ask("PUT", "/v1/exports/lab-02", &other);
    let deadline = Instant::now() + Duration::from_secs(40);
    while !is_done(&asked(&server)) {
        assert!(asked(&server).contains("still in use by lab-01"), "{}", asked(&server));
        assert!(Instant::now() < deadline, "{}", asked(&server));
        std::thread::sleep(Duration::from_millis(200));
    }
    let server = server.restart();
    let exports = server.exports();
    assert!(exports.contains("lab-02") && !exports.contains("lab-01"), "{exports}");
    let told = server.ask("GET", "/v1/disks/lab-01", "");
    assert!(told.contains("debian-12"), "its disk is gone: {told}");
}

#[test]
fn a_machine_whose_layer_was_moved_away_is_known_to_have_lost_writes_until_it_boots_again() {
    let server = Server::start();
    let boot = Boot { number: 1, byte: 1 };
    assert!(is_done(&boot.put(&server, "persistent")));
    let mut machine = boot.attach(&server, 1);
    write(&mut machine);
    assert!(server.exports().contains("\"has_lost_writes\":false"));
    let (layer, away) = (server.folder().join("layers/lab-01"), server.folder().join("away"));
    fs::rename(&layer, &away).unwrap();
    crate::server::flush_fails(&mut machine);
    assert!(server.exports().contains("\"has_lost_writes\":true"), "{}", server.exports());
    drop(machine);
    fs::rename(&away, &layer).unwrap();
    let next = Boot { number: 2, byte: 2 };
    assert!(is_done(&next.put(&server, "persistent")));
    assert_eq!(first_byte(&mut next.attach(&server, 1)), 0xaa);
    assert!(server.exports().contains("\"has_lost_writes\":false"));
}

#[test]
fn a_disk_that_is_not_mounted_is_not_said_to_be_deleted() {
    let server = Server::start();
    use_disk(&server, Boot { number: 1, byte: 1 });
    let (layers, away) = (server.folder().join("layers"), server.folder().join("away"));
    let server = server.restart_after(|_| fs::rename(&layers, &away).unwrap());
    let answer = server.ask("DELETE", "/v1/disks/lab-01", "");
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("not mounted"), "{answer}");
    let server = server.restart_after(|_| {
        fs::remove_dir_all(&layers).unwrap();
        fs::rename(&away, &layers).unwrap();
    });
    assert!(server.ask("DELETE", "/v1/disks/lab-01", "").starts_with("HTTP/1.1 204"));
    assert!(!layers.join("lab-01").exists());
}
