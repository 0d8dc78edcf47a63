//! Clients as they were seen on the wire, and what they are told.

mod changed;
mod forged;
mod heard;
mod loaders;
mod networks;
mod proxy;
mod replies;
mod served;

use dhcp::RequestKind::{Decline, Discover, Inform, Release};
use dhcp::option_codes::*;
use dhcp::{
    Config, Decision, Destination, NotARequest, NotDhcp, Reason, Reply, ReplyKind, Request,
    RequestKind, SERVER_PORT, Server, Usage,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wire::{Lease, Mac};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NOW: u64 = 1_800_000_000;

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0x77, 0, last])
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn config() -> Config {
    Config {
        server: SERVER,
        others: vec![],
        subnet: ip(0),
        prefix: 24,
        pool: (ip(100), ip(103)),
        reserved: BTreeMap::from([(mac(50), ip(50))]),
        router: Some(ip(254)),
        routes: Vec::new(),
        dns: vec![SERVER],
        ntp: vec![SERVER],
        domain: Some("lab.example".into()),
        serve_everyone: true,
        lease_seconds: 3600,
        bios_file: "bl.0".into(),
        uefi_x64_file: "bl.efi".into(),
        uefi_arm64_file: "bl-arm64.efi".into(),
    }
}

/// A message as a client sends it.
#[derive(Clone)]
struct Message {
    kind: u8,
    mac: Mac,
    client: Ipv4Addr,
    relay: Ipv4Addr,
    flags: u16,
    options: Vec<u8>,
}

fn message(kind: RequestKind, last: u8) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    Message {
        kind: kind.code(),
        mac: mac(last),
        client: none,
        relay: none,
        flags: 0,
        options: vec![],
    }
}

