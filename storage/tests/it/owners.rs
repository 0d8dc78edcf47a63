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
