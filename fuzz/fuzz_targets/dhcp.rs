//! DHCP requests and answers, router solicitations, and what server and client decide about a series of them.
#![no_main]

use std::net::Ipv4Addr;

/// Where the magic cookie stands in a datagram (RFC 2131 §3).
const COOKIE: std::ops::Range<usize> = 236..240;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dhcp::Request::parse(bytes);
    let _ = dhcp::solicitor(bytes, std::net::Ipv6Addr::LOCALHOST);
    let mut client = dhcp::Client::new(wire::Mac([2; 6]), "x", 1, wire::Moment::default());
    let mut server = dhcp::Server::new(config(), []);
    for (now, piece) in (0..).zip(bytes.chunks(340)) {
        let mut datagram = piece.to_vec();
        if datagram.len() >= COOKIE.end {
            // An Ethernet BOOTREQUEST always: the fuzzer's time is for the options.
            datagram[..3].copy_from_slice(&[1, 1, 6]);
            datagram[COOKIE].copy_from_slice(&[99, 130, 83, 99]);
        }
        if let Ok(request) = dhcp::Request::parse(&datagram) {
            let _ = server.on_request(&request, now);
        }
        if datagram.len() >= COOKIE.end {
            // These options once more, in an answer to what the client asks.
            datagram[0] = 2;
            datagram[28..34].copy_from_slice(&[2; 6]);
            if let dhcp::Next::Send(question, _) = client.next(wire::Moment::from_millis(now * 1000)) {
                datagram[4..8].copy_from_slice(&question[4..8]);
            }
            let _ = client.on_datagram(&datagram, wire::Moment::from_millis(now * 1000));
        }
    }
});

fn config() -> dhcp::Config {
    dhcp::Config {
        server: Ipv4Addr::new(10, 0, 0, 1),
        subnet: Ipv4Addr::new(10, 0, 0, 0),
        prefix: 29,
        pool: (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 4)),
        reserved: Default::default(),
        router: None,
        routes: vec!["10.9.0.0/16:10.0.0.253".parse().unwrap()],
        dns: Vec::new(),
        ntp: Vec::new(),
        domain: None,
        serve_everyone: false,
        lease_seconds: 2,
        bios_file: "bl.0".to_owned(),
        others: Vec::new(),
        uefi_x64_file: "bl.efi".to_owned(),
        uefi_arm64_file: "bl-arm64.efi".to_owned(),
    }
}