impl Message {
    fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend([code, value.len() as u8]);
        self.options.extend(value);
        self
    }

    fn wants(self, address: Ipv4Addr) -> Self {
        self.with(OPT_REQUESTED_ADDRESS, &address.octets())
    }

    fn chooses(self, server: Ipv4Addr) -> Self {
        self.with(OPT_SERVER_ID, &server.octets())
    }

    /// As the iPXE ROM of a BIOS PC sends it.
    fn bios(self) -> Self {
        self.with(OPT_CLIENT_ARCHITECTURE, &[0, 0])
            .with(OPT_VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001")
            .with(OPT_USER_CLASS, b"iPXE")
            .with(OPT_IPXE, &[0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0])
            .with(OPT_CLIENT_UUID, &[0; 17])
    }

    /// As EDK2 sends it: a list of options, no client identifier, and an absurd largest message.
    fn uefi(mut self) -> Self {
        self.flags = 0x8000;
        self.with(OPT_MESSAGE_SIZE_MAX, &[0xff, 0])
            .with(OPT_CLIENT_ARCHITECTURE, &[0, 7])
            .with(OPT_VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003000")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 4];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.client.octets());
        bytes.extend([0; 8]);
        bytes.extend(self.relay.octets());
        bytes.extend(self.mac.0);
        bytes.extend([0; 202]);
        bytes.extend([99, 130, 83, 99, OPT_MESSAGE_TYPE, 1, self.kind]);
        bytes.extend(&self.options);
        bytes.push(OPT_END);
        bytes
    }
}

/// A server that knows all clients of these tests.
fn machines(config: Config) -> Server {
    let mut server = Server::new(config, []);
    server.know((0..=255).map(mac).collect());
    server
}

fn decide(server: &mut Server, message: &Message) -> Decision {
    server.on_request(&Request::parse(&message.bytes()).expect("a request"), NOW)
}

fn reply(server: &mut Server, message: &Message) -> Reply {
    match decide(server, message) {
        Decision::Reply(reply) => *reply,
        other => panic!("no reply but {other:?}"),
    }
}

fn silence(server: &mut Server, message: &Message) -> Reason {
    match decide(server, message) {
        Decision::Silent(reason) => reason,
        other => panic!("not silent but {other:?}"),
    }
}

/// The value of an option in a reply.
fn option(reply: &Reply, code: u8) -> Option<Vec<u8>> {
    let mut options = &reply.bytes[240..];
    while let [found, length, rest @ ..] = options {
        if *found == OPT_END || *found == OPT_PAD {
            return None;
        }
        let (value, rest) = rest.split_at(usize::from(*length));
        if *found == code {
            return Some(value.to_vec());
        }
        options = rest;
    }
    None
}

/// DISCOVER, REQUEST: the address that the client gets.
fn lease(server: &mut Server, last: u8) -> Ipv4Addr {
    let offer = reply(server, &message(Discover, last));
    assert_eq!(offer.kind, ReplyKind::Offer);
    let ack =
        reply(server, &message(RequestKind::Request, last).wants(offer.address).chooses(SERVER));
    assert_eq!((ack.kind, ack.address), (ReplyKind::Ack, offer.address));
    assert_eq!(ack.lease.expect("an ACK has a lease to store").address, offer.address);
    ack.address
}

#[test]
fn a_bios_pc_gets_an_address_and_its_loader() {
    let mut server = machines(config());
    let offer = reply(&mut server, &message(Discover, 1).bios());
    assert_eq!(offer.to, Destination::Frame(mac(1), offer.address));
    assert_eq!(offer.lease, None, "an offer is not yet a lease");
    assert_eq!(option(&offer, OPT_MESSAGE_TYPE), Some(vec![ReplyKind::Offer.code()]));
    assert_eq!(offer.bytes[240], OPT_MESSAGE_TYPE, "ROMs look for the message type first");
    for (code, value) in [
        (OPT_SUBNET_MASK, &[255, 255, 255, 0][..]),
        (OPT_ROUTER, &[10, 77, 0, 254]),
        (OPT_DNS_SERVER, &[10, 77, 0, 1]),
        (OPT_NTP_SERVER, &[10, 77, 0, 1]),
        (OPT_DOMAIN_NAME, b"lab.example"),
        (OPT_BROADCAST_ADDRESS, &[10, 77, 0, 255]),
        (OPT_LEASE_TIME, &3600u32.to_be_bytes()),
        (OPT_SERVER_ID, &[10, 77, 0, 1]),
        (OPT_RENEWAL_TIME, &1800u32.to_be_bytes()),
        (OPT_REBINDING_TIME, &3150u32.to_be_bytes()),
        (OPT_VENDOR_CLASS, b"PXEClient"),
        (OPT_VENDOR_SPECIFIC, &[PXE_DISCOVERY_CONTROL, 1, 8, OPT_END]),
        (OPT_TFTP_SERVER, b"10.77.0.1\0"),
        (OPT_BOOT_FILE, b"bl.0\0"),
        (OPT_CLIENT_UUID, &[0; 17]),
        (OPT_IPXE, &[IPXE_NO_PROXY, 1, 1]),
    ] {
        assert_eq!(option(&offer, code).as_deref(), Some(value), "option {code}");
    }
    assert_eq!(offer.bytes[20..24], [10, 77, 0, 1], "next server");
    assert_eq!(offer.bytes[108..113], *b"bl.0\0", "file");
    assert!(offer.bytes.len() >= 300, "shorter replies are dropped by some clients");
}

#[test]
fn a_uefi_pc_gets_its_loader_without_the_options_that_send_it_to_a_boot_server() {
    let mut server = machines(config());
    for architecture in [7, 9] {
        let mut uefi = message(Discover, 2).uefi();
        let at = uefi
            .options
            .windows(4)
            .position(|bytes| bytes == [OPT_CLIENT_ARCHITECTURE, 2, 0, 7])
            .unwrap();
        uefi.options[at + 3] = architecture;
        let offer = reply(&mut server, &uefi);
        assert_eq!(option(&offer, OPT_BOOT_FILE).as_deref(), Some(&b"bl.efi\0"[..]));
        assert_eq!(
            (option(&offer, OPT_VENDOR_CLASS), option(&offer, OPT_VENDOR_SPECIFIC)),
            (None, None)
        );
        assert_eq!(offer.to, Destination::Broadcast, "it asked for broadcasts");
    }
}

#[test]
fn who_is_no_firmware_gets_an_address_and_nothing_to_boot() {
    let mut server = machines(config());
    let offer = reply(
        &mut server,
        &message(Discover, 3)
            .with(OPT_PARAMETER_LIST, &[OPT_SUBNET_MASK, OPT_ROUTER])
            .with(OPT_CLIENT_ID, b"\xffduid"),
    );
    assert_eq!((option(&offer, OPT_BOOT_FILE), option(&offer, OPT_DNS_SERVER)), (None, None));
    assert_eq!(option(&offer, OPT_CLIENT_ID).as_deref(), Some(&b"\xffduid"[..]), "RFC 6842");
}

#[test]
fn one_machine_keeps_one_address_whatever_asks_in_it() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    assert_eq!(reply(&mut server, &message(Discover, 1).bios()).address, address);
    assert_eq!(
        reply(&mut server, &message(Discover, 1).with(OPT_CLIENT_ID, b"\xffother")).address,
        address
    );
    let renewal = Message { client: address, ..message(RequestKind::Request, 1) };
    let ack = reply(&mut server, &renewal);
    assert_eq!((ack.kind, ack.to), (ReplyKind::Ack, Destination::Unicast(address)));
    let reboot = reply(&mut server, &message(RequestKind::Request, 1).wants(address));
    assert_eq!((reboot.kind, reboot.address), (ReplyKind::Ack, address));
}

