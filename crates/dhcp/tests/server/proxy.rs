//! Firmware that gets its address from another server, as it was seen on the wire.

use super::*;
use dhcp::{Proxy, ProxyConfig, ProxyDecision, ProxySilence};

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

fn proxy() -> Proxy {
    let Config { server, bios_file, uefi_x64_file, uefi_arm64_file, .. } = config();
    Proxy::new(ProxyConfig { server, bios_file, uefi_x64_file, uefi_arm64_file })
}

fn request(message: &Message) -> Request {
    Request::parse(&message.bytes()).expect("a request")
}

fn told(decision: ProxyDecision) -> Reply {
    match decision {
        ProxyDecision::Reply(reply) => *reply,
        other => panic!("no reply: {other:?}"),
    }
}

/// The addresses in the message: the client's, the one that it gets, and where it finds its loader.
fn addresses(reply: &Reply) -> [Ipv4Addr; 3] {
    [12, 16, 20].map(|at| <[u8; 4]>::try_from(&reply.bytes[at..at + 4]).expect("four bytes").into())
}

fn file(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.bytes[108..236]).expect("text").trim_end_matches('\0')
}

#[test]
fn a_bios_pc_is_told_its_loader_in_an_offer_without_an_address() {
    let offer = told(proxy().on_request(&request(&message(Discover, 1).bios())));
    check_with_dhcproto(&offer);
    assert_eq!((offer.kind, offer.to), (ReplyKind::Offer, Destination::Broadcast));
    assert_eq!(addresses(&offer), [Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, SERVER]);
    assert_eq!(file(&offer), "bl.0");
    assert_eq!(option(&offer, OPT_VENDOR_CLASS).unwrap(), b"PXEClient");
    assert_eq!(option(&offer, OPT_VENDOR_SPECIFIC).unwrap(), [6, 1, 8, 255]);
    for code in [OPT_LEASE_TIME, OPT_SUBNET_MASK, OPT_ROUTER, OPT_DNS_SERVER] {
        assert_eq!(option(&offer, code), None, "the other server's matter: {code}");
    }
}

#[test]
fn a_uefi_pc_is_sent_to_the_boot_server_s_port_and_told_its_loader_there() {
    let offer = told(proxy().on_request(&request(&message(Discover, 1).uefi())));
    assert_eq!((file(&offer), option(&offer, OPT_BOOT_FILE)), ("", None));
    assert_eq!(option(&offer, OPT_VENDOR_CLASS).unwrap(), b"PXEClient");
    assert_eq!(option(&offer, OPT_VENDOR_SPECIFIC), None);
    let mut asks = message(RequestKind::Request, 1).uefi();
    asks.client = ip(42);
    let ack = told(proxy().on_boot_request(&request(&asks)));
    check_with_dhcproto(&ack);
    assert_eq!((ack.kind, ack.to), (ReplyKind::Ack, Destination::Unicast(ip(42))));
    assert_eq!(addresses(&ack), [ip(42), Ipv4Addr::UNSPECIFIED, SERVER]);
    assert_eq!(
        (file(&ack), option(&ack, OPT_BOOT_FILE).unwrap()),
        ("bl.efi", b"bl.efi\0".to_vec())
    );
    // What it has chosen from a menu is repeated.
    let item = [71, 4, 0x80, 0, 0, 0, 255];
    let chosen =
        told(proxy().on_boot_request(&request(&asks.clone().with(OPT_VENDOR_SPECIFIC, &item))));
    assert_eq!(option(&chosen, OPT_VENDOR_SPECIFIC).unwrap(), item);
    asks.client = Ipv4Addr::UNSPECIFIED;
    let nobody = proxy().on_boot_request(&request(&asks));
    assert_eq!(nobody, ProxyDecision::Silent(ProxySilence::NoAddress));
}

