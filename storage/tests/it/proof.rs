//! A machine's disk is for who proves to be the machine in its last boot, and only when the former one is silent.

use crate::lan::{self, CLIENT, CLIENT_MAC, Initiator, SERVER};
use crate::server::{Server, first_byte, negotiate, spec, write};
use crate::{run, succeed};
use model::{Claim, DiskKey, DiskName, Nonce};
use nbd::client::HandshakeError;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The machine of these tests in one of its boots.
#[derive(Clone, Copy)]
struct Boot {
    number: u64,
    key: DiskKey,
}

const fn boot(number: u64) -> Boot {
    Boot { number, key: DiskKey::new([number as u8; 32]) }
}

impl Boot {
    /// What it opens, after the server has said this.
    fn name(&self, generation: u32, said: Option<&str>) -> String {
        let nonce = Nonce::of_challenge(said.unwrap()).unwrap();
        let proof = self.key.prove(&nonce, "lab-01", self.number, generation);
        let claim = Some(Claim { boot: self.number, proof });
        DiskName { machine: "lab-01", generation, claim }.to_string()
    }

    fn try_over(
        &self,
        mut stream: TcpStream,
        generation: u32,
    ) -> Result<TcpStream, HandshakeError> {
        negotiate(&mut stream, |said| self.name(generation, said)).map(|()| stream)
    }

    fn attach(&self, server: &Server, generation: u32) -> TcpStream {
        self.try_over(server.connect(), generation).unwrap()
    }

    /// Why it does not get the disk.
    fn refusal(&self, server: &Server, generation: u32) -> String {
        self.try_over(server.connect(), generation).unwrap_err().to_string()
    }

    fn order(&self, write_mode: &str, extra: &str) -> String {
        let (number, key) = (self.number, self.key.to_hex());
        let spec = spec("lab-01", "nbd", "127.0.0.1", CLIENT_MAC, number, write_mode);
        spec.replacen('{', &format!("{{\"key\":\"{key}\",{extra}"), 1)
    }

    /// The boot server asks for its disk.
    fn put(&self, server: &Server, write_mode: &str) -> String {
        put(server, &self.order(write_mode, ""))
    }
}