#[test]
fn a_client_that_was_never_heard_is_told_nothing_of_the_address_that_it_had() {
    let mut server = machines(config());
    let again = message(RequestKind::Request, 1).wants(ip(102));
    assert_eq!(silence(&mut server, &again), Reason::NoRecord(ip(102)));
    // It looks for a server then, and gets what it had.
    assert_eq!(reply(&mut server, &message(Discover, 1).wants(ip(102))).address, ip(102));
    let ack = reply(&mut server, &again);
    assert_eq!((ack.kind, ack.address), (ReplyKind::Ack, ip(102)), "it was offered that");
    // Its address is another one's, or of another network: this is known without a record of it.
    for wanted in [ip(102), Ipv4Addr::new(192, 168, 1, 7)] {
        let moved = reply(&mut server, &message(RequestKind::Request, 2).wants(wanted));
        assert_eq!(moved.kind, ReplyKind::Nak, "{wanted}");
    }
}

#[test]
fn leases_are_remembered_over_a_restart() {
    let mut server = machines(config());
    let discover = message(Discover, 1).wants(ip(102));
    let offer = reply(&mut server, &discover);
    assert_eq!(offer.address, ip(102), "a free address is given as wanted");
    let ack = reply(&mut server, &message(RequestKind::Request, 1).wants(ip(102)).chooses(SERVER));
    let mut again = Server::new(config(), ack.lease);
    assert_eq!(reply(&mut again, &message(Discover, 1)).address, ip(102));
    assert_ne!(reply(&mut again, &message(Discover, 2).wants(ip(102))).address, ip(102));
}

#[test]
fn a_machine_that_runs_keeps_its_address_though_no_client_renews_it() {
    let mut server = machines(config());
    let address = get(&mut server, &message(Discover, 1), NOW).unwrap().address;
    assert!(server.on_alive(mac(1), NOW + 100).is_none(), "more than half is left");
    let prolonged = server.on_alive(mac(1), NOW + 3600).unwrap();
    assert_eq!((prolonged.address, prolonged.expires_unix), (address, NOW + 3600 + 7200));
    assert!(server.on_alive(mac(1), NOW + 3700).is_some(), "that was not stored yet");
    server.on_stored(&Lease { expires_unix: NOW + 3700 + 7200, ..prolonged });
    assert!(server.on_alive(mac(1), NOW + 3800).is_none());
    assert!(server.on_alive(mac(2), NOW).is_none(), "it has no lease");
}

#[test]
fn an_address_that_is_not_the_client_s_is_refused() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    for wrong in [
        message(RequestKind::Request, 2).wants(address),
        message(RequestKind::Request, 2).wants(Ipv4Addr::new(192, 168, 1, 5)),
    ] {
        let nak = reply(&mut server, &wrong);
        assert_eq!((nak.kind, nak.to), (ReplyKind::Nak, Destination::Broadcast));
        assert_eq!(nak.bytes[16..20], [0; 4], "a NAK gives no address");
        assert!(option(&nak, OPT_LEASE_TIME).is_none());
    }
    let through_relay = Message { relay: ip(9), ..message(RequestKind::Request, 2).wants(address) };
    assert_eq!(reply(&mut server, &through_relay).to, Destination::Relay(ip(9), SERVER_PORT));
}