#[test]
fn a_uefi_pc_that_boots_by_http_is_told_an_address_at_once_and_each_the_loader_that_was_chosen() {
    let discover = message(Discover, 1)
        .with(OPT_CLIENT_ARCHITECTURE, &[0, 16])
        .with(OPT_VENDOR_CLASS, b"HTTPClient:Arch:00016:UNDI:003001");
    let offer = told(proxy().on_request(&request(&discover)));
    assert_eq!(option(&offer, OPT_VENDOR_CLASS).unwrap(), b"HTTPClient");
    assert_eq!(option(&offer, OPT_BOOT_FILE).unwrap(), b"http://10.77.0.1/bl.efi\0");
    let chosen = Request { loader: Some("shim.efi".to_owned()), ..request(&discover) };
    assert_eq!(file(&told(proxy().on_request(&chosen))), "http://10.77.0.1/shim.efi");
}

#[test]
fn an_arm64_pc_is_told_of_its_loader_as_other_uefi_is() {
    let ask = |kind, architecture, class: &[u8]| {
        message(kind, 1)
            .with(OPT_CLIENT_ARCHITECTURE, &[0, architecture])
            .with(OPT_VENDOR_CLASS, class)
    };
    let offer = told(proxy().on_request(&request(&ask(Discover, 11, b"PXEClient"))));
    assert_eq!((file(&offer), option(&offer, OPT_BOOT_FILE)), ("", None));
    let mut asks = request(&ask(RequestKind::Request, 11, b"PXEClient"));
    asks.client = ip(42);
    assert_eq!(file(&told(proxy().on_boot_request(&asks))), "bl-arm64.efi");
    let offer = told(proxy().on_request(&request(&ask(Discover, 19, b"HTTPClient"))));
    assert_eq!(file(&offer), "http://10.77.0.1/bl-arm64.efi");
    assert_eq!(option(&offer, OPT_VENDOR_CLASS).unwrap(), HTTP_CLASS);
}

#[test]
fn who_is_no_firmware_is_the_other_server_s() {
    let discover = message(Discover, 1);
    let silent = proxy().on_request(&request(&discover));
    assert_eq!(silent, ProxyDecision::Silent(ProxySilence::NoFirmware));
    let takes = discover.wants(ip(42)).chooses(OTHER);
    let takes = Message { kind: RequestKind::Request.code(), ..takes };
    assert_eq!(proxy().on_request(&request(&takes)), ProxyDecision::Takes(ip(42)));
    let mut renews = message(RequestKind::Request, 1);
    renews.client = ip(43);
    assert_eq!(proxy().on_request(&request(&renews)), ProxyDecision::Takes(ip(43)));
    for kind in [Decline, Release, Inform] {
        let silent = proxy().on_request(&request(&message(kind, 1).bios()));
        assert_eq!(silent, ProxyDecision::Silent(ProxySilence::AboutAddress), "{kind:?}");
    }
}

#[test]
fn who_gets_no_loader_is_told_of_none() {
    for kind in [Discover, RequestKind::Request] {
        let mut asks = request(&message(kind, 1).bios());
        asks.gets_no_loader = true;
        asks.client = Ipv4Addr::new(10, 0, 0, 7);
        let told = match kind {
            Discover => proxy().on_request(&asks),
            _ => proxy().on_boot_request(&asks),
        };
        assert!(matches!(told, ProxyDecision::Silent(_)), "{told:?}");
    }
}

#[test]
fn a_relay_gets_the_offer_to_pass_on() {
    let mut discover = message(Discover, 1).bios().with(OPT_RELAY_INFORMATION, &[1, 1, 7]);
    discover.relay = Ipv4Addr::new(10, 99, 0, 1);
    let offer = told(proxy().on_request(&request(&discover)));
    assert_eq!(offer.to, Destination::Relay(discover.relay, SERVER_PORT));
    assert_eq!(
        offer.bytes[10..12],
        [0x80, 0],
        "there is no address to which the relay could send it"
    );
    assert_eq!(option(&offer, OPT_RELAY_INFORMATION).unwrap(), [1, 1, 7]);
}

proptest! {
    #[test]
    fn random_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut datagram = message(Discover, 1).bios().bytes();
        datagram.truncate(240);
        datagram.extend(bytes);
        if let Ok(request) = Request::parse(&datagram) {
            let _ = (proxy().on_request(&request), proxy().on_boot_request(&request));
        }
    }
}
