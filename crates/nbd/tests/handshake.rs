//! Client and server talk to each other without sockets.

use nbd::client::{self, HandshakeError};
use nbd::server::{self, Agreed, ExportInfo, Exports, Reason, Refusal, Tls, Way};
use nbd::{Command, CommandFlags, ErrorCode, Request, TransmissionFlags, simple_reply};
use proptest::prelude::*;

struct OneExport;

impl Exports for OneExport {
    fn look(&self, name: &str) -> Result<ExportInfo, Refusal> {
        match name {
            "lab-07" => {
                let flags = TransmissionFlags::HAS_FLAGS.with(TransmissionFlags::SEND_FLUSH);
                Ok(ExportInfo { size_bytes: 1 << 30, flags, description: "debian-12".into() })
            }
            "guarded" => Err(Refusal::Policy("what is the word?".into())),
            _ => Err(Refusal::Unknown(format!("there is no export {name} for you"))),
        }
    }

    fn open(&self, name: &str, way: Way) -> Result<ExportInfo, Refusal> {
        match (name, way) {
            ("guarded?word", Way::Go) => self.look("lab-07"),
            _ => self.look(name),
        }
    }

    fn names(&self) -> Vec<String> {
        vec!["lab-07".into()]
    }
}

fn open(name: &str) -> Result<client::Export, HandshakeError> {
    converse_as(client::Handshake::new(name), Tls::Off)
}

/// The client opens what it asked for, and with the word what needs it.
fn converse_as(mut client: client::Handshake, tls: Tls) -> Result<client::Export, HandshakeError> {
    let mut server = server::Handshake::new(tls);
    let mut wire = Vec::new();
    loop {
        match client.step()? {
            client::Step::Send(bytes) => server.on_bytes(&bytes),
            client::Step::StartTls => {
                assert_eq!(server.step(&OneExport), server::Step::StartTls);
                server.on_tls();
                client.on_tls();
            }
            client::Step::Answered(None) => client.open("lab-07"),
            client::Step::Answered(Some(text)) if text.contains("the word") => {
                client.open("guarded?word");
            }
            client::Step::Answered(Some(_)) => client.open("other"),
            client::Step::Done(export) => {
                assert!(wire.is_empty(), "the server sent more than the client read");
                return Ok(export);
            }
            client::Step::Receive(count) => {
                while wire.len() < count {
                    match server.step(&OneExport) {
                        server::Step::Send(bytes) => wire.extend(bytes),
                        other => panic!("the client waits, the server says {other:?}"),
                    }
                }
                let bytes: Vec<u8> = wire.drain(..count).collect();
                client.on_bytes(&bytes)?;
            }
        }
    }
}

/// Everything that the server sends in answer to `bytes`, and its last step.
fn converse(bytes: &[u8]) -> (Vec<u8>, server::Step) {
    converse_with(&mut server::Handshake::default(), bytes)
}