#[test]
fn reserved_addresses_are_the_owner_s_alone() {
    let mut server = machines(config());
    assert_eq!(lease(&mut server, 50), ip(50));
    let other = reply(&mut server, &message(RequestKind::Request, 1).wants(ip(50)));
    assert_eq!(other.kind, ReplyKind::Nak);
    let owner = reply(&mut server, &message(RequestKind::Request, 50).wants(ip(100)));
    assert_eq!(owner.kind, ReplyKind::Nak, "it shall ask again and get its own");
}

#[test]
fn a_full_pool_reuses_what_ended_longest_ago_and_then_says_so() {
    let mut server = machines(config());
    for last in 1..=4 {
        lease(&mut server, last);
    }
    let reason = silence(&mut server, &message(Discover, 5));
    assert!(reason.to_string().contains("make the pool larger"), "{reason}");
    let third = reply(&mut server, &message(Discover, 3)).address;
    let released = Message { client: third, ..message(Release, 3) };
    assert!(
        matches!(decide(&mut server, &released), Decision::Released(lease) if lease.address == third)
    );
    // The machine may have been on its way to use it: anybody can say this in its name.
    let asks = message(Discover, 5);
    let early = decide_at(&mut server, &asks, NOW + 59);
    assert!(matches!(early, Decision::Silent(Reason::PoolExhausted(..))), "{early:?}");
    let Decision::Reply(offer) = decide_at(&mut server, &asks, NOW + 60) else {
        panic!("no offer")
    };
    assert_eq!(offer.address, third);
}

#[test]
fn a_declined_address_rests() {
    let mut server = machines(config());
    let address = lease(&mut server, 1);
    let declined = decide(&mut server, &message(Decline, 1).wants(address).chooses(SERVER));
    assert_eq!(declined, Decision::Declined(address, NOW + 600));
    assert_ne!(lease(&mut server, 1), address);
    let stranger = message(Decline, 9).wants(ip(103)).chooses(SERVER);
    assert_eq!(silence(&mut server, &stranger), Reason::NotDeclined(ip(103)));
}

#[test]
fn another_server_s_clients_are_left_alone() {
    let mut server = machines(config());
    let other = Ipv4Addr::new(10, 77, 0, 2);
    let reason =
        silence(&mut server, &message(RequestKind::Request, 1).wants(ip(100)).chooses(other));
    assert!(reason.to_string().contains("two servers answer"), "{reason}");
    // Who comes back with an address of that one is unknown here.
    let mut server = Server::new(config(), []);
    let returns = message(RequestKind::Request, 1).wants(ip(250));
    assert!(
        matches!(silence(&mut server, &returns), Reason::Others(address) if address == ip(250))
    );
    // Who moved here from elsewhere must ask for another one.
    let moved = message(RequestKind::Request, 1).wants(Ipv4Addr::new(192, 168, 1, 5));
    assert_eq!(reply(&mut server, &moved).kind, ReplyKind::Nak);
}

#[test]
fn a_relay_gets_its_information_back_as_the_last_option() {
    let mut server = machines(config());
    let relayed = Message {
        relay: ip(9),
        ..message(Discover, 1).with(OPT_RELAY_INFORMATION, b"\x01\x04port")
    };
    let offer = reply(&mut server, &relayed);
    assert_eq!(offer.to, Destination::Relay(ip(9), SERVER_PORT));
    let information = b"\x52\x06\x01\x04port\xff";
    assert!(offer.bytes.windows(information.len()).any(|bytes| bytes == information));
}

#[test]
fn inform_is_answered_without_an_address() {
    let mut server = machines(config());
    let ack = reply(&mut server, &Message { client: ip(7), ..message(Inform, 1) });
    assert_eq!(
        (ack.kind, ack.to, ack.lease.clone()),
        (ReplyKind::Ack, Destination::Unicast(ip(7)), None)
    );
    assert_eq!((option(&ack, OPT_LEASE_TIME), ack.bytes[16..20].to_vec()), (None, vec![0; 4]));
}

#[test]
fn every_reason_says_what_to_do() {
    let address = ip(1);
    for reason in [
        Reason::OtherServer(address),
        Reason::PoolExhausted(address, address),
        Reason::ReservedInUse(address),
        Reason::StrangersShareExhausted(7),
        Reason::NotLeased(address),
        Reason::NotDeclined(address),
        Reason::StillInUse(address),
        Reason::NoAddress(RequestKind::Request),
        Reason::NoBootClient,
        Reason::NoHost(address),
        Reason::ForeignRelay(address),
        Reason::ForeignLink(address, address),
        Reason::NoNetworkHere,
        Reason::InUseElsewhere(address),
    ] {
        assert!(reason.to_string().contains(':'), "{reason}");
    }
}

