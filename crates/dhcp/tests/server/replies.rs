//! Which replies there are, where they go and what stands in them (RFC 2131 §4.1, §4.3.2 and table 3).

use super::*;

fn on(address: Ipv4Addr, message: Message) -> Message {
    Message { client: address, ..message }
}

fn relayed(message: Message) -> Message {
    Message { relay: ip(9), ..message.with(OPT_RELAY_INFORMATION, b"\x01\x04port") }
}

/// The four fields of addresses, and whether the broadcast bit is set.
fn fields(reply: &Reply) -> ([Ipv4Addr; 4], bool) {
    let field = |at: usize| {
        let bytes: [u8; 4] = reply.bytes[at..at + 4].try_into().expect("four bytes");
        Ipv4Addr::from(bytes)
    };
    ([12, 16, 20, 24].map(field), reply.bytes[10] & 0x80 != 0)
}

/// The options of a reply, in their order.
fn options(reply: &Reply) -> Vec<u8> {
    let mut rest = &reply.bytes[240..];
    let mut codes = Vec::new();
    while let [code, length, behind @ ..] = rest
        && *code != OPT_END
    {
        codes.push(*code);
        rest = &behind[usize::from(*length)..];
    }
    codes
}

#[test]
fn another_server_s_client_is_never_refused_what_was_never_ours() {
    let foreign = ip(250);
    // Known or not, with a reservation or without, with an address of ours or without one.
    let mut server = machines(config());
    lease(&mut server, 1);
    for last in [1, 2, 50, 99] {
        let comes_back = message(RequestKind::Request, last).wants(foreign);
        let renews = on(foreign, message(RequestKind::Request, last));
        for asks in [&comes_back, &renews, &relayed(comes_back.clone())] {
            assert_eq!(silence(&mut server, asks), Reason::Others(foreign), "{last}");
        }
        // Who has chosen us waits for our answer.
        let nak = reply(&mut server, &comes_back.chooses(SERVER));
        assert_eq!(nak.why.as_deref().map(|why| why.is_empty()), Some(false));
    }
}

#[test]
fn what_is_ours_to_give_is_refused_with_its_own_reason() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    let stranger = |address| stranger(RequestKind::Request, 7).wants(address);
    for (asks, why) in [
        (stranger(address), format!("{address} is another client's")),
        (stranger(ip(50)), "10.77.0.50 is reserved for another client".into()),
        (stranger(Ipv4Addr::new(10, 78, 0, 5)), "10.78.0.5 is not on this network".into()),
        (message(RequestKind::Request, 50).wants(ip(101)), "10.77.0.50 is reserved for you".into()),
    ] {
        let nak = reply(&mut server, &asks);
        assert_eq!((nak.kind, nak.why.as_deref()), (ReplyKind::Nak, Some(&*why)));
        assert_eq!(option(&nak, OPT_MESSAGE), Some(why.into_bytes()));
    }
    // An address of a former pool was ours.
    let former = Lease { mac: mac(3), address: ip(200), expires_unix: NOW + 9, host_name: None };
    let mut server = Server::new(config(), [former]);
    let nak = reply(&mut server, &on(ip(200), message(RequestKind::Request, 3)));
    assert_eq!(nak.why.as_deref(), Some("10.77.0.200 is not in the pool"));
    let own = message(RequestKind::Request, 3).wants(SERVER).chooses(SERVER);
    assert_eq!(reply(&mut server, &own).why.as_deref(), Some("10.77.0.1 is the server's own"));
}

#[test]
fn nobody_has_an_answer_sent_where_no_host_of_the_network_is() {
    let mut server = machines(config());
    let elsewhere = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::LOCALHOST];
    for address in [Ipv4Addr::BROADCAST, ip(255), ip(0)].into_iter().chain(elsewhere) {
        let asks = on(address, message(Inform, 1));
        assert_eq!(silence(&mut server, &asks), Reason::NoHost(address));
    }
}

#[test]
fn what_is_given_back_to_another_server_stays_ours() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    for asks in [on(address, message(Release, 1)), message(Decline, 1).wants(address)] {
        assert_eq!(silence(&mut server, &asks.chooses(ip(9))), Reason::OtherServer(ip(9)));
    }
    let released = on(address, message(Release, 1)).chooses(SERVER);
    assert!(matches!(decide(&mut server, &released), Decision::Released(_)));
}

#[test]
fn a_reply_goes_where_the_client_s_state_says() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    let request = || message(RequestKind::Request, 1);
    let broadcast = |message: Message| Message { flags: 0x8000, ..message };
    let frame = Destination::Frame(mac(1), address);
    let junk = ip(77);
    for (asks, to) in [
        (message(Discover, 1), frame),
        (on(junk, message(Discover, 1)), frame),
        (broadcast(on(junk, message(Discover, 1))), Destination::Broadcast),
        (request().wants(address).chooses(SERVER), frame),
        (on(junk, request().wants(address).chooses(SERVER)), frame),
        (on(address, broadcast(request().wants(address))), Destination::Broadcast),
        (on(address, request()), Destination::Unicast(address)),
        (broadcast(on(address, request())), Destination::Unicast(address)),
        (relayed(message(Discover, 1)), Destination::Relay(ip(9), SERVER_PORT)),
        (relayed(on(address, request())), Destination::Relay(ip(9), SERVER_PORT)),
        (on(junk, message(Inform, 1)), Destination::Unicast(junk)),
        (relayed(on(junk, message(Inform, 1))), Destination::Unicast(junk)),
    ] {
        let reply = reply(&mut server, &asks);
        assert_eq!(reply.to, to, "{:?} from {} by {}", reply.kind, asks.client, asks.relay);
        check_with_dhcproto(&reply);
    }
}

