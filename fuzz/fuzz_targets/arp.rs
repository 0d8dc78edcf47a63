//! ARP packets of anybody on the boot network.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let heard = bootsvc::net::arp::parse(bytes);
    assert!(heard.is_none_or(|(_, address)| bytes.len() >= 28 && !address.is_unspecified()));
});
