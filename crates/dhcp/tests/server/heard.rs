//! Addresses that somebody was heard to have.

use super::*;
use dhcp::{DECLINED_SECONDS, Heard};

#[test]
fn an_address_that_somebody_has_is_offered_to_nobody_and_rests() {
    let mut server = Server::new(config(), []);
    assert_eq!(server.unleased(None, 2, NOW), (vec![ip(100), ip(101)], Some(ip(102))));
    assert_eq!(server.unleased(Some(ip(102)), 9, NOW), (vec![ip(102), ip(103)], None));
    let until = NOW + DECLINED_SECONDS;
    server.know((0..=4).map(mac).collect());
    for last in [100, 101, 102] {
        assert_eq!(server.heard(mac(90 + last), ip(last), NOW), Heard::Rests(until));
    }
    // Who says that he has each of them takes half of them away at most.
    for client in 1..3 {
        let offer = reply(&mut server, &message(Discover, client).wants(ip(101)));
        assert!([ip(100), ip(103)].contains(&offer.address), "{}", offer.address);
    }
    // Those that rest are asked for again.
    assert_eq!(server.unleased(None, 9, NOW).0.len(), 4);
}

#[test]
fn an_offer_of_an_address_that_somebody_has_is_taken_back() {
    let mut server = Server::new(config(), []);
    let offer = reply(&mut server, &message(Discover, 1));
    assert_eq!(server.heard(mac(1), offer.address, NOW), Heard::Right, "the client itself");
    assert!(matches!(server.heard(mac(9), offer.address, NOW), Heard::Rests(_)));
    let asks = message(RequestKind::Request, 1).wants(offer.address).chooses(SERVER);
    let refused = reply(&mut server, &asks);
    assert_eq!(refused.kind, ReplyKind::Nak);
    let again = reply(&mut server, &message(Discover, 1));
    assert_ne!(again.address, offer.address);
}

#[test]
fn who_has_leased_it_keeps_it_and_the_conflict_is_told() {
    let lease = Lease { mac: mac(1), address: ip(100), expires_unix: NOW + 60, host_name: None };
    let mut server = Server::new(config(), [lease]);
    assert_eq!(server.heard(mac(1), ip(100), NOW), Heard::Right);
    assert_eq!(server.heard(mac(9), ip(100), NOW), Heard::Conflict(mac(1)));
    assert_eq!(server.unleased(None, 1, NOW), (vec![], Some(ip(101))));
    // When it has ended somebody else may be there, or the client still.
    assert_eq!(server.heard(mac(1), ip(100), NOW + 60), Heard::Right);
    assert!(matches!(server.heard(mac(9), ip(100), NOW + 60), Heard::Rests(_)));
    for address in [ip(50), SERVER, ip(7)] {
        assert_eq!(server.heard(mac(9), address, NOW), Heard::Right, "none that anybody gets");
    }
}

#[test]
fn no_address_of_the_server_s_is_given() {
    let mut server = machines(Config { others: vec![ip(100), ip(101)], ..config() });
    for client in 1..3 {
        let offer = reply(&mut server, &message(Discover, client).wants(ip(100)));
        assert!([ip(102), ip(103)].contains(&offer.address), "{}", offer.address);
    }
}