#[test]
fn what_is_no_request_is_named() {
    let good = message(Discover, 1).bytes();
    let with = |index: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[index] = value;
        Request::parse(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 2), NotARequest::NotDhcp(NotDhcp::NoMessageType { op: 2 }));
    assert_eq!(with(2, 200), NotARequest::NotDhcp(NotDhcp::NotEthernet(1, 200)));
    assert_eq!(with(236, 0), NotARequest::NotDhcp(NotDhcp::NoCookie));
    assert_eq!(with(242, 5), NotARequest::NotDhcp(NotDhcp::NoMessageType { op: 1 }));
    assert!(matches!(with(28, 0x53), NotARequest::BadMac(_)));
    let mut server = machines(config());
    let offer = reply(&mut server, &message(Discover, 1));
    assert_eq!(Request::parse(&offer.bytes), Err(NotARequest::Reply));
}

/// Compares a reply with what dhcproto reads in it, option by option.
fn check_with_dhcproto(reply: &Reply) {
    use dhcproto::{Decodable, Decoder, Encodable, Encoder, v4};
    let decoded =
        v4::Message::decode(&mut Decoder::new(&reply.bytes)).expect("dhcproto reads every reply");
    assert_eq!((decoded.opcode(), decoded.yiaddr()), (v4::Opcode::BootReply, reply.address));
    let mut rest = &reply.bytes[240..];
    let mut n_options = 0;
    while let [code, length, ..] = *rest
        && code != OPT_END
    {
        let (option, behind) = rest.split_at(2 + usize::from(length));
        let theirs = decoded.opts().get(v4::OptionCode::from(code)).expect("no option gets lost");
        let mut encoded = Vec::new();
        theirs.encode(&mut Encoder::new(&mut encoded)).expect("what was decoded can be encoded");
        assert_eq!(encoded, option, "option {code}");
        n_options += 1;
        rest = behind;
    }
    assert_eq!(decoded.opts().iter().count(), n_options, "no option twice");
    assert_eq!(rest[0], OPT_END, "the end is marked");
    assert!(reply.bytes.len() >= 300);
}

#[test]
fn replies_are_understood_by_another_implementation() {
    let mut server = machines(config());
    let id = [1, 0x52, 0x54, 0, 0x77, 0, 4];
    for message in [
        message(Discover, 1),
        message(Discover, 1).bios(),
        message(Discover, 2).uefi(),
        message(Discover, 4)
            .with(OPT_CLIENT_ID, &id)
            .with(OPT_PARAMETER_LIST, &[OPT_SUBNET_MASK, OPT_ROUTER, OPT_DNS_SERVER]),
        message(RequestKind::Request, 1).wants(ip(100)),
        message(RequestKind::Request, 3).wants(Ipv4Addr::new(192, 168, 7, 7)),
        Message { client: ip(9), ..message(Inform, 9) },
        Message { relay: SERVER, ..message(Discover, 1) }
            .with(OPT_RELAY_INFORMATION, &[1, 2, 0, 7]),
    ] {
        check_with_dhcproto(&reply(&mut server, &message));
    }
}

#[test]
fn requests_of_another_implementation_are_understood() {
    use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
    use dhcproto::{Encodable, Encoder};
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(77, none, none, none, none, &mac(9).0);
    message.opts_mut().insert(DhcpOption::MessageType(MessageType::Request));
    message.opts_mut().insert(DhcpOption::RequestedIpAddress(ip(9)));
    message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
    message.opts_mut().insert(DhcpOption::Hostname("lab-9".into()));
    message.opts_mut().insert(DhcpOption::ParameterRequestList(vec![OptionCode::SubnetMask]));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let request = Request::parse(&bytes).unwrap();
    assert_eq!((request.transaction, request.mac), (77, mac(9)));
    assert_eq!((request.wanted, request.server), (Some(ip(9)), Some(SERVER)));
    assert_eq!(
        (request.host_name.as_deref(), &request.parameters[..]),
        (Some("lab-9"), &[OPT_SUBNET_MASK][..])
    );
}

