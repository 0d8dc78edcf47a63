//! A disk that is kept belongs to the machine that wrote it, and not to another one that gets its name.

use crate::lost::{Boot, is_done};
use crate::server::{Server, first_byte, spec, write};
use std::fs;

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const C: &str = "52:54:00:00:00:0c";

/// A machine lab-01: its identity consists of this byte, and it boots from the first of these NICs.
#[derive(Clone, Copy)]
struct Machine<'a>(u8, &'a [&'a str]);

/// What the server answers to the machine's boot with its own disk.
fn ask(server: &Server, Machine(identity, macs): Machine<'_>, boot: Boot, extra: &str) -> String {
    let spec = spec("lab-01", "nbd", "127.0.0.1", macs[0], boot.number, "persistent");
    let [key, of_boot] = [32, 16].map(|n| format!("{:02x}", boot.byte).repeat(n));
    let (identity, macs) = (format!("{identity:02x}").repeat(16), macs.join("\",\""));
    let order = format!(
        "{{{extra}\"key\":\"{key}\",\"identity\":\"{of_boot}\",\"owner\":{{\"identity\":\"{identity}\",\"macs\":[\"{macs}\"]}},"
    );
    server.ask("PUT", "/v1/exports/lab-01", &spec.replacen('{', &order, 1))
}

/// The machine boots, and gets a disk that begins so.
#[track_caller]
fn gets(server: &Server, machine: Machine<'_>, number: u64, first: u8) {
    let boot = Boot { number, byte: number as u8 };
    let answer = ask(server, machine, boot, "");
    assert!(is_done(&answer), "{answer}");
    assert_eq!(first_byte(&mut boot.attach(server, 1)), first);
}

/// A server on which a machine of that name, with the NIC B, has written to its disk in boot 1.
fn server_with_the_disk_of_b() -> Server {
    let server = Server::start();
    let boot = Boot { number: 1, byte: 1 };
    assert!(is_done(&ask(&server, Machine(0x0b, &[B]), boot, "")));
    write(&mut boot.attach(&server, 1));
    server
}

#[test]
fn a_restored_machine_does_not_get_the_disk_of_its_successor() {
    let boot = Boot { number: 2, byte: 2 };
    let a = Machine(0x0a, &[A]);
    for begin in [
        server_with_the_disk_of_b as fn() -> Server,
        // Its export comes back; or it is known from its disk only.
        || server_with_the_disk_of_b().restart(),
        || {
            server_with_the_disk_of_b().restart_after(|server| {
                fs::remove_file(server.folder().join("exports.toml")).unwrap();
                fs::remove_file(server.folder().join("exports-keys.toml")).unwrap();
            })
        },
    ] {
        let server = begin();
        let answer = ask(&server, a, boot, "");
        assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        for word in [
            "is of another machine that had this name",
            "0b, identity 0b0b0b0b",
            "0a, identity 0a0a0a0a",
            "layers/lab-01/take-over",
            "bootlace machine reset lab-01",
        ] {
            assert!(answer.contains(word), "{word}: {answer}");
        }
        assert!(boot.try_attach(&server, 1).is_err(), "nor does it get it by its proof");
        let told = server.ask("GET", "/v1/disks", "");
        assert!(told.contains(&"0b".repeat(16)) && told.contains(B), "{told}");
        gets(&server, Machine(0x0b, &[B]), 3, 0xaa);
    }
}

#[test]
fn a_restored_machine_begins_with_a_new_disk_after_a_reset() {
    let server = server_with_the_disk_of_b();
    let boot = Boot { number: 2, byte: 2 };
    let answer = ask(&server, Machine(0x0a, &[A]), boot, "\"reset\":true,");
    assert!(is_done(&answer), "{answer}");
    assert_eq!(first_byte(&mut boot.attach(&server, 1)), 0x11);
    gets(&server, Machine(0x0a, &[C]), 3, 0x11);
    assert!(!is_done(&ask(&server, Machine(0x0b, &[B]), Boot { number: 4, byte: 4 }, "")));
}

#[test]
fn a_machine_keeps_its_disk_with_another_nic_and_after_its_database_was_lost() {
    let server = server_with_the_disk_of_b();
    gets(&server, Machine(0x0b, &[C, A]), 2, 0xaa);
    // It is added to an empty database, as it boots from its second NIC.
    gets(&server, Machine(0x0d, &[A]), 3, 0xaa);
    // What it had before does not count any more: that NIC may be in another PC now.
    assert!(!is_done(&ask(&server, Machine(0x0e, &[C]), Boot { number: 4, byte: 4 }, "")));
    gets(&server, Machine(0x0d, &[C]), 5, 0xaa);
}

#[test]
fn another_machine_gets_the_disk_if_a_person_says_so() {
    let server = server_with_the_disk_of_b();
    let word = server.folder().join("layers/lab-01/take-over");
    fs::write(&word, "").unwrap();
    gets(&server, Machine(0x0a, &[A]), 2, 0xaa);
    assert!(!word.exists(), "it counts once");
    assert!(!is_done(&ask(&server, Machine(0x0b, &[B]), Boot { number: 3, byte: 3 }, "")));
}

#[test]
fn a_disk_of_an_earlier_release_is_its_machines_and_so_is_one_that_an_earlier_boot_server_asks_for()
{
    let server = Server::start();
    let earlier = Boot { number: 1, byte: 1 };
    assert!(is_done(&earlier.put(&server, "persistent")));
    write(&mut earlier.attach(&server, 1));
    let owner = server.folder().join("layers/lab-01/owner.toml");
    assert!(!owner.exists());
    gets(&server, Machine(0x0a, &[A]), 2, 0xaa);
    assert!(owner.exists());
    assert!(!is_done(&ask(&server, Machine(0x0b, &[B]), Boot { number: 3, byte: 3 }, "")));
    let again = Boot { number: 4, byte: 4 };
    assert!(is_done(&again.put(&server, "persistent")));
    assert_eq!(first_byte(&mut again.attach(&server, 1)), 0xaa);
    // What was cut off in between is not known, and not given.
    fs::write(&owner, "identity = \"0a\"\n").unwrap();
    let answer = ask(&server, Machine(0x0a, &[A]), Boot { number: 5, byte: 5 }, "");
    assert!(answer.contains("owner.toml"), "{answer}");
}

/// What the server answers to a deletion of what was the disk of this machine.
fn delete(server: &Server, Machine(identity, macs): Machine<'_>, extra: &str) -> String {
    let (identity, macs) = (format!("{identity:02x}").repeat(16), macs.join("\",\""));
    let meant =
        format!("{{{extra}\"owner\":{{\"identity\":\"{identity}\",\"macs\":[\"{macs}\"]}}}}");
    server.ask("POST", "/v1/disks/lab-01/delete", &meant)
}

fn has_layer(server: &Server) -> bool {
    server.layers().contains(&"lab-01".to_owned())
}

#[test]
fn a_deletion_hits_the_disk_of_the_machine_that_was_removed_and_no_other() {
    let server = server_with_the_disk_of_b();
    // Another machine; and one that is the same PC, but was added later.
    for of in [Machine(0x0a, &[A]), Machine(0x0e, &[B])] {
        let answer = delete(&server, of, "");
        assert!(answer.starts_with("HTTP/1.1 412"), "{answer}");
        assert!(answer.contains("is left alone"), "{answer}");
    }
    let answer = delete(&server, Machine(0x0b, &[B]), "\"id\":\"of another day\",");
    assert!(answer.starts_with("HTTP/1.1 412"), "{answer}");
    gets(&server, Machine(0x0b, &[B]), 2, 0xaa);
    let answer = delete(&server, Machine(0x0b, &[C]), "");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert!(!has_layer(&server));
    let answer = delete(&server, Machine(0x0b, &[C]), "\"must_be_known\":true,");
    assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
}

#[test]
fn a_deletion_waits_for_the_folder_with_the_disks() {
    let server = server_with_the_disk_of_b();
    let (layers, away) = (server.folder().join("layers"), server.folder().join("away"));
    let server = server.restart_after(|_| fs::rename(&layers, &away).unwrap());
    let is_told = |answer: &str| answer.contains("is not the folder in which machines' disks were");
    for answer in [
        delete(&server, Machine(0x0b, &[B]), "\"must_be_known\":true,"),
        server.ask("GET", "/v1/disks/lab-01", ""),
    ] {
        assert!(answer.starts_with("HTTP/1.1 409") && is_told(&answer), "{answer}");
    }
    let server = server.restart_after(|_| {
        fs::remove_dir_all(&layers).unwrap();
        fs::rename(&away, &layers).unwrap();
    });
    // What stands in the place of its mark makes nobody wait.
    let (mark, aside) = (layers.join(".layers-mark"), layers.join(".aside"));
    fs::rename(&mark, &aside).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&mark).status().unwrap().success());
    let answer = delete(&server, Machine(0x0b, &[B]), "");
    assert!(answer.contains("it is a pipe, and not a file") && has_layer(&server), "{answer}");
    fs::rename(&aside, &mark).unwrap();
    let answer = delete(&server, Machine(0x0b, &[B]), "\"must_be_known\":true,");
    assert!(answer.starts_with("HTTP/1.1 204") && !has_layer(&server), "{answer}");
}

