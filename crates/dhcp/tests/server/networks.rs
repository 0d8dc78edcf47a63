//! Several networks on interfaces and behind relays.

use super::*;
use dhcp::{Arrival, Networks, Place};

/// What relays ask from: the third one is where no client is.
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);

/// What a relay says of the port of its switch.
const PORT: &[u8] = b"\x01\x04port";

pub(crate) const HERE: Arrival = Arrival { interface: 0, is_unicast: false };
pub(crate) const SECOND: Arrival = Arrival { interface: 1, is_unicast: false };
const TO_US: Arrival = Arrival { interface: 0, is_unicast: true };

fn far(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, last)
}

pub(crate) fn second(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, last)
}

/// A network on each of two interfaces, and one behind relays that reach us by the first.
pub(crate) fn networks(leases: Vec<Lease>) -> Networks {
    let of = |server, address: fn(u8) -> Ipv4Addr| Config {
        server,
        subnet: address(0),
        pool: (address(100), address(103)),
        router: Some(address(254)),
        routes: Vec::new(),
        reserved: BTreeMap::new(),
        ..config()
    };
    let far = Config { prefix: 16, ..of(SERVER, far) };
    let all = [
        (Place::Link(0), Config { reserved: config().reserved, ..of(SERVER, ip) }),
        (Place::Link(1), of(second(1), second)),
        (Place::Relayed, far),
    ];
    let mut networks = Networks::new(all, leases);
    networks.know(&(0..=3).map(mac).collect());
    networks
}

fn decide(networks: &mut Networks, message: &Message, arrival: Arrival, now: u64) -> Decision {
    networks.on_request(&Request::parse(&message.bytes()).expect("a request"), arrival, now)
}

fn reply(networks: &mut Networks, message: &Message, arrival: Arrival) -> Reply {
    match decide(networks, message, arrival, NOW) {
        Decision::Reply(reply) => {
            check_with_dhcproto(&reply);
            *reply
        }
        other => panic!("no reply but {other:?}"),
    }
}

fn silence(networks: &mut Networks, message: &Message, arrival: Arrival) -> Reason {
    match decide(networks, message, arrival, NOW) {
        Decision::Silent(reason) => reason,
        other => panic!("not silent but {other:?}"),
    }
}

fn relayed(relay: Ipv4Addr, information: &[u8], message: Message) -> Message {
    Message { relay, ..message.with(OPT_RELAY_INFORMATION, information) }
}

fn link(code: u8, address: Ipv4Addr) -> Vec<u8> {
    let mut option = vec![1, 4, b'p', b'o', b'r', b't', code, 4];
    option.extend(address.octets());
    option
}

/// DISCOVER, REQUEST, with what `around` does to each.
fn get(
    networks: &mut Networks,
    last: u8,
    arrival: Arrival,
    around: impl Fn(Message) -> Message,
) -> Reply {
    let offer = reply(networks, &around(message(Discover, last)), arrival);
    let server = option(&offer, OPT_SERVER_ID).expect("it has one");
    let server: [u8; 4] = server.try_into().expect("an address");
    let wants = message(RequestKind::Request, last).wants(offer.address).chooses(server.into());
    let ack = reply(networks, &around(wants), arrival);
    assert_eq!((ack.kind, ack.address), (ReplyKind::Ack, offer.address));
    networks.on_stored(ack.lease.as_ref().expect("it is new"));
    ack
}

#[test]
fn each_interface_has_its_own_network() {
    let mut networks = networks(vec![]);
    for (last, arrival, server, router) in
        [(1, HERE, SERVER, ip(254)), (2, SECOND, second(1), second(254))]
    {
        let ack = get(&mut networks, last, arrival, Message::bios);
        assert_eq!(ack.address.octets()[..3], server.octets()[..3]);
        assert_eq!(option(&ack, OPT_ROUTER), Some(router.octets().to_vec()));
        assert_eq!(option(&ack, OPT_SERVER_ID), Some(server.octets().to_vec()));
        assert_eq!(option(&ack, OPT_TFTP_SERVER), Some(format!("{server}\0").into_bytes()));
        assert_eq!(ack.bytes[20..24], server.octets());
        assert_eq!(ack.to, Destination::Frame(mac(last), ack.address));
    }
    let nowhere = Arrival { interface: 7, ..HERE };
    assert_eq!(silence(&mut networks, &message(Discover, 3), nowhere), Reason::NoNetworkHere);
}

