//! What is said in somebody else's name.

use super::*;

#[test]
fn nobody_takes_the_address_of_a_machine_that_runs() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    server.protect(BTreeMap::from([(mac(1), None)]));
    let release = Message { client: address, ..message(Release, 1) };
    let decline = message(Decline, 1).wants(address);
    for forged in [&release, &decline] {
        assert_eq!(silence(&mut server, forged), Reason::StillInUse(address));
    }
    let elsewhere = ip(if address == ip(100) { 101 } else { 100 });
    let moved = reply(&mut server, &message(RequestKind::Request, 1).wants(elsewhere));
    assert_eq!(moved.kind, ReplyKind::Nak);
    let same = reply(&mut server, &message(RequestKind::Request, 1).wants(address));
    assert_eq!((same.kind, same.address), (ReplyKind::Ack, address), "it may boot again");

    // Its lease is over, and still nobody else gets the address, though no other is left.
    let later = NOW + 3_600_000;
    let ask = |server: &mut Server, message: &Message| {
        let request = Request::parse(&message.bytes()).unwrap();
        server.on_request(&request, later)
    };
    for last in 2..=4 {
        let offer = ask(&mut server, &message(Discover, last).wants(address));
        let Decision::Reply(offer) = offer else { panic!("{offer:?}") };
        assert_ne!(offer.address, address);
    }
    let none = ask(&mut server, &message(Discover, 5).wants(address));
    assert!(matches!(none, Decision::Silent(Reason::PoolExhausted(..))), "{none:?}");
    let refused = ask(&mut server, &message(RequestKind::Request, 5).wants(address));
    assert!(matches!(refused, Decision::Reply(reply) if reply.kind == ReplyKind::Nak));

    // It is off: its address is as any other.
    server.protect(BTreeMap::new());
    let Decision::Reply(offer) = ask(&mut server, &message(Discover, 5).wants(address)) else {
        panic!("no offer")
    };
    assert_eq!(offer.address, address);
}

#[test]
fn the_address_that_a_machine_was_seen_at_is_kept_for_it_without_a_lease() {
    let mut server = machines(Config { pool: (ip(100), ip(103)), ..config() });
    let address = lease(&mut server, 1);
    // Somebody else has declined it before anybody knew that the machine runs.
    let declined = decide(&mut server, &message(Decline, 1).wants(address).chooses(SERVER));
    assert!(matches!(declined, Decision::Declined(..)), "{declined:?}");
    server.protect(BTreeMap::from([(mac(1), Some(address))]));
    let later = NOW + dhcp::DECLINED_SECONDS + 1;
    let offered = |server: &mut Server, last: u8, now| {
        let message = message(Discover, last).wants(address);
        match server.on_request(&Request::parse(&message.bytes()).unwrap(), now) {
            Decision::Reply(offer) => Some(offer.address),
            _ => None,
        }
    };
    let others: Vec<_> = (2..=6).map(|last| offered(&mut server, last, later)).collect();
    assert!(others.iter().flatten().count() >= 2 && !others.contains(&Some(address)), "{others:?}");
    let refused = decide_at(&mut server, &message(RequestKind::Request, 7).wants(address), later);
    assert!(!matches!(refused, Decision::Reply(reply) if reply.kind == ReplyKind::Ack));
    assert_eq!(offered(&mut server, 1, later), Some(address), "it boots again");

    // It is off.
    server.protect(BTreeMap::new());
    let off = later + 3600;
    let others: Vec<_> = (2..=6).filter_map(|last| offered(&mut server, last, off)).collect();
    assert!(others.contains(&address), "{others:?}");
}

#[test]
fn who_speaks_in_the_name_of_a_machine_that_was_given_its_address_just_now_moves_it_nowhere() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    let elsewhere = ip(if address == ip(100) { 101 } else { 100 });
    let wants = |last: u8, address| message(RequestKind::Request, last).wants(address);
    assert_eq!(reply(&mut server, &wants(1, elsewhere)).kind, ReplyKind::Nak);
    decide(&mut server, &Message { client: address, ..message(Release, 1) });
    assert_eq!(reply(&mut server, &wants(1, elsewhere)).kind, ReplyKind::Nak);
    assert_eq!(reply(&mut server, &wants(2, address)).kind, ReplyKind::Nak);
    assert_eq!(reply(&mut server, &wants(1, address)).kind, ReplyKind::Ack);
    // Later it is as any other.
    let moved = decide_at(&mut server, &wants(1, elsewhere), NOW + 60);
    assert!(matches!(moved, Decision::Reply(reply) if reply.kind == ReplyKind::Ack));
}

#[test]
fn one_who_declines_one_address_after_the_other_leaves_room_for_the_machines() {
    let mut server = Server::new(Config { pool: (ip(100), ip(119)), ..config() }, []);
    server.know((1..=4).map(mac).collect());
    for _ in 0..100 {
        let address = lease(&mut server, 1);
        let declined = decide(&mut server, &message(Decline, 1).wants(address).chooses(SERVER));
        assert!(matches!(declined, Decision::Declined(..)));
    }
    let usage = server.usage(NOW);
    assert!(usage.n_declined > 1 && usage.n_declined <= usage.n_strangers_max, "{usage:?}");
    for last in 2..=4 {
        lease(&mut server, last);
    }
}