fn converse_with(server: &mut server::Handshake, bytes: &[u8]) -> (Vec<u8>, server::Step) {
    server.on_bytes(bytes);
    let mut sent = Vec::new();
    loop {
        match server.step(&OneExport) {
            server::Step::Send(bytes) => sent.extend(bytes),
            other => return (sent, other),
        }
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

#[test]
fn a_client_opens_its_export() {
    let export = open("lab-07").unwrap();
    assert_eq!(export.size_bytes, 1 << 30);
    assert!(export.flags.has(TransmissionFlags::SEND_FLUSH));
    assert_eq!(export.block_min_bytes, 512);
}

#[test]
fn a_client_opens_its_export_inside_of_tls_or_not_at_all() {
    let encrypted = || client::Handshake::with_tls("lab-07");
    for tls in [Tls::Optional, Tls::Required] {
        assert_eq!(converse_as(encrypted(), tls).unwrap().size_bytes, 1 << 30);
    }
    let error = converse_as(encrypted(), Tls::Off).unwrap_err();
    assert!(matches!(error, HandshakeError::NoTls { .. }), "{error}");
    let error = converse_as(client::Handshake::new("lab-07"), Tls::Required).unwrap_err();
    assert!(error.to_string().contains("only clients that use TLS"), "{error}");
}

#[test]
fn a_refusal_reaches_the_client_in_words() {
    let error = open("other").unwrap_err();
    assert!(error.to_string().contains("there is no export other for you"), "{error}");
}

#[test]
fn who_only_asks_learns_what_it_must_do_and_then_opens() {
    assert_eq!(open("guarded").unwrap().size_bytes, 1 << 30);
    let name = |name: &[u8]| [&(name.len() as u32).to_be_bytes()[..], name, &[0, 0]].concat();
    let check = |options: &[(u32, &[u8], u32)]| {
        let mut bytes = 3u32.to_be_bytes().to_vec();
        options.iter().for_each(|(number, data, _)| bytes.extend(option(*number, data)));
        let (sent, step) = converse(&bytes);
        let wanted: Vec<_> = options.iter().map(|(number, _, kind)| (*number, *kind)).collect();
        assert_eq!(kinds(&sent[18..]), wanted);
        step
    };
    let contexts = contexts("guarded", &["base:allocation"]);
    let step = check(&[
        (6, &name(b"guarded"), POLICY),
        (7, &name(b"guarded"), POLICY),
        (8, b"", 1),
        (10, &contexts, POLICY),
    ]);
    assert_eq!(step, server::Step::Receive);
    let old = [3u32.to_be_bytes().to_vec(), option(1, b"guarded?word")].concat();
    let (_, step) = converse(&old);
    assert!(matches!(step, server::Step::Close(Reason::Refused(_))), "{step:?}");
}

#[test]
fn the_old_way_of_opening_works_too() {
    for (flags, zeroes) in [(1u32, 124), (3, 0)] {
        let bytes = [flags.to_be_bytes().to_vec(), option(1, b"lab-07"), vec![9; 5]].concat();
        let (sent, step) = converse(&bytes);
        assert_eq!(sent.len(), 18 + 8 + 2 + zeroes);
        assert_eq!(
            step,
            server::Step::Transmit {
                name: "lab-07".into(),
                agreed: Agreed::default(),
                early: vec![9; 5]
            }
        );
    }
}

#[test]
fn odd_options_are_answered_and_the_handshake_goes_on() {
    let odd = [
        3u32.to_be_bytes().to_vec(),
        option(5, b""),
        option(3, b"data"),
        option(7, b"\0\0\xff\xff"),
        option(98, b""),
        option(99, &vec![0; 70_000]),
        option(3, b""),
        option(2, b""),
    ]
    .concat();
    let (sent, step) = converse(&odd);
    assert_eq!(step, server::Step::Close(Reason::Aborted));
    for text in [
        "does not serve TLS",
        "does not know",
        "LIST takes no data",
        "truncated",
        "longer than 64 KiB",
        "lab-07",
    ] {
        assert!(String::from_utf8_lossy(&sent).contains(text), "{text}");
    }
}

/// A handshake in which the client has sent `before` and then began TLS.
fn in_tls(tls: Tls, before: &[u8]) -> server::Handshake {
    let mut server = server::Handshake::new(tls);
    let bytes = [&3u32.to_be_bytes()[..], before, &option(5, b"")].concat();
    let (sent, step) = converse_with(&mut server, &bytes);
    assert_eq!(step, server::Step::StartTls);
    assert_eq!(kinds(&sent[18..]).last(), Some(&(5, 1)), "STARTTLS is granted");
    server.on_tls();
    server
}

/// Option and kind of each reply.
fn kinds(mut replies: &[u8]) -> Vec<(u32, u32)> {
    let number = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut kinds = Vec::new();
    while !replies.is_empty() {
        kinds.push((number(&replies[8..]), number(&replies[12..])));
        replies = &replies[20 + number(&replies[16..]) as usize..];
    }
    kinds
}

const POLICY: u32 = 1 << 31 | 2;
const INVALID: u32 = 1 << 31 | 3;
const TLS_REQUIRED: u32 = 1 << 31 | 5;

#[test]
fn who_must_encrypt_learns_nothing_else_before() {
    let go = [&6u32.to_be_bytes()[..], b"lab-07", &[0, 0]].concat();
    let options = [(3, &b""[..]), (6, &go), (7, &go), (8, b""), (10, b"x"), (99, b"")];
    let mut bytes = 3u32.to_be_bytes().to_vec();
    options.iter().for_each(|(number, data)| bytes.extend(option(*number, data)));
    bytes.extend(option(5, b"data"));
    let mut server = server::Handshake::new(Tls::Required);
    let (sent, step) = converse_with(&mut server, &bytes);
    assert_eq!(step, server::Step::Receive);
    let mut wanted: Vec<_> = options.iter().map(|(number, _)| (*number, TLS_REQUIRED)).collect();
    wanted.push((5, INVALID));
    assert_eq!(kinds(&sent[18..]), wanted);
    assert!(!String::from_utf8_lossy(&sent).contains("lab-07"));
    assert_eq!(converse_with(&mut server, &option(2, b"")).1, server::Step::Close(Reason::Aborted));

    let old = [&3u32.to_be_bytes()[..], &option(1, b"lab-07")].concat();
    let mut server = server::Handshake::new(Tls::Required);
    let (sent, step) = converse_with(&mut server, &old);
    assert_eq!((sent.len(), step), (18, server::Step::Close(Reason::WithoutTls)));
}

#[test]
fn tls_begins_the_negotiation_anew() {
    let before = [option(8, b""), option(10, &contexts("lab-07", &["base:allocation"]))].concat();
    let mut server = in_tls(Tls::Optional, &before);
    let bytes = [option(5, b""), option(3, b""), option(1, b"lab-07")].concat();
    let (sent, step) = converse_with(&mut server, &bytes);
    assert_eq!(kinds(&sent[..sent.len() - 10])[..2], [(5, INVALID), (3, 2)]);
    let server::Step::Transmit { agreed, .. } = step else { panic!("{step:?}") };
    assert_eq!(agreed, Agreed::default());
}

#[test]
fn what_follows_starttls_in_clear_text_is_not_taken() {
    for tls in [Tls::Optional, Tls::Required] {
        for injected in [option(7, b""), vec![0x16]] {
            let mut server = server::Handshake::new(tls);
            let bytes = [&3u32.to_be_bytes()[..], &option(5, b""), &injected].concat();
            let (sent, step) = converse_with(&mut server, &bytes);
            assert_eq!((sent.len(), step), (18, server::Step::Close(Reason::BeforeTls)));
        }
    }
}

#[test]
fn no_prefix_begins_tls_and_inside_none_opens_anything() {
    let start = [&3u32.to_be_bytes()[..], &option(5, b"")].concat();
    for end in 0..start.len() {
        let mut server = server::Handshake::new(Tls::Required);
        assert_eq!(converse_with(&mut server, &start[..end]).1, server::Step::Receive);
    }
    let go = option(7, &[&6u32.to_be_bytes()[..], b"lab-07", &[0, 0]].concat());
    for end in 0..=go.len() {
        let (_, step) = converse_with(&mut in_tls(Tls::Required, b""), &go[..end]);
        assert_eq!(matches!(step, server::Step::Transmit { .. }), end == go.len());
    }
}

/// Data of SET_META_CONTEXT and LIST_META_CONTEXT.
fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}

/// What is agreed on after these options and EXPORT_NAME; what was sent.
fn agree(options: &[Vec<u8>]) -> (Agreed, Vec<u8>) {
    let bytes = [3u32.to_be_bytes().to_vec(), options.concat(), option(1, b"lab-07")].concat();
    match converse(&bytes) {
        (sent, server::Step::Transmit { agreed, .. }) => (agreed, sent),
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn a_client_chooses_structured_replies_and_the_context_of_allocation() {
    let structured = option(8, b"");
    let chosen = option(10, &contexts("lab-07", &["qemu:dirty-bitmap:x", "base:allocation"]));
    let (agreed, sent) = agree(&[structured.clone(), chosen.clone()]);
    assert_eq!(agreed, Agreed { structured: true, allocation: true });
    let flags = u16::from_be_bytes([sent[sent.len() - 2], sent[sent.len() - 1]]);
    assert!(TransmissionFlags(flags).has(TransmissionFlags::SEND_DF));

    let allocation = |options: &[Vec<u8>]| agree(options).0.allocation;
    let again = option(10, &contexts("lab-07", &[]));
    assert!(!allocation(&[structured.clone(), chosen.clone(), again]), "the last choice counts");
    let other = option(10, &contexts("lab-08", &["base:allocation"]));
    assert!(!allocation(&[structured.clone(), chosen.clone(), other]), "an error undoes it");
    let wildcard = option(10, &contexts("lab-07", &["base:"]));
    assert!(!allocation(&[structured.clone(), wildcard]), "wildcards are for lists");
    assert!(!allocation(&[chosen, structured]), "too early");
    let data = option(8, b"data");
    assert_eq!(agree(&[data]).0, Agreed::default());
}

#[test]
fn contexts_are_listed() {
    let list = |queries: &[&str]| {
        let list = option(9, &contexts("lab-07", queries));
        let (_, sent) = agree(&[option(8, b""), list]);
        String::from_utf8_lossy(&sent).contains("base:allocation")
    };
    assert!(list(&[]) && list(&["base:"]) && list(&["x:", "base:allocation"]));
    assert!(!list(&["x:"]) && !list(&["base:other"]));
}

#[test]
fn who_is_no_client_is_let_go() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x03GET / HTTP/1.1\r\n"] {
        let (_, step) = converse(bytes);
        assert!(matches!(step, server::Step::Close(Reason::NotNbd(_))), "{step:?}");
    }
    let (_, step) = converse(&[3u32.to_be_bytes().to_vec(), option(1, b"other")].concat());
    assert!(matches!(step, server::Step::Close(Reason::Refused(_))), "{step:?}");
    let many = option(5, b"").repeat(300);
    let (_, step) = converse(&[3u32.to_be_bytes().to_vec(), many].concat());
    assert_eq!(step, server::Step::Close(Reason::TooManyOptions));
}

#[test]
fn requests_and_replies_have_their_form() {
    let request = Request {
        flags: CommandFlags::FUA,
        command: Command::Write,
        cookie: 7,
        offset: 4096,
        length: 512,
    };
    let bytes = request.emit();
    assert_eq!(Request::parse(&bytes), Ok(request));
    for end in 0..bytes.len() {
        assert!(Request::parse(&bytes[..end]).is_err());
    }
    assert!(request.fits(4608) && !request.fits(4607));
    assert!(!Request { offset: u64::MAX, ..request }.fits(u64::MAX));
    assert_eq!(simple_reply(7, Some(ErrorCode::Io))[..8], *b"\x67\x44\x66\x98\0\0\0\x05");
}

#[test]
fn no_prefix_of_a_handshake_panics_or_opens_anything() {
    let go = [&6u32.to_be_bytes()[..], b"lab-07", &[0, 1, 0, 3]].concat();
    let bytes = [3u32.to_be_bytes().to_vec(), option(7, &go)].concat();
    assert!(matches!(converse(&bytes).1, server::Step::Transmit { .. }));
    for end in 0..bytes.len() {
        assert_eq!(converse(&bytes[..end]).1, server::Step::Receive);
    }
    let chosen = contexts("lab-07", &["base:allocation", "x"]);
    for end in 0..chosen.len() {
        let (agreed, sent) = agree(&[option(8, b""), option(10, &chosen[..end])]);
        assert!(!agreed.allocation && String::from_utf8_lossy(&sent).contains("truncated"));
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..64usize) {
        let _ = Request::parse(&bytes);
        let mut valid = [3u32.to_be_bytes().to_vec(), option(7, &bytes), option(8, b""), option(10, &bytes), option(3, b"")].concat();
        let _ = converse(&valid);
        let index = cut.min(valid.len() - 1);
        valid[index] ^= bytes.first().copied().unwrap_or(1);
        let _ = converse(&valid);
        let _ = converse_with(&mut in_tls(Tls::Required, b""), &bytes);
        for mut client in [client::Handshake::new("lab-07"), client::Handshake::with_tls("lab-07")] {
            let _ = client.on_bytes(&bytes);
            let _ = client.step();
        }
    }
}