#[test]
fn a_relay_s_address_says_which_network() {
    let mut networks = networks(vec![]);
    let around = |message| relayed(RELAY, b"\x01\x04port", message);
    // It does not matter by which interface it comes.
    for (last, arrival) in [(1, TO_US), (2, SECOND)] {
        let ack = get(&mut networks, last, arrival, |message| around(message.bios()));
        assert_eq!(ack.address.octets()[..3], [10, 20, 0]);
        assert_eq!(ack.to, Destination::Relay(RELAY, SERVER_PORT));
        assert_eq!(option(&ack, OPT_SUBNET_MASK), Some(vec![255, 255, 0, 0]));
        assert_eq!(option(&ack, OPT_BROADCAST_ADDRESS), Some(vec![10, 20, 255, 255]));
        assert_eq!(option(&ack, OPT_ROUTER), Some(far(254).octets().to_vec()));
        assert_eq!(ack.bytes[20..24], SERVER.octets(), "next server");
        assert_eq!(option(&ack, OPT_RELAY_INFORMATION).as_deref(), Some(&b"\x01\x04port"[..]));
    }
    let foreign = relayed(ELSEWHERE, PORT, message(Discover, 3));
    assert_eq!(silence(&mut networks, &foreign, TO_US), Reason::ForeignRelay(ELSEWHERE));
}

/// Else one host of a network uses up the addresses of all others, and moves their machines.
#[test]
fn nobody_speaks_for_the_clients_of_another_interface() {
    let mut networks = networks(vec![]);
    let relay = second(200);
    let forged = relayed(relay, PORT, message(Discover, 1).bios());
    for arrival in [HERE, TO_US] {
        assert_eq!(silence(&mut networks, &forged, arrival), Reason::ForeignRelay(relay));
    }
    let named = relayed(RELAY, &link(RELAY_LINK_SELECTION, second(0)), message(Discover, 1));
    assert!(matches!(silence(&mut networks, &named, TO_US), Reason::ForeignLink(..)));
    let mut renews = message(RequestKind::Request, 1);
    renews.client = second(101);
    let told = decide(&mut networks, &renews, TO_US, NOW);
    assert!(!matches!(&told, Decision::Reply(reply) if reply.lease.is_some()), "{told:?}");
    // A relay on that interface may be one.
    let Decision::Reply(_) = decide(&mut networks, &forged, SECOND, NOW) else { panic!() };
}

/// RFC 3527, and RFC 3011.
#[test]
fn a_relay_with_an_address_elsewhere_names_the_network() {
    let mut networks = networks(vec![]);
    let selection = link(RELAY_LINK_SELECTION, far(0));
    let ack = get(&mut networks, 1, TO_US, |message| relayed(ELSEWHERE, &selection, message));
    assert_eq!((ack.address.octets()[1], ack.to), (20, Destination::Relay(ELSEWHERE, SERVER_PORT)));
    assert_eq!(option(&ack, OPT_RELAY_INFORMATION), Some(selection.clone()), "as it came");

    let subnet = |message: Message| {
        let message = message.with(OPT_SUBNET_SELECTION, &far(0).octets());
        Message { relay: ELSEWHERE, ..message }
    };
    let ack = get(&mut networks, 2, TO_US, subnet);
    assert_eq!((ack.address.octets()[1], ack.to), (20, Destination::Relay(ELSEWHERE, SERVER_PORT)));
    assert_eq!(option(&ack, OPT_SUBNET_SELECTION), Some(far(0).octets().to_vec()));

    let foreign = relayed(RELAY, &link(RELAY_LINK_SELECTION, ELSEWHERE), message(Discover, 3));
    assert_eq!(silence(&mut networks, &foreign, TO_US), Reason::ForeignLink(RELAY, ELSEWHERE));
    // Nobody but a relay chooses the network.
    let alone = message(Discover, 3).with(OPT_SUBNET_SELECTION, &far(0).octets());
    let alone = alone.with(OPT_RELAY_INFORMATION, &selection);
    assert_eq!(reply(&mut networks, &alone, HERE).address.octets()[1], 77);
}