#[test]
fn no_prefix_of_a_request_panics() {
    let bytes = message(Discover, 1).bios().wants(ip(100)).bytes();
    for end in 0..bytes.len() {
        let parsed = Request::parse(&bytes[..end]);
        assert_eq!(parsed.is_err(), end < 243, "{end} bytes: {parsed:?}");
    }
}

/// A message of a PC that nobody knows.
fn stranger(kind: RequestKind, number: u32) -> Message {
    let [_, a, b, c] = number.to_be_bytes();
    Message { mac: Mac([2, 0x66, 0, a, b, c]), ..message(kind, 0) }
}

fn decide_at(server: &mut Server, message: &Message, now: u64) -> Decision {
    server.on_request(&Request::parse(&message.bytes()).expect("a request"), now)
}

/// DISCOVER and REQUEST at that time; what is to be stored is.
fn get(server: &mut Server, discover: &Message, now: u64) -> Result<Reply, Reason> {
    let offer = match decide_at(server, discover, now) {
        Decision::Reply(offer) => offer,
        Decision::Silent(reason) => return Err(reason),
        other => panic!("{other:?}"),
    };
    let request =
        Message { kind: RequestKind::Request.code(), options: vec![], ..discover.clone() };
    match decide_at(server, &request.wants(offer.address).chooses(SERVER), now) {
        Decision::Reply(ack) if ack.kind == ReplyKind::Ack => {
            ack.lease.iter().for_each(|lease| server.on_stored(lease));
            Ok(*ack)
        }
        other => panic!("{other:?}"),
    }
}

/// A server with this pool, which knows so many machines.
fn site(first: u8, last: u8, n_machines: u8) -> Server {
    let mut server = Server::new(Config { pool: (ip(first), ip(last)), ..config() }, []);
    server.know((0..n_machines).map(mac).collect());
    server
}

#[test]
fn a_flood_of_strangers_neither_fills_the_memory_nor_the_pool_for_ever() {
    let mut server = site(100, 200, 40);
    for number in 0..20_000 {
        let _ = decide(&mut server, &stranger(Discover, number));
    }
    assert!(matches!(decide(&mut server, &message(Discover, 1)), Decision::Reply(_)));
    let late = stranger(Discover, 99_999);
    assert_eq!(silence(&mut server, &late), Reason::StrangersShareExhausted(50));
    assert!(matches!(decide_at(&mut server, &late, NOW + 15), Decision::Reply(_)));
}

#[test]
fn strangers_that_take_all_they_can_get_keep_no_machine_out() {
    let mut server = site(100, 199, 50);
    let mut n_got = 0;
    for number in 0..100 {
        match get(&mut server, &stranger(Discover, number), NOW) {
            Ok(ack) => {
                n_got += 1;
                assert_eq!(option(&ack, OPT_LEASE_TIME), Some(300u32.to_be_bytes().to_vec()));
            }
            Err(reason) => assert_eq!(reason, Reason::StrangersShareExhausted(50)),
        }
    }
    assert_eq!(n_got, 50);
    // Nor do addresses that they take one after the other and decline.
    for number in 0..50 {
        let address = get(&mut server, &stranger(Discover, number), NOW).unwrap().address;
        let declined = stranger(Decline, number).wants(address).chooses(SERVER);
        assert!(matches!(decide(&mut server, &declined), Decision::Declined(..)));
        assert!(get(&mut server, &stranger(Discover, number), NOW).is_err());
    }
    for last in 0..50 {
        let ack = get(&mut server, &message(Discover, last), NOW).unwrap();
        assert_eq!(option(&ack, OPT_LEASE_TIME), Some(3600u32.to_be_bytes().to_vec()));
    }
    let Usage { n_addresses, n_known, n_strangers, n_strangers_max, n_declined } =
        server.usage(NOW);
    assert_eq!((n_addresses, n_known, n_strangers, n_strangers_max), (100, 50, 50, 50));
    assert_eq!(n_declined, 50);
    assert_eq!(server.usage(NOW + 600).n_strangers, 0);
    assert!(get(&mut server, &stranger(Discover, 777), NOW + 600).is_ok());
}

