//! Who gets an address where only PCs that boot do.

use super::*;

fn server() -> Server {
    let mut server =
        Server::new(Config { serve_everyone: false, pool: (ip(100), ip(119)), ..config() }, []);
    server.know([mac(1)].into());
    server
}

/// Without options but its address.
fn plain(number: u32, address: Ipv4Addr) -> Message {
    stranger(RequestKind::Request, number).wants(address)
}

#[test]
fn a_phone_gets_nothing_and_what_boots_does() {
    let mut server = server();
    let phone = stranger(Discover, 1);
    assert_eq!(silence(&mut server, &phone), Reason::NoBootClient);
    // Nor is it refused what another server gave it.
    for address in [ip(100), ip(250), Ipv4Addr::new(192, 168, 7, 7)] {
        assert_eq!(silence(&mut server, &plain(1, address)), Reason::NoBootClient);
    }
    // Nor does it hear of our router and name servers, beside what its own server says.
    let asks = Message { client: ip(250), ..stranger(Inform, 1) };
    assert_eq!(silence(&mut server, &asks), Reason::NoBootClient);
    for last in [1, 50] {
        let asks = Message { client: ip(250), ..message(Inform, last) };
        assert_eq!(reply(&mut server, &asks).kind, ReplyKind::Ack);
    }
    let other = plain(1, ip(250)).chooses(ip(2));
    assert_eq!(silence(&mut server, &other), Reason::OtherServer(ip(2)));
    for boots in [stranger(Discover, 2).bios(), stranger(Discover, 3).uefi()] {
        assert_eq!(reply(&mut server, &boots).kind, ReplyKind::Offer);
    }
    let http = stranger(Discover, 4).with(OPT_VENDOR_CLASS, b"HTTPClient:Arch:00016");
    assert_eq!(reply(&mut server, &http).kind, ReplyKind::Offer);
    // A loader of firmware that says no more than that it boots.
    let u_boot = stranger(Discover, 5).with(OPT_VENDOR_CLASS, b"PXEClient");
    assert_eq!(reply(&mut server, &u_boot).kind, ReplyKind::Offer);
    // A machine's system, and who has an address reserved.
    for last in [1, 50] {
        assert_eq!(reply(&mut server, &message(Discover, last)).kind, ReplyKind::Offer);
    }
}

#[test]
fn what_firmware_has_started_keeps_its_address_for_as_long_as_that_lasts() {
    let mut server = server();
    let ack = get(&mut server, &stranger(Discover, 7).bios(), NOW).unwrap();
    let ends = ack.lease.unwrap().expires_unix;
    let later = NOW + 200;
    let seconds_of = |reply: &Reply| {
        let told = option(reply, OPT_LEASE_TIME).unwrap();
        u64::from(u32::from_be_bytes(told.try_into().unwrap()))
    };
    // GRUB, and a system, by the same NIC.
    let renewed = get(&mut server, &stranger(Discover, 7), later).unwrap();
    assert_eq!((renewed.address, seconds_of(&renewed)), (ack.address, 300));
    assert_eq!(renewed.lease, None, "it lasts no longer by that");
    let last = ends - 10;
    let named = stranger(Discover, 7).with(OPT_HOST_NAME, b"phone");
    let Decision::Reply(offer) = decide_at(&mut server, &named, last) else { panic!("no offer") };
    assert_eq!(seconds_of(&offer), 10);
    let wants = plain(7, ack.address).with(OPT_HOST_NAME, b"phone");
    let Decision::Reply(reply) = decide_at(&mut server, &wants, last) else { panic!("no ACK") };
    assert_eq!((seconds_of(&reply), reply.lease.unwrap().expires_unix), (10, ends));
    // It gets no other one, and then none.
    let other = decide_at(&mut server, &plain(7, ip(103)), last);
    assert_eq!(other, Decision::Silent(Reason::NoBootClient));
    let over = decide_at(&mut server, &stranger(Discover, 7), ends);
    assert_eq!(over, Decision::Silent(Reason::NoBootClient));
    // Adopted it is a machine.
    server.know([stranger(Discover, 7).mac].into());
    let adopted = get(&mut server, &stranger(Discover, 7), ends + 1).unwrap();
    assert_eq!((adopted.address, seconds_of(&adopted)), (ack.address, 3600));
}