/// RFC 5107.
#[test]
fn a_relay_that_wants_to_be_spoken_to_names_itself_as_the_server() {
    let mut networks = networks(vec![]);
    let option_82 = link(RELAY_SERVER_OVERRIDE, RELAY);
    let around = |message| relayed(RELAY, &option_82, message);
    let ack = get(&mut networks, 1, TO_US, around);
    assert_eq!(option(&ack, OPT_SERVER_ID), Some(RELAY.octets().to_vec()));
    assert_eq!(ack.bytes[20..24], [0; 4], "that is no loader's server");
    let renewal = Message { client: ack.address, ..message(RequestKind::Request, 1) };
    let renewed = reply(&mut networks, &around(renewal), TO_US);
    assert_eq!(
        (renewed.kind, renewed.to),
        (ReplyKind::Ack, Destination::Relay(RELAY, SERVER_PORT))
    );
    // Without the relay's word its address is another server's.
    let other = message(RequestKind::Request, 1).wants(ack.address).chooses(RELAY);
    assert_eq!(silence(&mut networks, &other, HERE), Reason::OtherServer(RELAY));
    let other = message(RequestKind::Request, 2).wants(ip(101)).chooses(RELAY);
    assert_eq!(silence(&mut networks, &other, HERE), Reason::OtherServer(RELAY));
}

#[test]
fn who_prolongs_his_lease_past_the_relay_is_answered_himself() {
    let mut networks = networks(vec![]);
    let address = get(&mut networks, 1, TO_US, |it| relayed(RELAY, PORT, it)).address;
    let renewal = Message { client: address, ..message(RequestKind::Request, 1) };
    let ack = reply(&mut networks, &renewal, TO_US);
    assert_eq!((ack.kind, ack.to), (ReplyKind::Ack, Destination::Unicast(address)));
    // He knows us by any address of ours.
    let selecting = message(RequestKind::Request, 1).wants(address).chooses(second(1));
    let ack = reply(&mut networks, &relayed(RELAY, PORT, selecting), TO_US);
    assert_eq!(ack.kind, ReplyKind::Ack);
    // And so is he who gives it back.
    let release = Message { client: address, ..message(Release, 1) };
    let released = decide(&mut networks, &release, TO_US, NOW);
    assert!(matches!(released, Decision::Released(lease) if lease.address == address));
    // Who asks everybody is where he is heard.
    let moved = Message { client: far(99), ..message(RequestKind::Request, 2) };
    let nak = reply(&mut networks, &moved, HERE);
    assert_eq!((nak.kind, nak.to), (ReplyKind::Nak, Destination::Broadcast));
    // Whom nobody but a router reaches hears no broadcast.
    let wrong = Message { client: far(99), ..message(RequestKind::Request, 2) };
    assert_eq!(silence(&mut networks, &wrong, TO_US), Reason::Others(far(99)));
    let held = Message { client: address, ..stranger(RequestKind::Request, 7) };
    networks.protect(&BTreeMap::from([(mac(1), Some(address))]));
    let nak = reply(&mut networks, &held, TO_US);
    assert_eq!((nak.kind, nak.to), (ReplyKind::Nak, Destination::Unicast(address)));
}

#[test]
fn a_machine_that_is_moved_leaves_its_former_address() {
    let mut networks = networks(vec![]);
    let former = get(&mut networks, 1, HERE, |it| it).address;
    // It was given that just now: anybody could say that it is elsewhere.
    let elsewhere = message(Discover, 1);
    assert_eq!(silence(&mut networks, &elsewhere, SECOND), Reason::InUseElsewhere(former));
    let later = NOW + 60;
    let Decision::Reply(offer) = decide(&mut networks, &elsewhere, SECOND, later) else {
        panic!("no offer")
    };
    assert_eq!(offer.address.octets()[1], 88);
    let request = message(RequestKind::Request, 1).wants(offer.address).chooses(second(1));
    let Decision::Reply(ack) = decide(&mut networks, &request, SECOND, later) else {
        panic!("no ACK")
    };
    assert!(ack.lease.is_some());
    // Nobody waits for the end of the lease that it has no more.
    for last in 2..=3 {
        get(&mut networks, last, HERE, |it| it);
    }
    let alive = networks.on_alive(mac(1), later + 3600).expect("it is prolonged where it is");
    assert_eq!(alive.address, offer.address);
    networks.protect(&BTreeMap::from([(mac(1), Some(offer.address))]));
    let forged = message(RequestKind::Request, 1).wants(former).chooses(SERVER);
    assert_eq!(silence(&mut networks, &forged, HERE), Reason::InUseElsewhere(offer.address));
}