#[test]
fn a_reset_hits_the_disk_that_it_means() {
    let server = server_with_the_disk_of_b();
    let told = server.ask("GET", "/v1/disks/lab-01", "");
    let id = told.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let a = Machine(0x0a, &[A]);
    let owner = format!("\"owner\":{{\"identity\":\"{}\",\"macs\":[\"{A}\"]}}", "0a".repeat(16));
    // It was given when nobody knew the disk that is there now.
    for meant in [owner, "\"id\":\"of another day\"".to_owned()] {
        let order = format!("\"reset\":true,\"reset_of\":{{{meant}}},");
        let answer = ask(&server, a, Boot { number: 2, byte: 2 }, &order);
        assert!(answer.starts_with("HTTP/1.1 412"), "{answer}");
    }
    gets(&server, Machine(0x0b, &[B]), 3, 0xaa);
    // This one is what a person wants who has been told whose it is.
    let order = format!("\"reset\":true,\"reset_of\":{{\"id\":\"{id}\"}},");
    let boot = Boot { number: 4, byte: 4 };
    assert!(is_done(&ask(&server, a, boot, &order)));
    assert_eq!(first_byte(&mut boot.attach(&server, 1)), 0x11);
}

#[test]
fn what_does_not_say_whose_a_disk_is_holds_nobody_else_and_gives_it_to_nobody() {
    let server = server_with_the_disk_of_b();
    let folder = server.folder().join("layers/lab-01");
    let owner = folder.join("owner.toml");
    let b = Machine(0x0b, &[B]);
    let make_pipe = || {
        let made = std::process::Command::new("mkfifo").arg(&owner).status().unwrap();
        assert!(made.success());
    };
    let number = std::cell::Cell::new(1);
    let next = || {
        number.set(number.get() + 1);
        number.get()
    };
    let make: [&dyn Fn(); 5] = [
        &make_pipe,
        &|| fs::create_dir(&owner).unwrap(),
        &|| std::os::unix::fs::symlink("/dev/zero", &owner).unwrap(),
        &|| fs::write(&owner, "").unwrap(),
        &|| fs::write(&owner, "identity\n").unwrap(),
    ];
    for make in make {
        fs::remove_file(&owner).unwrap();
        make();
        let number = next();
        let answer = ask(&server, b, Boot { number, byte: number as u8 }, "");
        assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        for word in ["whose the persistent disk of lab-01 is can't be read", "lab-01/take-over"] {
            assert!(answer.contains(word), "{word}: {answer}");
        }
        assert!(!answer.contains("damaged") && !answer.contains("os error"), "{answer}");
        let told = server.ask("GET", "/v1/disks", "");
        assert!(told.contains("whose the persistent disk of lab-01 is can't be read"), "{told}");
        let answer = delete(&server, b, "");
        assert!(answer.contains("can't be read") && has_layer(&server), "{answer}");
        server.prepare("lab-02", "127.0.0.1", number, "persistent");
        // A person says whose it is.
        fs::write(folder.join("take-over"), "").unwrap();
        let told = server.ask("GET", "/v1/disks", "");
        assert!(told.contains("\"is_taken_over\":true") && !told.contains("can't be"), "{told}");
        gets(&server, b, next(), 0xaa);
        assert!(owner.metadata().unwrap().is_file() && !folder.join("take-over").exists());
    }
}
