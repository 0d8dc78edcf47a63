//! Copies of the layers: a machine gets the one that it had last, and never an older one without a person's word.

use crate::lost::{Boot, is_done};
use crate::server::{Server, first_byte, write};
use std::fs;
use std::path::Path;
use std::process::Command;

const FIRST: Boot = Boot { number: 1, byte: 1 };
const NEXT: Boot = Boot { number: 2, byte: 2 };

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// The folder of the layers and the other one change places.
fn exchange(server: &Server) {
    let at = |name: &str| server.folder().join(name);
    fs::rename(at("layers"), at("between")).unwrap();
    fs::rename(at("other"), at("layers")).unwrap();
    fs::rename(at("between"), at("other")).unwrap();
}

/// A machine that has written what an older copy of its layer, in the folder `other`, does not have; that copy is below
/// the mounted one, as it were, and now in its place.
fn server_with_an_older_copy(write_mode: &str) -> Server {
    let server = Server::start();
    assert!(is_done(&FIRST.put(&server, write_mode)));
    assert_eq!(first_byte(&mut FIRST.attach(&server, 1)), 0x11);
    let server = server.restart_after(|server| {
        copy(&server.folder().join("layers"), &server.folder().join("other"));
    });
    write(&mut FIRST.attach(&server, 2));
    server.restart_after(exchange)
}

/// What the server says when it refuses.
fn refused(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    for word in ["not the one that it had last", "probably not mounted", "boot 1, reopened 1 time"]
    {
        assert!(answer.contains(word), "{word}: {answer}");
    }
    answer
}

#[test]
fn an_older_copy_of_a_disk_that_is_kept_is_given_to_nobody() {
    let server = server_with_an_older_copy("persistent");
    assert!(FIRST.try_attach(&server, 3).is_err(), "the machine that ran would lose its files");
    assert!(server.exports().ends_with("[]"));
    let answer = NEXT.put(&server, "persistent");
    assert!(refused(&answer).contains("layers/lab-01/put-back"), "{answer}");
    let told = server.ask("GET", "/v1/disks", "");
    assert!(told.contains("the persistent disk of lab-01") && told.contains("put-back"), "{told}");
    let look = || {
        let (table, layers) =
            (server.folder().join("exports.toml"), server.folder().join("layers"));
        let kept = storage::kept_disks(&table, &layers, &[]).unwrap();
        (kept.n_there, kept.missing.len(), kept.older.len())
    };
    assert_eq!(look(), (0, 0, 1));
    fs::write(server.folder().join("layers/lab-01/put-back"), "").unwrap();
    assert_eq!(look(), (1, 0, 0), "a person says that it is to be taken");
    fs::remove_file(server.folder().join("layers/lab-01/put-back")).unwrap();

    // It is mounted, and both go on by themselves.
    exchange(&server);
    assert_eq!(look(), (1, 0, 0));
    assert_eq!(first_byte(&mut FIRST.attach(&server, 3)), 0xaa);
    assert!(is_done(&NEXT.put(&server, "persistent")));
    assert_eq!(first_byte(&mut NEXT.attach(&server, 1)), 0xaa);
    let told = server.ask("GET", "/v1/disks", "");
    assert!(told.contains("\"trouble\":null"), "{told}");
}

#[test]
fn an_older_copy_of_what_a_machine_that_runs_has_written_is_not_given_to_it() {
    let server = server_with_an_older_copy("discard");
    assert!(FIRST.try_attach(&server, 3).is_err());
    exchange(&server);
    assert_eq!(first_byte(&mut FIRST.attach(&server, 3)), 0xaa);
    // Its next boot has a new one in any case.
    let server = server.restart_after(exchange);
    assert!(FIRST.try_attach(&server, 4).is_err());
    assert!(is_done(&NEXT.put(&server, "discard")));
    assert_eq!(first_byte(&mut NEXT.attach(&server, 1)), 0x11);
}

#[test]
fn a_disk_that_was_reset_meanwhile_does_not_come_back() {
    let server = Server::start();
    assert!(is_done(&FIRST.put(&server, "persistent")));
    write(&mut FIRST.attach(&server, 1));
    let server = server.restart_after(|server| {
        copy(&server.folder().join("layers"), &server.folder().join("other"));
    });
    assert!(server.ask("DELETE", "/v1/disks/lab-01", "").starts_with("HTTP/1.1 204"));
    assert!(is_done(&NEXT.put(&server, "persistent")));
    assert_eq!(first_byte(&mut NEXT.attach(&server, 1)), 0x11);
    let server = server.restart_after(exchange);
    assert!(NEXT.try_attach(&server, 2).is_err());
    let last = Boot { number: 3, byte: 3 };
    let answer = last.put(&server, "persistent");
    assert!(answer.contains("boot 2, reopened 0 times"), "{answer}");
    // A reset begins a new one here, too.
    assert!(server.ask("DELETE", "/v1/disks/lab-01", "").starts_with("HTTP/1.1 204"));
    assert!(is_done(&last.put(&server, "persistent")));
    assert_eq!(first_byte(&mut last.attach(&server, 1)), 0x11);
}

#[test]
fn an_older_copy_that_was_put_back_on_purpose_is_taken_and_the_other_one_is_the_older_then() {
    let server = server_with_an_older_copy("persistent");
    refused(&NEXT.put(&server, "persistent"));
    let word = server.folder().join("layers/lab-01/put-back");
    fs::write(&word, "").unwrap();
    let server = server.restart();
    assert!(FIRST.try_attach(&server, 3).is_err() && word.exists(), "it is for its next boot");
    assert!(is_done(&NEXT.put(&server, "persistent")));
    assert!(!word.exists());
    assert_eq!(first_byte(&mut NEXT.attach(&server, 1)), 0x11);
    let server = server.restart();
    assert_eq!(first_byte(&mut NEXT.attach(&server, 2)), 0x11, "it counts once");
    let server = server.restart_after(exchange);
    assert!(NEXT.try_attach(&server, 3).is_err());
}

#[test]
fn a_copy_that_is_moved_to_another_disk_and_whatever_a_crash_or_an_earlier_release_leaves_is_taken()
{
    let taken = |change: &dyn Fn(&Server)| {
        let server = Server::start();
        assert!(is_done(&FIRST.put(&server, "persistent")));
        write(&mut FIRST.attach(&server, 1));
        // The note as it is before a layer is opened again, which raises its count.
        let note = server.folder().join("kept-disks.toml");
        let before = server.folder().join("before.toml");
        fs::copy(&note, &before).unwrap();
        let server = server.restart().restart_after(change);
        assert_eq!(first_byte(&mut FIRST.attach(&server, 2)), 0xaa);
        assert!(is_done(&NEXT.put(&server, "persistent")));
    };
    let at = |server: &Server, name: &str| server.folder().join(name);
    taken(&|server| {
        copy(&at(server, "layers"), &at(server, "other"));
        exchange(server);
    });
    taken(&|server| fs::rename(at(server, "before.toml"), at(server, "kept-disks.toml")).unwrap());
    taken(&|server| {
        fs::write(at(server, "kept-disks.toml"), "machine = [\"lab-01\"]\n").unwrap();
        fs::remove_file(at(server, "layers/lab-01/last-use.toml")).unwrap();
    });
    taken(&|server| fs::remove_file(at(server, "kept-disks.toml")).unwrap());
}