#[test]
fn a_stranger_that_is_adopted_keeps_its_address_and_gets_a_machine_s_time() {
    let mut server = site(100, 103, 0);
    let ack = get(&mut server, &message(Discover, 1), NOW).unwrap();
    // It waits in its loader, which is a sign of life.
    assert_eq!(server.on_alive(mac(1), NOW + 290), None, "half of the time is left");
    let lease = server.on_alive(mac(1), NOW + 300).expect("it is kept for longer");
    server.on_stored(&lease);
    assert_eq!((lease.address, lease.expires_unix), (ack.address, NOW + 900));
    server.know([mac(1)].into());
    let lease = server.on_alive(mac(1), NOW + 310).expect("it is a machine now");
    assert_eq!((lease.address, lease.expires_unix), (ack.address, NOW + 310 + 7200));
    assert_eq!((server.usage(NOW + 310).n_known, server.usage(NOW + 310).n_strangers), (1, 0));
}

#[test]
fn the_more_machines_there_are_the_less_is_left_for_strangers() {
    for (n_machines, expected) in [(0, 2), (2, 2), (3, 1), (4, 0), (9, 0)] {
        let mut server = site(100, 103, n_machines);
        assert_eq!(server.usage(NOW).n_strangers_max, expected, "{n_machines} machines");
    }
    let mut server = site(100, 100, 0);
    assert!(get(&mut server, &stranger(Discover, 1), NOW).is_ok(), "somebody must be the first");
    // What is reserved is nobody else's room, wherever it lies.
    let reserved = [(mac(1), ip(100)), (mac(2), ip(101)), (mac(3), ip(9))];
    let pool = (ip(100), ip(103));
    let mut server = Server::new(Config { pool, reserved: reserved.into(), ..config() }, []);
    server.know((1..=3).map(mac).collect());
    let usage = server.usage(NOW);
    assert_eq!((usage.n_addresses, usage.n_strangers_max), (2, 1));
    for number in 0..9 {
        let _ = get(&mut server, &stranger(Discover, number), NOW);
    }
    for (last, address) in [(1, 100), (2, 101), (3, 9)] {
        assert_eq!(get(&mut server, &message(Discover, last), NOW).unwrap().address, ip(address));
    }
}

#[test]
fn a_machine_that_was_off_for_long_finds_its_address_again() {
    let mut server = site(100, 103, 2);
    let (one, two) = (lease(&mut server, 0), lease(&mut server, 1));
    let later = NOW + 1_000_000;
    let mut seen = Vec::new();
    for number in 0..40 {
        let now = later + u64::from(number) * 1000;
        let wanted = stranger(Discover, number).wants(one);
        seen.push(get(&mut server, &wanted, now).unwrap().address);
    }
    assert!(!seen.contains(&one) && !seen.contains(&two), "{seen:?}");
    assert_eq!(get(&mut server, &message(Discover, 0), later + 50_000).unwrap().address, one);
}

#[test]
fn a_renewal_that_changes_nothing_needs_no_write() {
    let mut server = site(100, 103, 2);
    let ack = get(&mut server, &message(Discover, 1), NOW).unwrap();
    let first = ack.lease.unwrap();
    assert_eq!(first.expires_unix, NOW + 7200, "it is kept for longer than the client was told");
    let renewal = Message { client: ack.address, ..message(RequestKind::Request, 1) };
    let renew = |server: &mut Server, message: &Message, now: u64| {
        let Decision::Reply(ack) = decide_at(server, message, now) else { panic!("no reply") };
        assert_eq!(ack.kind, ReplyKind::Ack);
        ack.lease
    };
    assert_eq!(renew(&mut server, &renewal, NOW + 1800), None);
    assert_eq!(renew(&mut server, &renewal, NOW + 3600), None);
    // Now it would outlast what is stored. Until that is stored, each answer waits for it.
    let second = renew(&mut server, &renewal, NOW + 5400).unwrap();
    assert!(renew(&mut server, &renewal, NOW + 5400).is_some());
    server.on_stored(&first);
    assert!(renew(&mut server, &renewal, NOW + 5400).is_some(), "that was an earlier one");
    server.on_stored(&second);
    assert_eq!(renew(&mut server, &renewal, NOW + 5401), None);
    let named = renewal.with(OPT_HOST_NAME, b"pc");
    assert_eq!(renew(&mut server, &named, NOW + 5402).unwrap().host_name.as_deref(), Some("pc"));
    // A release is stored, and what comes behind it is, too.
    let released = Message { client: ack.address, ..message(Release, 1) };
    assert!(matches!(decide_at(&mut server, &released, NOW + 5403), Decision::Released(_)));
    assert!(get(&mut server, &message(Discover, 1), NOW + 5404).unwrap().lease.is_some());
}