fn put(server: &Server, order: &str) -> String {
    let answer = server.ask("PUT", "/v1/exports/lab-01", order);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// What everybody hears who is not the machine.
const REFUSED: &str = "the disk is not given";

fn is_alive(stream: &mut TcpStream) -> bool {
    let read = [&0x2560_9513u32.to_be_bytes()[..], &[0; 20], &512u32.to_be_bytes()].concat();
    stream.write_all(&read).is_ok() && stream.read_exact(&mut [0; 16 + 512]).is_ok()
}

fn say_goodbye(mut stream: TcpStream) {
    let disconnect = [&0x2560_9513u32.to_be_bytes()[..], &[0, 0, 0, 2], &[0; 20]].concat();
    stream.write_all(&disconnect).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

/// The text that answers INFO for a name, without the nonce, which no two of these share.
fn asked(server: &Server, name: &str) -> String {
    let info = [&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &[0, 0]].concat();
    let option = |number: u32, data: &[u8]| {
        [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
    };
    let mut stream = server.connect();
    let flags = 3u32.to_be_bytes();
    stream
        .write_all(&[&flags[..], &option(6, &info), &option(3, b""), &option(2, b"")].concat())
        .unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    let (before, nonce) = said.split_once("; challenge ").unwrap();
    before.to_owned() + &nonce[64..]
}

#[test]
fn who_asks_learns_nothing_and_who_proves_nothing_gets_nothing() {
    let server = Server::start();
    boot(1).put(&server, "discard");
    assert_eq!(asked(&server, "lab-01"), asked(&server, "lab-09"), "and nothing is listed");
    let mut machine = boot(1).attach(&server, 1);
    let wrong = [
        "lab-01".to_owned(),
        "lab-01?g=4294967295".to_owned(),
        "lab-09".to_owned(),
        format!("lab-01?boot=1&g=9&proof={}", "00".repeat(32)),
        format!("lab-01?boot=2&g=9&proof={}", "00".repeat(32)),
        format!("lab-09?boot=1&g=9&proof={}", "00".repeat(32)),
        "lab-01?boot=1&g=9&proof=00".to_owned(),
        String::new(),
    ];
    let texts: Vec<String> = wrong
        .iter()
        .map(|name| negotiate(&mut server.connect(), |_| name.clone()).unwrap_err().to_string())
        .collect();
    assert!(texts[0].contains(REFUSED) && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let mut other = boot(2);
    other.number = 1;
    assert!(other.refusal(&server, 9).contains(REFUSED), "with another boot's key");
    assert!(is_alive(&mut machine), "an attempt has cut the machine's connection");
    let mut next = boot(1).attach(&server, 2);
    assert!(is_alive(&mut next) && !is_alive(&mut machine), "it goes on with its next number");
    assert!(server.exports().contains("\"refused\":5,"), "{}", server.exports());
    assert!(!run("nbdinfo", &[&server.uri("lab-01")]).status.success());
    // The old way has no room for a proof; and nothing is asked before.
    let mut old = server.connect();
    let name = RefCell::new(String::new());
    old.write_all(
        &[&3u32.to_be_bytes()[..], b"IHAVEOPT\0\0\0\x06\0\0\0\x0c\0\0\0\x06lab-01\0\0"].concat(),
    )
    .unwrap();
    let mut said = vec![0; 18 + 20];
    old.read_exact(&mut said).unwrap();
    let length = u32::from_be_bytes([said[34], said[35], said[36], said[37]]);
    let mut text = vec![0; length as usize];
    old.read_exact(&mut text).unwrap();
    name.replace(boot(1).name(9, Some(&String::from_utf8(text).unwrap())));
    let name = name.into_inner();
    let option = [b"IHAVEOPT\0\0\0\x01", &(name.len() as u32).to_be_bytes()[..], name.as_bytes()];
    old.write_all(&option.concat()).unwrap();
    let mut rest = Vec::new();
    assert_eq!(old.read_to_end(&mut rest).unwrap_or(0), 0, "EXPORT_NAME opens it");
}

#[test]
fn a_proof_is_good_once_and_on_its_own_connection() {
    let server = Server::start();
    boot(1).put(&server, "discard");
    let captured = RefCell::new(String::new());
    let mut machine = server.connect();
    negotiate(&mut machine, |said| {
        captured.replace(boot(1).name(5, said));
        captured.borrow().clone()
    })
    .unwrap();
    let replayed = negotiate(&mut server.connect(), |_| captured.borrow().clone());
    assert!(replayed.unwrap_err().to_string().contains(REFUSED));
    for generation in [5, 4, 0] {
        let text = boot(1).refusal(&server, generation);
        assert!(text.contains("a newer connection"), "{text}");
    }
    assert!(is_alive(&mut machine));

    // After a restart the server has forgotten which generations there were, but its nonces are new.
    let server = server.restart();
    let replay = |server: &Server| negotiate(&mut server.connect(), |_| captured.borrow().clone());
    assert!(replay(&server).unwrap_err().to_string().contains(REFUSED), "before the machine");
    let mut machine = boot(1).attach(&server, 6);
    assert!(replay(&server).unwrap_err().to_string().contains(REFUSED), "and after it");
    assert!(is_alive(&mut machine), "a replayed handshake has cut the machine's connection");
}

#[test]
fn the_key_outlives_the_server_and_is_shown_to_nobody() {
    let server = Server::start();
    boot(1).put(&server, "persistent");
    boot(2).put(&server, "persistent");
    let keys = [1, 2].map(|number| boot(number).key.to_hex());
    let mode = |name: &str| {
        let data = std::fs::metadata(server.folder().join(name)).unwrap();
        data.permissions().mode() & 0o777
    };
    assert_eq!((mode("exports.toml"), mode("exports-keys.toml")), (0o600, 0o600));
    let shown =
        server.exports() + &std::fs::read_to_string(server.folder().join("exports.toml")).unwrap();
    assert!(!keys.iter().any(|key| shown.contains(key)), "{shown}");
    assert_eq!(shown.matches("\nboot = ").count(), 1, "an earlier Bootlace reads one boot of each");

    let server = server.restart();
    assert!(negotiate(&mut server.connect(), |_| "lab-01".to_owned()).is_err());
    let mut machine = boot(1).attach(&server, 1);
    assert!(is_alive(&mut machine));
    assert!(server.exports().contains("\"candidate\":2"), "{}", server.exports());
    // It runs, and may not be able to come back at once.
    say_goodbye(machine);
    assert!(boot(2).refusal(&server, 1).contains("is running in its boot 1"));
}

#[test]
fn a_new_boot_waits_for_the_former_one_and_then_begins_afresh() {
    let server = Server::start();
    boot(1).put(&server, "discard");
    let mut former = boot(1).attach(&server, 1);
    write(&mut former);
    assert!(boot(2).put(&server, "discard").contains("\"candidate\":2"));
    // Its kernel acknowledges probes, although it asks for nothing.
    std::thread::sleep(Duration::from_secs(5));
    let began = Instant::now();
    let text = boot(2).refusal(&server, 1);
    assert!(text.contains("is running in its boot 1"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(is_alive(&mut former), "the machine that runs has lost its disk");
    // Another boot beside it.
    boot(3).put(&server, "discard");
    assert!(boot(2).refusal(&server, 1).contains("is running in its boot 1"));

    // It breaks off without a word: it might come back.
    drop(former);
    let began = Instant::now();
    let mut next = boot(3).attach(&server, 1);
    let waited = began.elapsed();
    // Not at once, and not as late as a server does that has just started.
    assert!((2000..15_000).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(first_byte(&mut next), 0x11, "what the former boot wrote is still there");
    assert!(server.exports().contains("\"candidate\":null"), "{}", server.exports());
    for earlier in [1, 2] {
        let text = boot(earlier).refusal(&server, 7);
        assert!(text.contains(REFUSED), "the proof of boot {earlier} counts: {text}");
    }

    // A machine that says goodbye needs no wait.
    boot(4).put(&server, "discard");
    say_goodbye(next);
    let began = Instant::now();
    boot(4).attach(&server, 1);
    // The time after which who says nothing is silent.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn boots_that_others_begin_take_no_place_of_one_that_is_on_its_way() {
    let server = Server::start();
    boot(1).put(&server, "discard");
    say_goodbye(boot(1).attach(&server, 1));
    // The machine is in its loader; somebody begins boots in its name.
    for number in 2..10 {
        boot(number).put(&server, "discard");
    }
    let server = server.restart();
    boot(10).put(&server, "discard");
    std::thread::sleep(Duration::from_secs(26));
    let mut machine = boot(3).attach(&server, 1);
    write(&mut machine);
    boot(11).put(&server, "discard");
    assert!(boot(2).refusal(&server, 1).contains(REFUSED), "it is earlier");
    for later in [10, 11] {
        let text = boot(later).refusal(&server, 1);
        assert!(text.contains("is running in its boot 3"), "{text}");
    }
    assert_eq!(first_byte(&mut machine), 0xaa);
}

#[test]
fn a_disk_is_deleted_only_when_the_new_boot_gets_it() {
    let server = Server::start();
    boot(1).put(&server, "persistent");
    let mut former = boot(1).attach(&server, 1);
    write(&mut former);
    put(&server, &boot(2).order("persistent", "\"reset\":true,"));
    assert_eq!(first_byte(&mut former), 0xaa);
    say_goodbye(former);
    let mut again = boot(1).attach(&server, 2);
    assert_eq!(first_byte(&mut again), 0xaa, "it was deleted before anybody has proven anything");
    say_goodbye(again);
    let mut next = boot(2).attach(&server, 1);
    assert_eq!(first_byte(&mut next), 0x11);
    write(&mut next);
    // The boot server asks for the same again.
    put(&server, &boot(2).order("persistent", "\"reset\":true,"));
    assert_eq!(first_byte(&mut next), 0xaa);
}

#[test]
fn what_would_go_wrong_is_told_when_the_boot_is_announced() {
    let server = Server::start();
    boot(1).put(&server, "persistent");
    let mut former = boot(1).attach(&server, 1);
    let order = boot(2).order("persistent", "");
    let refused = |order: &str, word: &str| {
        let answer = server.ask("PUT", "/v1/exports/lab-01", order);
        assert!(!answer.starts_with("HTTP/1.1 200") && answer.contains(word), "{answer}");
    };
    refused(&order.replace("debian-12", "fedora"), "fedora");
    server.prepare("lab-02", "127.0.0.1", 1, "discard");
    let _running = server.attach("lab-02");
    refused(&order.replace("\"1.1\"", "\"1.2\""), "1.2 is still in use by lab-02");
    assert!(server.exports().contains("\"candidate\":null"));
    assert!(is_alive(&mut former));
}

#[test]
fn a_key_is_exchanged_until_it_has_opened_the_disk() {
    let server = Server::start();
    boot(1).put(&server, "discard");
    let other = Boot { key: boot(9).key, ..boot(1) };
    other.put(&server, "discard");
    assert!(boot(1).refusal(&server, 1).contains(REFUSED), "the former key is void");
    let mut machine = other.attach(&server, 1);
    let answer = server.ask("PUT", "/v1/exports/lab-01", &boot(1).order("discard", ""));
    assert!(answer.contains("has opened its disk in this boot"), "{answer}");
    assert!(is_alive(&mut machine));
    other.attach(&server, 2);
}

/// A server is upgraded under a machine that runs: it has no key, and can prove nothing.
#[test]
fn who_runs_without_a_key_keeps_its_disk_until_its_next_boot() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let server = server.restart();
    boot(1).put(&server, "discard");
    let mut machine = server.attach("lab-01?g=1");
    let mut stranger = server.connect_from("127.0.0.9");
    let refused = negotiate(&mut stranger, |_| "lab-01?g=2".to_owned()).unwrap_err();
    assert!(refused.to_string().contains(REFUSED), "{refused}");
    let told = server.ask("GET", "/v1/nbd", "");
    let who = r#""not_proven":[{"address":"127.0.0.9","count":1,"machine":"lab-01"}]"#;
    assert!(told.contains(who), "{told}");
    // The new init proves itself to whoever asks; here its address counts.
    boot(1).attach(&server, 2);
    boot(2).put(&server, "discard");
    assert!(is_alive(&mut server.attach("lab-01?g=3")) && !is_alive(&mut machine));
}

#[test]
fn one_address_has_sixteen_connections_to_a_disk_without_a_key() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let mut open: Vec<TcpStream> = (0..16).map(|_| server.attach("lab-01")).collect();
    let one_more = || negotiate(&mut server.connect(), |_| "lab-01".to_owned());
    let refused = one_more().unwrap_err().to_string();
    assert!(refused.contains("16 connections to this disk are open"), "{refused}");
    assert!(server.exports().contains("\"refused\":1,"), "{}", server.exports());
    assert!(open.iter_mut().all(is_alive));
    say_goodbye(open.pop().unwrap());
    one_more().unwrap();
}

#[test]
fn over_aoe_the_boot_server_says_whose_turn_it_is() {
    lan::enter(1500);
    let server = Server::start_on(SERVER);
    server.prepare_aoe("lab-01", CLIENT_MAC, 1, "discard");
    let mut machine = Initiator::new();
    machine.write(8, &[0x33; 1024]);
    let next = boot(2).order("discard", "").replace("\"nbd\"", "\"aoe\"");
    put(&server, &next);
    assert!(machine.read(8, 2) == [0x33; 1024], "the new boot has taken the disk away");
    let admit =
        |boot: u64| server.ask("POST", "/v1/exports/lab-01/admit", &format!("{{\"boot\":{boot}}}"));
    assert!(admit(2).contains("is running in its boot 1"), "{}", admit(2));
    assert!(admit(7).starts_with("HTTP/1.1 404"), "{}", admit(7));
    let text = negotiate(&mut server.connect(), |said| boot(2).name(1, said)).unwrap_err();
    assert!(text.to_string().contains(REFUSED), "the disk is not for NBD: {text}");
    std::thread::sleep(Duration::from_millis(3100));
    for _ in 0..2 {
        let admitted = admit(2);
        assert!(admitted.starts_with("HTTP/1.1 200"), "{admitted}");
        assert!(admitted.contains("\"boot\":2") && admitted.contains("\"candidate\":null"));
    }
    assert!(machine.read(8, 2) == [0x11; 1024], "the new boot does not begin afresh");
}

/// A server at 10.66.0.1, and whoever runs `client` at 10.66.0.2, each in a network namespace of its own.
fn over_a_wire<T: Send>(
    client: impl FnOnce(SocketAddr) -> T + Send,
    test: impl FnOnce(&Server, mpsc::Receiver<T>),
) {
    lan::enter(1500);
    succeed("ip", &["address", "add", "10.66.0.1/24", "dev", SERVER]);
    let server = Server::start_at("10.66.0.1:10809".parse().unwrap());
    let (sender, at_client) = mpsc::channel();
    let (moved, is_moved) = mpsc::channel();
    let (place, where_to) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            place.send(nix::unistd::gettid()).unwrap();
            is_moved.recv().unwrap();
            succeed("ip", &["address", "add", "10.66.0.2/24", "dev", CLIENT]);
            succeed("ip", &["link", "set", CLIENT, "up"]);
            drop(sender.send(client("10.66.0.1:10809".parse().unwrap())));
        });
        let client = where_to.recv().unwrap().to_string();
        succeed("ip", &["link", "set", CLIENT, "netns", &client]);
        moved.send(()).unwrap();
        test(&server, at_client);
    });
}

/// The time that the next boot waits for the disk.
fn wait_of_the_next_boot(server: &Server) -> Duration {
    let began = Instant::now();
    while boot(2).try_over(server.connect(), 1).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the former boot is never silent");
    }
    began.elapsed()
}