#[test]
fn who_says_that_he_is_a_relay_takes_no_machine_from_its_own_link() {
    let mut networks = networks(vec![]);
    let around = |it| relayed(RELAY, PORT, it);
    let there = get(&mut networks, 1, TO_US, around).address;
    // The PC is switched on, and is here.
    let own = get(&mut networks, 1, HERE, Message::bios).address;
    assert_eq!(own.octets()[..3], [10, 77, 0]);
    let forged = around(message(Discover, 1));
    assert_eq!(silence(&mut networks, &forged, TO_US), Reason::InUseElsewhere(own));
    // Where it runs is proven.
    let later = NOW + 60;
    let wants = around(message(Discover, 1));
    assert!(matches!(decide(&mut networks, &wants, TO_US, later), Decision::Reply(_)));
    networks.protect(&BTreeMap::from([(mac(1), Some(own))]));
    assert_eq!(silence(&mut networks, &wants, TO_US), Reason::InUseElsewhere(own));
    // Nor by a message past the relay, of which nothing shows that it is from there.
    let free = if there == far(103) { far(100) } else { far(103) };
    let past = Message { client: free, ..message(RequestKind::Request, 2) };
    assert_eq!(silence(&mut networks, &past, TO_US), Reason::Others(free));
}

#[test]
fn leases_are_remembered_where_they_were() {
    let lease =
        |last, address| Lease { mac: mac(last), address, expires_unix: NOW + 100, host_name: None };
    let mut networks = networks(vec![lease(1, ip(102)), lease(2, second(102)), lease(3, far(102))]);
    assert_eq!(reply(&mut networks, &message(Discover, 1), HERE).address, ip(102));
    assert_eq!(reply(&mut networks, &message(Discover, 2), SECOND).address, second(102));
    let relayed = relayed(RELAY, PORT, message(Discover, 3));
    assert_eq!(reply(&mut networks, &relayed, TO_US).address, far(102));
    let declined = message(Decline, 3).wants(far(102));
    let declined = Message { relay: RELAY, ..declined };
    assert!(matches!(decide(&mut networks, &declined, TO_US, NOW), Decision::Declined(..)));
    networks.rest(far(103), NOW + 9);
    assert_eq!(networks.usage(NOW).n_declined, 2);
    assert_eq!((networks.usage(NOW).n_addresses, networks.usage(NOW).n_known), (12, 2));
}

#[test]
fn machines_of_one_network_need_no_room_in_another() {
    // Three of four machines are at home elsewhere.
    let lease = |last| Lease {
        mac: mac(last),
        address: second(100 + last),
        expires_unix: NOW + 100,
        host_name: None,
    };
    let mut networks = networks(vec![lease(1), lease(2), lease(3)]);
    let mut discover =
        |number, arrival| decide(&mut networks, &stranger(Discover, number), arrival, NOW);
    assert!(matches!(discover(1, HERE), Decision::Reply(_)));
    assert!(matches!(discover(2, HERE), Decision::Reply(_)));
    assert_eq!(discover(3, HERE), Decision::Silent(Reason::StrangersShareExhausted(2)));
    assert_eq!(discover(4, SECOND), Decision::Silent(Reason::StrangersShareExhausted(0)));
}

proptest! {
    #[test]
    fn random_requests_of_relays_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..60),
        kind in 0..9u8,
        last in any::<u8>(),
        relay in prop_oneof![Just(RELAY), Just(ELSEWHERE), Just(Ipv4Addr::UNSPECIFIED)],
    ) {
        let mut networks = networks(vec![]);
        let wild = Message { kind, ..relayed(relay, &noise, message(Discover, last)) };
        if let Ok(request) = Request::parse(&wild.bytes()) {
            let _ = networks.on_request(&request, TO_US, NOW);
        }
    }
}