#[test]
fn a_declined_address_rests_over_a_restart() {
    let mut server = site(100, 100, 1);
    server.rest(ip(100), NOW + 600);
    assert!(matches!(decide(&mut server, &message(Discover, 0)), Decision::Silent(_)));
    assert!(matches!(decide_at(&mut server, &message(Discover, 0), NOW + 600), Decision::Reply(_)));
}

proptest! {
    #[test]
    fn random_messages_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 0..9u8,
        last in any::<u8>(),
    ) {
        let _ = Request::parse(&noise);
        let mut server = machines(config());
        let wild = Message { kind, options: noise, ..message(Discover, last) };
        if let Ok(request) = Request::parse(&wild.bytes()) {
            let _ = server.on_request(&request, NOW);
        }
    }

    #[test]
    fn no_address_is_ever_given_to_two(clients in proptest::collection::vec((1..9u8, 0..3u8), 1..40)) {
        let mut server = machines(config());
        let mut held: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
        for (last, action) in clients {
            let offered = match decide(&mut server, &message(Discover, last)) {
                Decision::Reply(offer) => offer.address,
                _ => continue,
            };
            if action == 0 {
                continue;
            }
            let request = message(RequestKind::Request, last).wants(offered).chooses(SERVER);
            if let Decision::Reply(ack) = decide(&mut server, &request)
                && ack.kind == ReplyKind::Ack
            {
                let owner = held.insert(ack.address, mac(last));
                prop_assert!(owner.is_none_or(|owner| owner == mac(last)));
                if action == 2 {
                    let release = Message { client: ack.address, ..message(Release, last) };
                    let _ = decide(&mut server, &release);
                    held.remove(&ack.address);
                }
            }
        }
    }

    #[test]
    fn nobody_is_given_what_another_still_has_though_the_server_is_killed(
        steps in proptest::collection::vec((0..12u32, 0..7u8, 0..2000u64), 1..80),
    ) {
        let config = Config { pool: (ip(100), ip(105)), ..config() };
        let known = |server: &mut Server| server.know((0..3).map(mac).collect());
        let mut server = Server::new(config.clone(), []);
        known(&mut server);
        let mut stored: BTreeMap<Mac, Lease> = BTreeMap::new();
        // Until when each was told that it has which address.
        let mut told: BTreeMap<Ipv4Addr, (Mac, u64)> = BTreeMap::new();
        let mut now = NOW;
        for (who, action, seconds) in steps {
            now += seconds;
            let discover =
                if who < 3 { message(Discover, who as u8) } else { stranger(Discover, who) };
            let mac = discover.mac;
            let (message, is_told) = match action {
                0 => {
                    server = Server::new(config.clone(), stored.values().cloned());
                    known(&mut server);
                    continue;
                }
                1 => {
                    if let Some(lease) = server.on_alive(mac, now) {
                        stored.retain(|_, other| other.address != lease.address);
                        stored.insert(mac, lease.clone());
                        server.on_stored(&lease);
                    }
                    continue;
                }
                2 => (discover, false),
                3 => {
                    let Some((&address, _)) = told.iter().find(|(_, (owner, _))| *owner == mac)
                    else { continue };
                    (Message { client: address, kind: 3, ..discover }, true)
                }
                _ => {
                    let Decision::Reply(offer) = decide_at(&mut server, &discover, now)
                    else { continue };
                    (Message { kind: 3, ..discover }.wants(offer.address).chooses(SERVER), true)
                }
            };
            let Decision::Reply(reply) = decide_at(&mut server, &message, now) else { continue };
            if !is_told || reply.kind != ReplyKind::Ack {
                continue;
            }
            if let Some(lease) = &reply.lease {
                stored.retain(|_, other| other.address != lease.address);
                stored.insert(mac, lease.clone());
                server.on_stored(lease);
            }
            let length = option(&reply, OPT_LEASE_TIME).unwrap();
            let length = u32::from_be_bytes(length.try_into().unwrap());
            let until = now + u64::from(length);
            if let Some((owner, end)) = told.insert(reply.address, (mac, until)) {
                prop_assert!(owner == mac || end <= now, "{owner} has it until {end}, it is {now}");
            }
            let lease = &stored[&mac];
            prop_assert!(lease.address == reply.address && lease.expires_unix >= until);
        }
    }
}