#[test]
fn a_machine_whose_link_is_cut_is_silent_after_three_seconds() {
    let (go, is_going) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let client = move |server: SocketAddr| {
        is_going.recv().unwrap();
        let stream = boot(1).try_over(TcpStream::connect(server).unwrap(), 1).unwrap();
        std::thread::sleep(Duration::from_secs(4));
        tell.send(Instant::now()).unwrap();
        succeed("ip", &["link", "set", CLIENT, "down"]);
        stream
    };
    over_a_wire(client, |server, cut| {
        boot(1).put(server, "discard");
        go.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        boot(2).put(server, "discard");
        let _stream = cut.recv().unwrap();
        assert!(server.exports().contains("\"connections\":1"), "the server can't know yet");
        wait_of_the_next_boot(server);
        // The machine was heard for the last time a second before that at most.
        let waited = told.recv().unwrap().elapsed();
        assert!((2000..20_000).contains(&waited.as_millis()), "{waited:?}");
    });
}

#[test]
fn a_machine_that_starts_again_without_a_word_is_seen_by_its_reset() {
    let (go, is_going) = mpsc::channel();
    let (end, is_over) = mpsc::channel();
    let client = move |server: SocketAddr| {
        is_going.recv().unwrap();
        let stream = boot(1).try_over(TcpStream::connect(server).unwrap(), 1).unwrap();
        // Its kernel forgets the connection, as by a power cut, and does not say so.
        setsockopt(&stream, sockopt::TcpRepair, &1).unwrap();
        drop(stream);
        is_over.recv().unwrap();
    };
    over_a_wire(client, |server, _ended| {
        boot(1).put(server, "discard");
        go.send(()).unwrap();
        let attached = Instant::now();
        while !server.exports().contains("\"connections\":1") {
            assert!(attached.elapsed() < Duration::from_secs(20));
        }
        boot(2).put(server, "discard");
        let lost = Instant::now();
        while server.exports().contains("\"connections\":1") {
            assert!(lost.elapsed() < Duration::from_secs(20), "nobody has asked the machine");
            std::thread::sleep(Duration::from_millis(50));
        }
        let waited = wait_of_the_next_boot(server);
        assert!(waited < Duration::from_secs(15), "{waited:?}");
        end.send(()).unwrap();
    });
}
