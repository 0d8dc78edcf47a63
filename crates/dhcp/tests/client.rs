//! A client that talks to our own server, on a network that loses packets and carries nonsense.

use dhcp::{
    Change, Client, ClientLease, Config, Decision, Next, Reply, ReplyKind, Request, Server,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use wire::{Mac, Moment, Route};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn config(last: u8) -> Config {
    Config {
        serve_everyone: false,
        server: Ipv4Addr::new(10, 77, 0, last),
        subnet: Ipv4Addr::new(10, 77, 0, 0),
        prefix: 24,
        pool: (Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 103)),
        reserved: BTreeMap::new(),
        router: Some(Ipv4Addr::new(10, 77, 0, 254)),
        routes: Vec::from_iter(Route::new(
            Ipv4Addr::new(10, 9, 0, 0),
            16,
            Ipv4Addr::new(10, 77, 0, 253),
        )),
        dns: vec![SERVER],
        ntp: vec![SERVER],
        domain: Some("lab.example".into()),
        lease_seconds: 3600,
        bios_file: "bl.0".into(),
        others: vec![],
        uefi_x64_file: "bl.efi".into(),
        uefi_arm64_file: "bl-arm64.efi".into(),
    }
}

fn server(last: u8) -> Server {
    let mut server = Server::new(config(last), []);
    server.know([MAC].into());
    server
}

fn client() -> Client {
    Client::new(MAC, "lab-07", 77, Moment::from_millis(0))
}

