//! What people change of leases while the server runs.

use super::networks::{HERE, SECOND, networks, second};
use super::*;
use dhcp::Networks;

fn imported(last: u8, address: Ipv4Addr) -> Lease {
    Lease { mac: mac(last), address, expires_unix: NOW + 7200, host_name: None }
}

fn ask(networks: &mut Networks, message: &Message) -> Decision {
    networks.on_request(&Request::parse(&message.bytes()).expect("a request"), HERE, NOW)
}

/// The address that a client is offered.
fn offered(networks: &mut Networks, last: u8) -> Option<Ipv4Addr> {
    match ask(networks, &message(Discover, last)) {
        Decision::Reply(reply) => Some(reply.address),
        _ => None,
    }
}

#[test]
fn clients_of_another_server_keep_their_addresses() {
    let mut networks = networks(vec![]);
    let leases = [imported(200, ip(103)), imported(201, ip(102)), imported(2, second(101))];
    assert_eq!(networks.take(&leases, NOW), 3);
    // After a restart it asks for its address at once (INIT-REBOOT); another one looks for any.
    let Decision::Reply(again) =
        ask(&mut networks, &message(RequestKind::Request, 200).wants(ip(103)))
    else {
        panic!("no answer")
    };
    assert_eq!((again.kind, again.address), (ReplyKind::Ack, ip(103)));
    assert_eq!(offered(&mut networks, 201), Some(ip(102)));
    for last in [1, 3] {
        let other = offered(&mut networks, last).expect("there are two more");
        assert!([ip(100), ip(101)].contains(&other), "{other}");
    }
    let far = Request::parse(&message(Discover, 2).bytes()).expect("a request");
    let Decision::Reply(offer) = networks.on_request(&far, SECOND, NOW) else { panic!("none") };
    assert_eq!(offer.address, second(101));
}

#[test]
fn who_was_heard_before_the_import_is_the_client_itself() {
    let mut networks = networks(vec![]);
    networks.heard(0, mac(200), ip(103), NOW);
    let wants = message(RequestKind::Request, 200).wants(ip(103));
    let Decision::Reply(refused) = ask(&mut networks, &wants) else { panic!("no answer") };
    assert_eq!(refused.kind, ReplyKind::Nak);
    assert_eq!(networks.take(&[imported(200, ip(103))], NOW), 1);
    let Decision::Reply(again) = ask(&mut networks, &wants) else { panic!("no answer") };
    assert_eq!((again.kind, again.address), (ReplyKind::Ack, ip(103)));
}

#[test]
fn what_was_given_meanwhile_counts_more() {
    let mut networks = networks(vec![imported(1, ip(101)), imported(3, ip(100))]);
    let leases = [
        imported(200, ip(101)),
        imported(1, ip(102)),
        imported(201, ip(50)),
        imported(202, SERVER),
        imported(203, Ipv4Addr::new(192, 168, 9, 9)),
        imported(3, ip(100)),
    ];
    assert_eq!(networks.take(&leases, NOW), 1, "only what its client has anyway");
    assert_eq!(offered(&mut networks, 1), Some(ip(101)));
}

#[test]
fn a_freed_address_is_for_others_and_its_client_is_as_any_other() {
    let leases = (0..4).map(|n| imported(n, ip(100 + n))).collect();
    let mut networks = networks(leases);
    networks.know(&(0..=9).map(mac).collect());
    assert_eq!(offered(&mut networks, 9), None, "all are leased");
    networks.free(mac(2), ip(101));
    assert_eq!(offered(&mut networks, 9), None, "it is another one's");
    networks.free(mac(2), ip(102));
    assert_eq!(offered(&mut networks, 9), Some(ip(102)));
    networks.rest(ip(102), NOW + 600);
    networks.free(mac(9), ip(102));
    assert_eq!(offered(&mut networks, 8), None);
    networks.stop_resting(ip(102));
    networks.on_request(&Request::parse(&message(Discover, 9).bytes()).expect("one"), HERE, NOW);
    assert!(offered(&mut networks, 8).is_none(), "the other one was offered it again");
}

#[test]
fn an_address_that_is_fixed_later_is_its_owner_s_alone() {
    let mut networks = networks(vec![imported(1, ip(101))]);
    let before = networks.usage(NOW).n_addresses;
    let fixed =
        BTreeMap::from([(mac(1), ip(103)), (mac(50), ip(60)), (mac(4), ip(50)), (mac(5), SERVER)]);
    networks.reserve(&fixed);
    assert_eq!(networks.usage(NOW).n_addresses, before - 1);
    assert_eq!(offered(&mut networks, 1), Some(ip(103)));
    assert_eq!(offered(&mut networks, 50), Some(ip(50)), "the configuration counts more");
    let wants = message(RequestKind::Request, 2).wants(ip(103));
    let Decision::Reply(refused) = ask(&mut networks, &wants) else { panic!("no answer") };
    assert_eq!(refused.kind, ReplyKind::Nak);
    // Its client goes there when it renews.
    let Decision::Reply(refused) =
        ask(&mut networks, &message(RequestKind::Request, 1).wants(ip(101)))
    else {
        panic!("no answer")
    };
    assert!(refused.why.as_deref().unwrap_or_default().contains("10.77.0.103 is reserved for you"));
    networks.reserve(&BTreeMap::new());
    assert_eq!(networks.usage(NOW).n_addresses, before);
    assert_eq!(offered(&mut networks, 1), Some(ip(101)), "what it had last");
}

#[test]
fn a_lease_without_end_gets_one_when_its_client_asks() {
    let forever = Lease { expires_unix: NOW + u64::from(u32::MAX), ..imported(1, ip(101)) };
    let mut server = Server::new(config(), [forever]);
    server.know([mac(1)].into());
    let ack = reply(&mut server, &message(RequestKind::Request, 1).wants(ip(101)));
    assert_eq!(option(&ack, OPT_LEASE_TIME), Some(3600u32.to_be_bytes().to_vec()));
    assert_eq!(ack.lease.expect("it ends now").expires_unix, NOW + 7200);
}