#[test]
fn a_relay_that_says_so_is_answered_at_the_port_that_it_asks_from() {
    let mut server = machines(config());
    let asks = relayed(message(Discover, 1)).with(OPT_RELAY_INFORMATION, &[RELAY_SOURCE_PORT, 0]);
    let mut request = Request::parse(&asks.bytes()).unwrap();
    assert!(request.names_relay_port());
    request.relay_port = 4711;
    let Decision::Reply(offer) = server.on_request(&request, NOW) else { panic!("no offer") };
    assert_eq!(offer.to, Destination::Relay(ip(9), 4711));
    assert!(option(&offer, OPT_RELAY_INFORMATION).unwrap().ends_with(&[RELAY_SOURCE_PORT, 0]));
    for nobody in [[224, 0, 0, 1], [255; 4], [127, 0, 0, 1], [0, 0, 0, 9]] {
        let asks = Message { relay: nobody.into(), ..message(Discover, 1) };
        assert_eq!(Request::parse(&asks.bytes()), Err(NotARequest::BadRelay(nobody.into())));
    }
    // A client without a relay says nothing of ports, and most relays don't.
    for other in [
        message(Discover, 1).with(OPT_RELAY_INFORMATION, &[RELAY_SOURCE_PORT, 0]),
        relayed(message(Discover, 1)).with(OPT_RELAY_INFORMATION, &[1, 1, RELAY_SOURCE_PORT]),
    ] {
        assert!(!Request::parse(&other.bytes()).unwrap().names_relay_port());
    }
}

#[test]
fn fields_and_options_are_those_of_table_3() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    let none = Ipv4Addr::UNSPECIFIED;
    let uefi = |kind| message(kind, 1).uefi().with(OPT_CLIENT_UUID, &[7; 17]);
    let elsewhere = Ipv4Addr::new(192, 168, 7, 7);
    for is_relayed in [false, true] {
        let ask = |server: &mut Server, message: Message| {
            let message = if is_relayed { relayed(message) } else { message };
            let reply = reply(server, &message);
            check_with_dhcproto(&reply);
            assert_eq!(option(&reply, OPT_SERVER_ID), Some(SERVER.octets().to_vec()));
            let last = options(&reply).last().copied();
            assert_eq!(last == Some(OPT_RELAY_INFORMATION), is_relayed, "{:?}", options(&reply));
            for never in [OPT_REQUESTED_ADDRESS, OPT_PARAMETER_LIST, OPT_MESSAGE_SIZE_MAX] {
                assert_eq!(option(&reply, never), None, "{never} is a client's");
            }
            reply
        };
        let relay = if is_relayed { ip(9) } else { none };
        let times = [OPT_LEASE_TIME, OPT_RENEWAL_TIME, OPT_REBINDING_TIME];

        let offer = ask(&mut server, on(ip(77), uefi(Discover)));
        assert_eq!(fields(&offer), ([none, address, SERVER, relay], true));
        assert!(times.iter().all(|&code| option(&offer, code).is_some()));

        let ack = ask(&mut server, on(ip(77), uefi(RequestKind::Request).wants(address)));
        assert_eq!(fields(&ack), ([none, address, SERVER, relay], true));
        let ack = ask(&mut server, on(address, uefi(RequestKind::Request)));
        assert_eq!(fields(&ack), ([address, address, SERVER, relay], true));
        assert!(times.iter().all(|&code| option(&ack, code).is_some()));

        let told = ask(&mut server, on(ip(7), message(Inform, 7)));
        assert_eq!(fields(&told), ([ip(7), none, none, relay], false));
        assert!(times.iter().all(|&code| option(&told, code).is_none()));
        assert!(option(&told, OPT_SUBNET_MASK).is_some());

        let wrong = on(elsewhere, Message { flags: 0, ..uefi(RequestKind::Request) });
        let nak = ask(&mut server, wrong.with(OPT_CLIENT_ID, b"\xffid"));
        assert_eq!(fields(&nak), ([none, none, none, relay], is_relayed));
        let mut left = vec![OPT_MESSAGE_TYPE, OPT_SERVER_ID, OPT_MESSAGE, OPT_CLIENT_ID];
        left.extend(is_relayed.then_some(OPT_RELAY_INFORMATION));
        assert_eq!(options(&nak), left);
    }
}

#[test]
fn a_machine_is_told_its_name_if_it_asks() {
    let mut server = machines(config());
    let mut told = |parameters: &[u8]| {
        let message = message(Discover, 1).with(OPT_PARAMETER_LIST, parameters);
        let mut request = Request::parse(&message.bytes()).expect("a request");
        request.name = Some("lab-07".to_owned());
        match server.on_request(&request, NOW) {
            Decision::Reply(reply) => option(&reply, OPT_HOST_NAME),
            other => panic!("no reply but {other:?}"),
        }
    };
    assert_eq!(told(&[1, OPT_HOST_NAME]).as_deref(), Some(&b"lab-07"[..]));
    assert_eq!(told(&[1, 3]), None);
}