fn s(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

/// What the client sends now.
fn sent(client: &mut Client, now: Moment) -> (Request, Vec<u8>, Ipv4Addr) {
    match client.next(now) {
        Next::Send(message, to) => {
            (Request::parse(&message).expect("we read what we write"), message, to)
        }
        other => panic!("nothing is sent at {now:?}: {other:?}"),
    }
}

fn reply(server: &mut Server, request: &Request) -> Reply {
    match server.on_request(request, 1_800_000_000) {
        Decision::Reply(reply) => *reply,
        other => panic!("the server says {other:?}"),
    }
}

fn bind(client: &mut Client, server: &mut Server, now: Moment) -> ClientLease {
    let (discover, ..) = sent(client, now);
    assert_eq!(client.on_datagram(&reply(server, &discover).bytes, now), None);
    let (request, ..) = sent(client, now);
    assert_eq!(request.server, Some(SERVER));
    match client.on_datagram(&reply(server, &request).bytes, now) {
        Some(Change::Leased(lease)) => lease,
        other => panic!("no lease but {other:?}"),
    }
}

#[test]
fn a_client_gets_an_address_and_all_that_goes_with_it() {
    let lease = bind(&mut client(), &mut server(1), s(0));
    let expected = ClientLease {
        address: Ipv4Addr::new(10, 77, 0, 103),
        prefix: 24,
        server: SERVER,
        router: Some(Ipv4Addr::new(10, 77, 0, 254)),
        routes: Vec::from_iter(Route::new(
            Ipv4Addr::new(10, 9, 0, 0),
            16,
            Ipv4Addr::new(10, 77, 0, 253),
        )),
        dns: vec![SERVER],
        ntp: vec![SERVER],
        domain: Some("lab.example".into()),
        seconds: [1800, 3150, 3600],
    };
    assert_eq!(lease, expected);
}

#[test]
fn no_route_leads_what_is_on_the_link_elsewhere() {
    let via = Ipv4Addr::new(10, 77, 0, 66);
    let route = |to: [u8; 4], prefix| Route::new(to.into(), prefix, via).expect("a route");
    let elsewhere = route([10, 9, 0, 0], 16);
    let wider = route([10, 0, 0, 0], 8);
    let routes = vec![
        route(SERVER.octets(), 32),
        route([10, 77, 0, 0], 25),
        route([10, 77, 0, 0], 24),
        elsewhere,
        wider,
    ];
    let mut server = Server::new(Config { routes, ..config(1) }, []);
    server.know([MAC].into());
    let lease = bind(&mut client(), &mut server, s(0));
    assert_eq!(lease.routes, [elsewhere, wider]);
}

#[test]
fn of_two_servers_the_preferred_one_is_taken_though_it_is_slower() {
    let (mut ours, mut other) = (server(1), server(2));
    let at = Moment::from_millis;
    let mut client = client().preferring(SERVER);
    let (discover, ..) = sent(&mut client, s(0));
    client.on_datagram(&reply(&mut other, &discover).bytes, at(10));
    assert_eq!(client.next(at(10)), Next::WaitUntil(at(210)));
    client.on_datagram(&reply(&mut ours, &discover).bytes, at(150));
    let (request, ..) = sent(&mut client, at(150));
    assert_eq!(request.server, Some(SERVER));
}

#[test]
fn another_server_is_taken_if_the_preferred_one_says_nothing() {
    let mut other = server(2);
    let at = Moment::from_millis;
    let mut client = client().preferring(SERVER);
    let (discover, ..) = sent(&mut client, s(0));
    for ms in [10, 180] {
        client.on_datagram(&reply(&mut other, &discover).bytes, at(ms));
    }
    assert_eq!(client.next(at(209)), Next::WaitUntil(at(210)));
    let (request, ..) = sent(&mut client, at(210));
    assert_eq!(request.server, Some(Ipv4Addr::new(10, 77, 0, 2)));
    let ack = reply(&mut other, &request);
    let leased = client.on_datagram(&ack.bytes, at(211));
    assert!(matches!(leased, Some(Change::Leased(_))), "{leased:?}");
}

#[test]
fn without_an_answer_it_asks_for_ever() {
    let mut client = client();
    let mut now = 0;
    let mut times = Vec::new();
    for _ in 0..9 {
        let (request, ..) = sent(&mut client, Moment::from_millis(now));
        assert!(request.wants_broadcast());
        times.push(now);
        match client.next(Moment::from_millis(now)) {
            Next::WaitUntil(moment) => now = moment.as_millis(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(times, [0, 250, 750, 1750, 3750, 7750, 11_750, 15_750, 19_750]);
    assert!(matches!(client.next(s(1_000_000)), Next::Send(..)));
}

#[test]
fn a_server_that_dies_after_its_offer_is_forgotten() {
    let (mut client, mut first) = (client(), server(1));
    let (discover, ..) = sent(&mut client, s(0));
    let offer = reply(&mut first, &discover).bytes;
    client.on_datagram(&offer, s(0));
    let mut now = s(0);
    for _ in 0..5 {
        assert!(sent(&mut client, now).0.server.is_some());
        if let Next::WaitUntil(moment) = client.next(now) {
            now = moment;
        }
    }
    let (discover, ..) = sent(&mut client, now);
    assert_eq!(discover.server, None);
    assert_eq!(client.on_datagram(&offer, now), None, "an answer to the former question");
    let offer = reply(&mut server(2), &discover).bytes;
    client.on_datagram(&offer, now);
    assert_eq!(sent(&mut client, now).0.server, Some(Ipv4Addr::new(10, 77, 0, 2)));
}

#[test]
fn a_lease_is_renewed_then_sought_from_anybody_then_asked_for_anew() {
    let (mut client, mut server) = (client(), server(1));
    let lease = bind(&mut client, &mut server, s(0));
    assert_eq!(client.next(s(1)), Next::WaitUntil(s(1800)));
    let (renewal, _, to) = sent(&mut client, s(1800));
    assert_eq!((renewal.client, renewal.wanted, renewal.server), (lease.address, None, None));
    assert!(!renewal.wants_broadcast());
    assert_eq!(to, SERVER);
    let answer = reply(&mut server, &renewal).bytes;
    assert_eq!(client.on_datagram(&answer, s(1801)), Some(Change::Leased(lease.clone())));
    assert_eq!(client.next(s(1802)), Next::WaitUntil(s(3601)));
    // Nobody answers any more.
    assert_eq!(sent(&mut client, s(3601)).2, SERVER);
    assert_eq!(client.next(s(3602)), Next::WaitUntil(s(3601 + 675)));
    assert_eq!(sent(&mut client, s(4960)).2, Ipv4Addr::BROADCAST);
    let (discover, ..) = sent(&mut client, s(5401));
    assert!(discover.client.is_unspecified() && discover.server.is_none());
}

#[test]
fn a_refusal_counts_only_when_something_was_asked() {
    let (mut client, mut server) = (client(), server(1));
    let lease = bind(&mut client, &mut server, s(0));
    let refusal = |message: &[u8]| {
        let mut answer = message.to_vec();
        answer[0] = 2;
        answer[242] = ReplyKind::Nak.code();
        answer
    };
    let (_, message, _) = sent(&mut client, s(1800));
    let mut early = Client::resume(MAC, "lab-07", 77, lease, s(0));
    assert_eq!(early.on_datagram(&refusal(&message), s(100)), None);
    assert_eq!(client.on_datagram(&refusal(&message), s(1801)), Some(Change::Lost));
    assert_eq!(client.next(s(1802)), Next::WaitUntil(s(1805)), "not all the time");
}

/// A real answer.
fn offer() -> Vec<u8> {
    let (discover, ..) = sent(&mut client(), s(0));
    reply(&mut server(1), &discover).bytes
}

/// Firmware asks such a server for its loader, and nobody else.
#[test]
fn what_a_server_tells_firmware_is_read() {
    let question = dhcp::firmware_question(MAC, 77, 7);
    let request = Request::parse(&question).unwrap();
    assert_eq!(request.firmware, Some(wire::Firmware::UefiX64));
    let told = dhcp::Answer::parse(&offer()).unwrap();
    assert_eq!((told.serves_firmware, told.boot_file), (false, None));

    let mut field = offer();
    field[108..115].copy_from_slice(b"old.0\0x");
    let told = dhcp::Answer::parse(&field).unwrap();
    assert_eq!(told.boot_file.as_deref(), Some("old.0"));
    let end = field.iter().rposition(|byte| *byte == dhcp::option_codes::OPT_END).unwrap();
    field.truncate(end);
    field.extend(b"\x3c\x09PXEClient\x43\x06new.0\0\xff");
    let told = dhcp::Answer::parse(&field).unwrap();
    assert_eq!((told.serves_firmware, told.boot_file.as_deref()), (true, Some("new.0")));
}

#[test]
fn a_question_is_no_answer() {
    let (_, question, _) = sent(&mut client(), s(0));
    assert_eq!(dhcp::Answer::parse(&question), Err(dhcp::NotAnAnswer::Request));
}

#[test]
fn no_prefix_of_an_answer_panics_and_addresses_that_nobody_can_have_are_refused() {
    let offer = offer();
    assert!(dhcp::Answer::parse(&offer).is_ok());
    for end in 0..240 {
        assert!(dhcp::Answer::parse(&offer[..end]).is_err(), "{end}");
    }
    for end in 240..offer.len() {
        let _ = dhcp::Answer::parse(&offer[..end]);
    }
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
        let mut bad = offer.clone();
        bad[16..20].copy_from_slice(&address);
        assert_eq!(dhcp::Answer::parse(&bad), Err(dhcp::NotAnAnswer::NoAddress));
    }
}

proptest! {
    #[test]
    fn nonsense_neither_panics_nor_leads_to_odd_times(
        changes in prop::collection::vec((0..300usize, any::<u8>()), 0..20),
        at in 0..100_000u64,
    ) {
        let mut answer = offer();
        for (index, byte) in changes {
            if let Some(at) = answer.get_mut(index) {
                *at = byte;
            }
        }
        let mut client = client();
        let _ = client.next(s(0));
        client.on_datagram(&answer, s(0));
        if let Ok(dhcp::Answer { lease: Some(lease), .. }) = dhcp::Answer::parse(&answer) {
            let [renew, rebind, end] = lease.seconds;
            prop_assert!(0 < renew && renew <= rebind && rebind <= end && end >= 10);
            prop_assert!(lease.prefix <= 32);
            let mut bound = Client::resume(MAC, "x", 1, lease, s(0));
            for second in [at, at + 1, at + 100] {
                // No question is sent twice in a moment.
                if let Next::Send(..) = bound.next(s(second)) {
                    prop_assert!(!matches!(bound.next(s(second)), Next::Send(..)));
                }
            }
        }
        let _ = client.next(s(1) + Duration::from_secs(at));
    }
}
